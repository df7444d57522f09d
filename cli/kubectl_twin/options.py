"""What several commands take: namespace, context, output; and the connection that follows from them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_twin.errors import TwinCliError

if TYPE_CHECKING:
    from kubectl_twin.api import Api


class Output(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"


def filled(param: typer.CallbackParam, value: str | None) -> str | None:
    """Return the value; raises TwinCliError for a blank one, which is a shell's unset variable: nobody meant all."""
    if value is not None and not value.strip():
        if param.param_type_name == "argument":
            raise TwinCliError(f"{(param.name or '').upper()} is empty: give it.")
        raise TwinCliError(f"{param.opts[0]} is empty: give a value, or leave it out.")
    return value


Name = Annotated[str, typer.Argument(help="Name of the twin.", callback=filled)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; the context's own if not given.", metavar="NS", callback=filled),
]
Context = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig.", metavar="NAME", callback=filled)
]
Format = Annotated[Output, typer.Option("--output", "-o", help="table or json.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, and say what came of it.")]


def connect(context: str | None) -> Api:
    """Return a connection to the API server of this context; the client is imported by whoever needs it."""
    from kubectl_twin.api import Api  # noqa: PLC0415

    return Api.connect(context=context)
