"""What `kubectl twin <TAB>` offers: kubectl runs `kubectl_complete-twin` with the words, and reads lines.

Each line is a word, or a word, a tab and what it is; the last one is a directive, as cobra has them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError

_NO_FILES: Final = ":4"
_FILES: Final = ":0"
_TWINS: Final = frozenset(
    {"ask", "status", "finetune", "review", "approve", "reject", "rollback", "history", "lineage"}
)


def offers(words: Sequence[str]) -> list[str]:
    """Return what the last of the words may become: commands, options, or names of twins."""
    import typer.main  # noqa: PLC0415

    from kubectl_twin.program import app  # noqa: PLC0415

    *before, last = words or [""]
    command: Any = typer.main.get_command(app)
    said = [each for each, prior in zip(before, ["", *before], strict=False) if not _is_option(each, prior)]
    while said and said[0] in getattr(command, "commands", {}):
        command, said = command.commands[said[0]], said[1:]
    if hasattr(command, "commands") and not last.startswith("-"):
        found = {name: each.get_short_help_str(60) for name, each in command.commands.items()}
    elif last.startswith("-"):
        found = {name: each.help or "" for each in command.params for name in each.opts if name.startswith("--")}
    elif command.name in _TWINS and not said:
        found = dict.fromkeys(_names(before), "")
    else:
        found = {}
    return [f"{name}\t{about}".rstrip() for name, about in found.items() if name.startswith(last)]


def _is_option(word: str, prior: str) -> bool:
    from kubectl_twin import quick  # noqa: PLC0415

    return word.startswith("-") or prior in quick.VALUES


def _names(before: Sequence[str]) -> list[str]:
    """Return the names of the twins that are meant; none where the cluster doesn't say."""
    from kubectl_twin import quick  # noqa: PLC0415
    from kubectl_twin.api import Api, twins_path  # noqa: PLC0415
    from kubectl_twin.kubeconfig import Reach  # noqa: PLC0415

    options = [each for each, prior in zip(before, ["", *before], strict=False) if _is_option(each, prior)]
    given = quick.read(["list", *options]) or {}
    one = {name: values[0] for name, values in given.items() if values}
    reach = Reach(one.get("kubeconfig"), one.get("context"), one.get("as"), tuple(given.get("as-group", ())))
    try:
        with Api.connect(reach=reach) as api:
            twins = api.items(twins_path(one.get("namespace") or api.namespace))
    except TwinCliError:
        return []
    return sorted(str(each["metadata"]["name"]) for each in twins)


def main() -> None:
    """Entry point of `kubectl_complete-twin`."""
    found = offers(sys.argv[1:])
    for each in found:
        terminal.say(each)
    terminal.say(_NO_FILES if found else _FILES)
