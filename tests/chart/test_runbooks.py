"""What a runbook tells to type exists: resources, columns of `kubectl twin`, labels of components."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from bettertherapy_api import names
from kubectl_twin.program import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.name != "README.md")
BUILT_IN = {
    "pods", "pod", "lease", "networkpolicy", "events", "jobs", "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
}  # fmt: skip
COMPONENTS = {"operator", "datasets", "gateway"}


def resources() -> set[str]:
    found = set(BUILT_IN)
    for path in (ROOT / "crds").glob("*.yaml"):
        kind = yaml.safe_load(path.read_text())["spec"]["names"]
        found |= {kind["plural"], kind["singular"], *kind.get("shortNames", [])}
    return found


def commands(page: Path) -> list[list[str]]:
    text = page.read_text()
    lines = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].splitlines()
    lines += [each for each in re.findall(r"`(kubectl [^`]+)`", text) if " " in each]
    return [shlex.split(line.partition(" | ")[0]) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_it_tells_to_type_exists(page: Path) -> None:
    known = typer.main.get_command(app)
    for words in commands(page):
        assert words[0] == "kubectl", words
        match words[1]:
            case "twin":
                assert words[2] in known.commands, words  # type: ignore[attr-defined]
            case "get" | "describe":
                assert set(words[2].split(",")) <= resources(), words
            case verb:
                assert verb in {"logs", "exec", "top"}, words
        for label in re.findall(
            r"bettertherapy\.io/component=(\w+)|app\.kubernetes\.io/component=(\w+)", " ".join(words)
        ):
            assert set(label) - {""} <= COMPONENTS, words
    assert names.LABEL_COMPONENT == "bettertherapy.io/component"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_it_says_what_it_means_where_to_look_and_what_to_do(page: Path) -> None:
    text = page.read_text()
    places = [text.index(f"## {title}") for title in ("What it means", "Look", "Do")]
    assert places == sorted(places)
