"""Pages that list other files list all of them, by the names that these have."""

from __future__ import annotations

import re

import pytest

from neurons.privacy.identifiers import Identifier
from neurons.scoring.judge.votes import Why
from neurons.trainer.dataset import Refusal
from neurons.trainer.turns import Flaw
from neurons.validator.gateway.checking import Reason
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


def first_cells(page: str, above: str) -> set[str]:
    """The words in code letters in the first column of the first table below a text."""
    below = (ROOT / "docs" / page).read_text().partition(above)[2]
    rows = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert rows is not None, above
    return set(re.findall(r"`([^`]+)`", " ".join(row.split(" | ")[0] for row in rows[0].splitlines()[2:])))


REPAIRED = {Flaw.TURNS, Flaw.EMPTY, Flaw.TOO_LONG}
"""Flaws of which no word of a learned answer is lost where they are repaired."""
LISTED = [
    ("gateway.md", "## What is discarded", {str(each) for each in Reason}),
    (
        "datasets.md", "**What is refused, and counted by reason**",
        {str(each) for each in (*Refusal, *Flaw)}
        | {f"{'identifier' if each is Identifier.NAME else ''}.{each}" for each in Identifier},
    ),
    ("datasets.md", "**What is repaired, and counted by reason**", {str(each) for each in REPAIRED}),
    ("judging.md", "may not count.\n\n", {str(each) for each in Why}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "above", "known"), LISTED, ids=[f"{page}-{above.strip()[:30]}" for page, above, _ in LISTED]
)
def test_a_list_of_reasons_has_all_and_no_other(page: str, above: str, known: set[str]) -> None:
    assert first_cells(page, above) == known


def test_what_a_dataset_leaves_out_is_listed() -> None:
    source = (ROOT / "neurons" / "ledger" / "dataset.py").read_text()
    counted = set(re.findall(r'left_out\["(\w+)"\]', source)) | {"noConsent", "emergency", "dislikedWithoutCorrection"}
    assert counted <= first_cells("ledger.md", "Left out, and counted:")


def test_each_refusal_at_the_signed_door_is_given_by_the_code() -> None:
    codes = first_codes("receipts.md", "The miner refuses in words, in this order:")
    assert len(codes) > 15
    source = "".join(
        path.read_text() for folder in ("wire", "miner") for path in sorted((ROOT / "neurons" / folder).glob("*.py"))
    )
    assert {code for code in codes if f'"{code}"' not in source} == set()


def first_codes(page: str, above: str) -> set[str]:
    """The words in code letters in the second column of the first table below a text."""
    rows = (ROOT / "docs" / page).read_text().partition(above)[2].strip().partition("\n\n")[0]
    return set(re.findall(r"`([^`]+)`", " ".join(row.split(" | ")[1] for row in rows.splitlines()[2:])))
