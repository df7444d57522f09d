"""Pages that list other files list all of them, by the names that these have."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_decisions_are_listed_by_number_and_title() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^- \[(.+?)\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(), re.MULTILINE)
    titles = {path.name: path.read_text().partition("\n")[0] for path in folder.glob("[0-9]*.md")}
    assert [name for _, name in listed] == sorted(titles)
    assert {name: f"# {title}" for title, name in listed} == titles
    for name, title in titles.items():
        assert title.startswith(f"# {int(name[:4])}. "), name


def test_examples_are_all_listed() -> None:
    folder = ROOT / "examples"
    listed = re.findall(r"^\| \[(.+?)\]\((.+?\.yaml)\) \|", (folder / "README.md").read_text(), re.MULTILINE)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))
    assert sorted(path for _, path in listed) == files
    assert all(f"{name}.yaml" == path for name, path in listed)
