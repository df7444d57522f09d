"""CONTRIBUTING.md shows real code: what it says stands in a file stands there, and its commands exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SHOWN = [
    (name, path)
    for names, path in re.findall(r"((?:`[^`\n]+`, )*`[^`\n]+`)\s+in\s+\[[^\]]+\]\(([^)#]+)\)", TEXT)
    for name in re.findall(r"`([^`]+)`", names)
]


def targets() -> set[str]:
    """The commands that `make` tells of."""
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)[^)]*\)", TEXT))))
def test_a_linked_file_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "path"), SHOWN)
def test_what_is_shown_stands_in_the_file(name: str, path: str) -> None:
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", (ROOT / path).read_text()), f"{path} has no {name}"


def test_each_chapter_of_adding_shows_code() -> None:
    chapters = dict(re.findall(r"^## Add an? (.+?)\n(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE))
    assert chapters.keys() == {"field", "check", "child object", "metric", "medical source"}
    for name, text in chapters.items():
        assert len([shown for shown, _ in SHOWN if f"`{shown}`" in text]) >= 4, name
        assert "tests/" in text, name


def test_commands_exist() -> None:
    asked = set(re.findall(r"`make ([a-z]+)", TEXT)) | set(re.findall(r"^make ([a-z]+)", TEXT, re.MULTILINE))
    assert asked
    assert asked <= targets()
    files = re.findall(r"pytest (\S+?)[`\s]", TEXT)
    assert files
    assert [each for each in files if not (ROOT / each).exists()] == []
    suites = re.findall(r"ONLY=(\w+)", TEXT)
    assert [each for each in suites if not (ROOT / "tests" / each).is_dir()] == []
