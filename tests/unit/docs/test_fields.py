"""Fields, conditions, series and modules that the pages name are there, and defaults in brackets are theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bettertherapy_api.metrics.contract import ALL
from tests.conftest import ROOT
from tests.unit.docs.schemas import begins_like_a_field, defaults_of, definitions, fields_of, is_field
from tests.unit.docs.told import PAGES, named, spans, typed
from twin_operator.domain.appearances import TABLES, conditions_said
from twin_operator.domain.reasons import Reason

_DOTTED = re.compile(r"(?<![\w/.:@-])([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)(?![\w/(-])")
FILES = (".json", ".jsonl", ".yaml", ".npz", ".md", ".py", ".svg", ".example.org")
CODE = {"gate.decide", "engine.reconcile"}
"""Ends of names in our modules that begin as a field does."""
ROOTS = {
    "neurons": ROOT, "tests": ROOT, "twin_operator": ROOT / "operator", "bettertherapy_api": ROOT / "crds",
    "kubectl_twin": ROOT / "cli", "localcluster": ROOT / "local", "imagebuilder": ROOT / "local",
}  # fmt: skip
OF_OTHERS = {"lastState", "containerStatuses", "clusterIP", "allocatable"}
"""Fields of Kubernetes' own kinds that a jsonpath asks for."""


def test_a_field_that_is_named_with_dots_is_there() -> None:
    wrong, seen = set(), 0
    for page, text in spans():
        for path in _DOTTED.findall(re.sub(r"kubectl explain \w+\.", "", text)):
            if path.endswith(FILES) or path in CODE or not begins_like_a_field(path):
                continue
            seen += 1
            if not is_field(path):
                wrong.add(f"{page}: {path}")
    assert wrong == set()
    assert seen > 300


def test_what_a_jsonpath_or_explain_asks_for_is_a_field() -> None:
    asked = [(page, found[1]) for page, found in typed(r"jsonpath='?\{?\.((?:spec|status)(?:\.\w+)*)")]
    assert len(asked) >= 7
    assert [each for each in asked if not is_field(each[1]) and not OF_OTHERS & set(each[1].split("."))] == []
    kinds = {each["spec"]["names"]["singular"]: kind for kind, each in definitions().items()}
    explained = [(page, found[1], found[2]) for page, found in typed(r"kubectl explain (\w+)\.((?:spec|status)[\w.]*)")]
    assert len(explained) > 4
    assert [each for each in explained if each[2] not in fields_of(kinds[each[1]])] == []


def test_a_default_in_brackets_is_the_fields() -> None:
    """As in `stabilizationSeconds` (300)."""
    wrong, seen = [], 0
    for page in PAGES:
        for path, number in re.findall(r"`([a-z][A-Za-z.]+)` \((\d+)(?: points)?\)", page.read_text()):
            known = defaults_of(path)
            if known:
                seen += 1
                if int(number) not in known:
                    wrong.append(f"{named(page)}: {path} is {known}, not {number}")
    assert wrong == []
    assert seen >= 12


def test_a_condition_with_a_status_is_one_that_is_said() -> None:
    said = {place.where for table in TABLES for place in table.places if "=" in place.where}
    shown = set(re.findall(r"`([A-Z]\w+=(?:True|False|Unknown))`", "".join(page.read_text() for page in PAGES)))
    assert len(shown) >= 8
    assert shown <= said


@pytest.mark.parametrize("kind", sorted({table.kind for table in TABLES}))
def test_a_kinds_description_names_all_of_its_conditions(kind: str) -> None:
    text = fields_of(kind)["status.conditions"]["description"]
    assert set(re.findall(r"[A-Z]\w+", text)) == conditions_said(kind)


def test_reasons_that_a_description_lists_are_all_that_there_are() -> None:
    places = {(table.kind, place.where): place.reasons for table in TABLES for place in table.places}
    refused = fields_of("DoctorTwin")["status.refusedVersions.reason"]
    text = refused["description"]
    assert set(re.findall(r"[A-Z]\w+", text)) == {str(each.value) for each in places["DoctorTwin", "refusedVersions"]}
    rollback = fields_of("DoctorTwin")["status.lastRollback.reason"]["description"]
    own = {"ErrorRate", "Latency", "Rating", "NoTraffic", "Requested"}
    assert {str(each.value) for each in places["DoctorTwin", "RolledBack=True"]} >= own
    assert own <= set(re.findall(r"[A-Z]\w+", rollback))


def test_a_remedy_names_a_field_of_each_kind_that_it_is_given_for() -> None:
    """It is read beside any of them: `correct spec.fineTune` helps nobody who looks at a Validator."""
    wrong = set()
    for table in TABLES:
        for reason in {each for place in table.places for each in place.reasons}:
            paths = re.findall(r"`(spec\.[\w.]+)`", reason.remedy)
            if paths and not any(path in fields_of(table.kind) for path in paths) and not _says_whose(reason):
                wrong.add(f"{reason.value} in {table.name}: {paths}")
    assert wrong == set()


def _says_whose(reason: Reason) -> bool:
    """Whether it says of which object the field is."""
    return bool(re.search(r"pool's|twin's|of (?:the|a) (?:MinerPool|pool|twin|validator)|to publish to", reason.remedy))


def test_every_series_of_ours_that_is_named_is_in_the_contract() -> None:
    known = {series.name for series in ALL}
    wrong, seen = set(), 0
    for page in PAGES:
        for name in re.findall(r"\bbettertherapy_(?:operator|miner|agent|gateway)_\w+", page.read_text()):
            seen += 1
            if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known:
                wrong.add(f"{named(page)}: {name}")
    assert wrong == set()
    assert seen > 100


def test_modules_and_what_is_named_in_them_are_there() -> None:
    """Decisions too: where the code is can be read there, also years later."""
    pages = {*PAGES, *(ROOT / "docs" / "decisions").glob("*.md")}
    wrong, seen = set(), 0
    for page in sorted(pages):
        for name in re.findall(rf"(?<![\w./-])((?:{'|'.join(ROOTS)})(?:\.[A-Za-z_]\w*)+)", page.read_text()):
            if not name.endswith(".py"):
                seen += 1
                if not _is_there(name):
                    wrong.add(f"{named(page)}: {name}")
    assert wrong == set()
    assert seen > 60


def _is_there(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOTS[parts[0]].joinpath(*parts[:length])
        if not (place.is_dir() or place.with_suffix(".py").is_file()):
            continue
        source = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        text = source.read_text() if source.is_file() else ""
        return length == len(parts) or re.search(rf"\b{parts[length]}\b", text) is not None
    return False


def test_files_that_examples_and_charts_name_are_there() -> None:
    """Links of pages are followed by `make docs`; these have none."""
    pages = [page for page in PAGES if page.suffix != ".md"]
    wrong, seen = [], 0
    for page in pages:
        for path in re.findall(r"(?<![\w/.-])((?:docs|charts|examples|crds)/[\w./-]*\w)", page.read_text()):
            seen += 1
            if not Path(ROOT / path).exists():
                wrong.append(f"{named(page)}: {path}")
    assert wrong == []
    assert seen >= 19
