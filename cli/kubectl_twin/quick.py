"""`kubectl twin list` without Typer, which takes longer to import than the API server to answer.

Only what is surely meant is read here. All else, a mistake too, goes to Typer, which says the same of every command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

VALUES: Final = {
    "-n": "namespace", "--namespace": "namespace", "-o": "output", "--output": "output", "--context": "context",
    "--kubeconfig": "kubeconfig", "--as": "as", "--as-group": "as-group",
}  # fmt: skip
FLAGS: Final = {"-A": "all", "--all-namespaces": "all", "-w": "watch", "--watch": "watch"}
OUTPUTS: Final = ("table", "json", "yaml", "name")


def read(arguments: Sequence[str]) -> dict[str, list[str]] | None:
    """Return the options of a `list`, each with its values; None where Typer has to look."""
    if not arguments or arguments[0] != "list":
        return None
    given: dict[str, list[str]] = {}
    rest = iter(arguments[1:])
    for word in rest:
        option, equals, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if word in FLAGS:
            given[FLAGS[word]] = []
            continue
        if option not in VALUES:
            return None
        if not equals and not value:
            value = next(rest, "")
        if not value.strip() or (value.startswith("-") and not equals):
            return None
        known = given.setdefault(VALUES[option], [])
        if VALUES[option] != "as-group":
            known.clear()
        known.append(value)
    return None if given.get("output", ["table"])[-1] not in OUTPUTS else given


def run(arguments: Sequence[str]) -> bool:
    """Run a `list`, and tell whether it was one."""
    given = read(arguments)
    if given is None:
        return False
    from kubectl_twin import suggestions  # noqa: PLC0415 - what other commands need comes by Typer
    from kubectl_twin.api import Api  # noqa: PLC0415
    from kubectl_twin.kubeconfig import Reach  # noqa: PLC0415
    from kubectl_twin.listing import list_twins  # noqa: PLC0415

    one = {name: values[0] for name, values in given.items() if values}
    reach = Reach(one.get("kubeconfig"), one.get("context"), one.get("as"), tuple(given.get("as-group", ())))
    suggestions.keep(reach, one.get("namespace"))
    with Api.connect(reach=reach) as api:
        list_twins(
            api, namespace=None if "all" in given else one.get("namespace") or api.namespace,
            output=one.get("output", "table"), watch="watch" in given,
        )  # fmt: skip
    return True
