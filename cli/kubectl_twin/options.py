"""What several commands take: namespace, cluster, user, output; and the connection that follows from them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kubectl_twin import suggestions
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Reach

if TYPE_CHECKING:
    from kubectl_twin.api import Api


class Output(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def filled(param: typer.CallbackParam, value: str | None) -> str | None:
    """Return the value; raises TwinCliError for a blank one, which is a shell's unset variable: nobody meant all."""
    if value is not None and not value.strip():
        if param.param_type_name == "argument":
            raise TwinCliError(f"{(param.name or '').upper()} is empty: give it.")
        raise TwinCliError(f"{param.opts[0]} is empty: give a value, or leave it out.")
    return value


def all_filled(param: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    """Return the values; raises TwinCliError where one is blank."""
    for each in values or ():
        filled(param, each)
    return values


Name = Annotated[str, typer.Argument(help="Name of the twin.", metavar="NAME", callback=filled)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; the context's own if not given.", metavar="NS", callback=filled),
]
Format = Annotated[Output, typer.Option("--output", "-o", help="table, json, yaml or name.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on: print what changes, until Ctrl-C.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, and say what came of it.")]


HERE: Final = Reach()
"""The kubeconfig's own context and user."""


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `reach` the options which say where the cluster is and who asks."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name != "reach"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _REACH.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        kubeconfig, context, user, groups = (given.pop(name) for name in _REACH)
        reach = Reach(kubeconfig, context, user, tuple(groups or ()))
        suggestions.keep(reach, given.get("namespace"))
        command(**given, reach=reach)

    run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *more)}
    del run.__wrapped__  # Typer would read that one's options
    return run


_REACH: Final[dict[str, Any]] = {
    "kubeconfig": Annotated[
        str | None, typer.Option("--kubeconfig", help="Read this file.", metavar="FILE", callback=filled)
    ],
    "context": Annotated[
        str | None, typer.Option("--context", help="Context of the kubeconfig.", metavar="NAME", callback=filled)
    ],
    "as_user": Annotated[
        str | None, typer.Option("--as", help="Act as this user.", metavar="USER", callback=filled)
    ],
    "as_groups": Annotated[
        list[str] | None,
        typer.Option(
            "--as-group", help="With --as: of this group. May be repeated.", metavar="GROUP", callback=all_filled
        ),
    ],
}  # fmt: skip


def connect(reach: Reach) -> Api:
    """Return a connection to the API server that is meant; the client is imported by whoever needs it."""
    from kubectl_twin.api import Api  # noqa: PLC0415

    return Api.connect(reach=reach)
