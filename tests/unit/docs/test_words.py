"""What pages, examples and charts say of one another is one and the same thing."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import yaml

from tests.conftest import ROOT
from twin_operator.settings import Settings

READ = [
    ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.yaml")),
    *sorted((ROOT / "charts").rglob("values.yaml")), *sorted((ROOT / "charts").rglob("*.md")),
]  # fmt: skip
_DOCTOR = re.compile(r"name: (Dr\. [^,\n]+?),?\s+(?:#\s*)?licence: ([\w-]+)")


def kinds() -> set[str]:
    """The kinds that people write or read."""
    found = {str(yaml.safe_load(path.read_text())["spec"]["names"]["kind"]) for path in (ROOT / "crds").glob("*.yaml")}
    assert len(found) >= 7
    return found


def test_a_doctor_has_one_licence() -> None:
    licences: dict[str, set[str]] = defaultdict(set)
    for path in [*READ, *sorted((ROOT / "local" / "demo").glob("*.py"))]:
        text = path.read_text().replace('name="', "name: ").replace('licence="', "licence: ").replace('"', "")
        for name, licence in _DOCTOR.findall(text):
            licences[name].add(licence)
    assert len(licences["Dr. Indra Gurung"]) == 1
    assert {name: found for name, found in licences.items() if len(found) > 1} == {}


def test_the_operator_is_installed_in_one_namespace() -> None:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in READ:
        for namespace in re.findall(r"helm install twin-operator \S+ -n (\S+)", path.read_text()):
            found[namespace].append(path)
    assert len(found) == 1, found


def test_the_architecture_tells_of_every_kind() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert {kind for kind in kinds() if kind not in text} == set()


def test_the_operators_notes_name_all_that_stays() -> None:
    notes = (ROOT / "charts" / "twin-operator" / "templates" / "NOTES.txt").read_text()
    kept = {
        str(document["metadata"]["name"])
        for path in (ROOT / "crds").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document
    }
    assert len(kept) >= 12
    assert {name for name in kept if name not in notes} == set()


def test_the_example_says_in_which_hours_a_night_begins() -> None:
    text = (ROOT / "examples" / "11-daily-fine-tune.yaml").read_text()
    [twin] = [each for each in yaml.safe_load_all(text) if each["kind"] == "DoctorTwin"]
    minute, hour = twin["spec"]["fineTune"]["schedule"].split()[:2]
    begins = int(hour) * 60 + int(minute)
    ends = begins + Settings.fine_tune_window_seconds // 60
    said = f"Between {begins // 60:02}:{begins % 60:02} and {ends // 60:02}:{ends % 60:02} in Kathmandu"
    assert said in text


def test_the_architecture_names_every_room_of_the_operator() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "operator" / "twin_operator"
    rooms = [
        path.stem for path in sorted(package.iterdir()) if not path.name.startswith("__") and path.suffix in ("", ".py")
    ]
    kinds = [f"kinds.{path.stem}" for path in sorted((package / "kinds").iterdir()) if not path.name.startswith("__")]
    assert len(kinds) > 8
    assert [room for room in [*kinds, *(each for each in rooms if each != "kinds")] if f"`{room}`" not in text] == []


def test_the_readme_names_every_folder_and_every_suite() -> None:
    text = (ROOT / "README.md").read_text()
    folders = {path.parts[0] for path in _tracked() if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    suites = {path.parts[1] for path in _tracked() if path.parts[0] == "tests" and len(path.parts) > 2}
    assert {folder for folder in folders if f"`{folder}/`" not in text} == set()
    assert {suite for suite in suites if f"`{suite}`" not in text} == set()


def test_the_readme_is_read_at_80_columns() -> None:
    """But for tables, which wrap, and those that kubectl prints."""
    kubectls = re.findall(r"^NAME .*\n(?:.+\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    printed = {line for table in kubectls for line in table.splitlines()}
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith("|") and line not in printed] == []


def test_words_that_are_explained_are_used() -> None:
    start = (ROOT / "docs" / "README.md").read_text()
    explained = re.findall(r"^\| \*\*(.+?)\*\* \|", start, re.MULTILINE)
    assert len(explained) > 12
    read = "".join(path.read_text() for path in READ if path.name != "README.md" or path.parent == ROOT).lower()
    assert [word for word in explained if word.lower() not in read] == []


def test_the_start_page_leads_to_every_page() -> None:
    start = (ROOT / "docs" / "README.md").read_text()
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)", start))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(pages) > 30
    assert pages - linked == set()


def _tracked() -> list[Path]:
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [Path(each) for each in told.stdout.splitlines()]
