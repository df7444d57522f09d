"""What the pages tell people to type exists: commands and options of the plugin, of make and of Python's modules.

Columns that are shown below a `kubectl get` are those of the definitions.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from kubectl_twin.program import app
from tests.conftest import ROOT
from tests.unit.docs.schemas import definitions
from tests.unit.docs.told import PAGES, typed

PLUGIN = typer.main.get_command(app)


MISUSED: Any = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "UsageError")
"""What is raised when something lacks or isn't known; Typer names the class nowhere."""
PROGRAMS = {"imagebuilder": ROOT / "local", "release": ROOT / "local"}
KINDS_OF_OTHERS = {
    "cm", "configmap", "events", "jobs", "lease", "mutatingwebhookconfigurations", "networkpolicy", "nodes", "pod",
    "pods", "pvc", "secret", "service", "validatingwebhookconfigurations", "workloads",
}  # fmt: skip


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


def test_a_command_of_the_plugin_is_understood_as_it_stands() -> None:
    """With all that it must be given, and nothing that it doesn't take; one that is only spoken of may be its name."""
    wrong, seen = [], 0
    for page, found in typed(r"(`?)(?:\$ )?(?<!/)kubectl twin ([a-z]+)\b([^`\n]*)"):
        quoted, name, rest = found.groups()
        words = words_of(rest)
        if quoted and not words:
            continue
        seen += 1
        command: Any = PLUGIN.commands[name]  # type: ignore[attr-defined]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        try:
            command.make_context(name, words)
        except MISUSED as error:
            wrong.append(f"{page}: {found[0].strip()}: {error}")
    assert wrong == []
    assert seen > 80


def words_of(rest: str) -> list[str]:
    """What stands behind a command, up to a comment or another command; brackets around what may be left out."""
    plain = re.sub(r"\{\{.*?\}\}", "1", rest).replace("(1)", "").replace("[", "").replace("]", "")
    words = shlex.split(plain, comments=True)
    ends = [index for index, word in enumerate(words) if word in ("|", "&", "&&", ";")]
    return words[: ends[0]] if ends else words


def test_options_of_our_programs_are_theirs() -> None:
    """They are looked for in the code of the program's package, which has its parser."""
    wrong, seen = [], 0
    for page, found in typed(r"python -m ((?:neurons|tests|imagebuilder|release)[\w.]*)([^`\n|#]*)"):
        place = PROGRAMS.get(found[1].split(".")[0], ROOT).joinpath(*found[1].split("."))
        files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        code = "".join(file.read_text() for file in files)
        for option in set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", found[2])):
            seen += 1
            if f'"{option}"' not in code and f"{option[2:].replace('-', '_')}: " not in code:
                wrong.append(f"{page}: {found[1]} has no {option}")
    assert wrong == []
    assert seen > 50


def test_what_kubectl_is_asked_for_is_a_resource() -> None:
    """Ours go by their plural, singular and short names; the others are Kubernetes' and Kueue's."""
    ours = {
        each
        for definition in definitions().values()
        for names in [definition["spec"]["names"]]
        for each in (names["plural"], names["singular"], *names.get("shortNames", ()))
    }
    asked = [
        (page, kind)
        for page, found in typed(r"(?<!-)kubectl (?:-n \S+ )?(?:get|describe) ([a-z,]+)(?=[ `\n])")
        for kind in found[1].split(",")
    ]
    assert len(asked) > 60
    assert {each for each in asked if each[1] not in ours | KINDS_OF_OTHERS} == set()


def test_who_is_told_to_delete_the_definitions_deletes_all() -> None:
    plurals = {each["spec"]["names"]["plural"] for each in definitions().values()}
    told = [(page, found[0]) for page, found in typed(r"kubectl delete crd [^\n]*")]
    assert len(told) >= 2
    assert {page: missed for page, line in told if (missed := {each for each in plurals if each not in line})} == {}


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
