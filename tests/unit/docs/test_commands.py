"""What the pages tell people to type exists: commands and options of the plugin, of make and of Python's modules.

Columns that are shown below a `kubectl get` are those of the definitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from kubectl_twin.program import app
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cli" / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "decisions"),
    *sorted((ROOT / "charts").glob("*/README.md")), *sorted((ROOT / "charts").glob("*/templates/NOTES.txt")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]  # fmt: skip
PLUGIN = typer.main.get_command(app)


def options_of(command: Any) -> set[str]:
    """The command's own, and those of the commands below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options_of(each) for each in getattr(command, "commands", {}).values()))


def hands_on(command: Any) -> bool:
    """Whether it, or one below it, is a program of the neurons, which has options of its own."""
    own = command.context_settings.get("ignore_unknown_options", False)
    return own or any(map(hands_on, getattr(command, "commands", {}).values()))


COMMANDS = {name: options_of(command) for name, command in PLUGIN.commands.items()}  # type: ignore[attr-defined]
OF_NEURONS = {name for name, command in PLUGIN.commands.items() if hands_on(command)}  # type: ignore[attr-defined]


def typed(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for page in PAGES:
        for found in re.finditer(pattern, page.read_text().replace("\\\n", " ")):
            yield str(page.relative_to(ROOT)), found


def test_commands_and_options_of_the_plugin_exist() -> None:
    wrong, seen = [], set()
    for page, found in typed(r"(?<!/)kubectl twin ([a-z]+)\b([^`\n|#]*)"):
        command, rest = found.groups()
        seen.add(command)
        if command not in COMMANDS:
            wrong.append(f"{page}: {found[0]}")
            continue
        if command in OF_NEURONS:
            continue
        options = set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", rest))
        wrong += [f"{page}: {found[0]} has no {each}" for each in options - COMMANDS[command] - {"--help", "--version"}]
    assert wrong == []
    assert len(seen) > 10


def test_modules_exist() -> None:
    wrong = [
        f"{page}: {found[1]}"
        for page, found in typed(r"python -m (neurons(?:\.[a-z_]+)+)")
        if not any((ROOT / found[1].replace(".", "/")).with_suffix(end).exists() for end in (".py", ""))
    ]
    assert wrong == []


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = list(typed(r"(?:`|^|\$\(|; )make (?:-s )?([a-z]+)"))
    assert len(asked) > 20
    assert [f"{page}: {found[1]}" for page, found in asked if found[1] not in targets] == []


def columns() -> dict[str, list[str]]:
    """Columns of `kubectl get`, by each name that a kind goes by."""
    made = {}
    for path in (ROOT / "crds").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        shown = spec["versions"][0].get("additionalPrinterColumns", [])
        heads = ["NAME", *(each["name"].upper() for each in shown if not each.get("priority"))]
        names = spec["names"]
        made |= dict.fromkeys((names["plural"], names["singular"], *names.get("shortNames", [])), heads)
    return made


def tables() -> list[tuple[str, str, list[str]]]:
    return [
        (page, found[1], found[2].split())
        for page, found in typed(r"\$ kubectl get ([a-z]+)[^\n]*\n(NAME [^\n]*)")
        if "-o wide" not in found[0]
    ]


@pytest.mark.parametrize(("page", "kind", "shown"), tables())
def test_columns_are_the_definitions(page: str, kind: str, shown: list[str]) -> None:
    wanted = [word for head in columns()[kind] for word in head.split()]
    assert shown == wanted


def test_there_are_tables_to_compare() -> None:
    assert len(tables()) >= 3
    assert Path(ROOT / "README.md") in PAGES
