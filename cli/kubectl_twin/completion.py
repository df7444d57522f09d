"""What `kubectl twin <TAB>` offers: kubectl runs `kubectl_complete-twin` with the words, and reads lines.

Each line is a word, or a word, a tab and what it is; the last one is a directive, as cobra has them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError

_NO_FILES: Final = ":4"
_FILES: Final = ":0"
_TWINS: Final = frozenset(
    {"ask", "status", "finetune", "review", "approve", "reject", "rollback", "history", "lineage"}
)
_OF_FILES: Final = frozenset({"FILE", "FOLDER"})


def offers(words: Sequence[str]) -> tuple[list[str], str]:
    """Return what the last of the words may become (commands, options, values, names), and the directive."""
    import typer.main  # noqa: PLC0415

    from kubectl_twin.program import app  # noqa: PLC0415

    *before, last = words or [""]
    command: Any = typer.main.get_command(app)
    said = [each for each, prior in zip(before, ["", *before], strict=False) if not _is_option(each, prior)]
    while said and said[0] in getattr(command, "commands", {}):
        command, said = command.commands[said[0]], said[1:]
    option = next((each for each in command.params if before and before[-1] in each.opts and not each.is_flag), None)
    directive = _NO_FILES
    found: dict[str, str] = {}
    if option is not None:
        found = dict.fromkeys(type(option.default) if isinstance(option.default, Enum) else (), "")
        directive = _FILES if option.metavar in _OF_FILES else _NO_FILES
    elif last.startswith("-"):
        found = {name: each.help or "" for each in command.params for name in each.opts if name.startswith("--")}
    elif hasattr(command, "commands"):
        found = {name: each.get_short_help_str(60) for name, each in command.commands.items()}
    elif command.name in _TWINS and not said:
        found = dict.fromkeys(_names(before, "doctortwins"), "")
    elif command.name == "round" and not said:
        found = dict.fromkeys(_names(before, "validatorrounds"), "")
    elif command.name in ("metagraph", "verify", "push"):
        directive = _FILES
    return [f"{name}\t{about}".rstrip() for name, about in found.items() if name.startswith(last)], directive


def _is_option(word: str, prior: str) -> bool:
    from kubectl_twin import quick  # noqa: PLC0415

    return word.startswith("-") or prior in quick.VALUES


def _names(before: Sequence[str], resource: str) -> list[str]:
    """Return the names of the objects that are meant; none where the cluster doesn't say."""
    from kubectl_twin import quick  # noqa: PLC0415
    from kubectl_twin.api import Api, rounds_path, twins_path  # noqa: PLC0415
    from kubectl_twin.kubeconfig import Reach  # noqa: PLC0415

    options = [each for each, prior in zip(before, ["", *before], strict=False) if _is_option(each, prior)]
    given = quick.read(["list", *options]) or {}
    one = {name: values[0] for name, values in given.items() if values}
    reach = Reach(one.get("kubeconfig"), one.get("context"), one.get("as"), tuple(given.get("as-group", ())))
    path = twins_path if resource == "doctortwins" else rounds_path
    try:
        with Api.connect(reach=reach) as api:
            items = api.items(path(one.get("namespace") or api.namespace))
    except TwinCliError:
        return []
    return sorted(str(each["metadata"]["name"]) for each in items)


def main() -> None:
    """Entry point of `kubectl_complete-twin`."""
    found, directive = offers(sys.argv[1:])
    for each in found:
        terminal.say(each)
    terminal.say(directive)
