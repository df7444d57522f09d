"""Each property of each spec can be set to another value and back: nothing of it stays, and nothing raises.

A sample; `python -m tests.bench robustness` walks all of them.
"""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from tests.unit.operator.documents import schema_of
from tests.unit.operator.spec_walk import KINDS, OVERRIDES, changes, starting_specs, unknown_overrides, walk

EVERY = 9


def test_the_other_value_is_one_that_the_schema_takes() -> None:
    specs = starting_specs()
    for kind in KINDS:
        validator = Draft202012Validator(schema_of(kind)["properties"]["spec"])
        found = list(changes(kind, specs[kind]))
        assert len({change.name for change in found}) == len(found) > 20
        wrong = {change.name: error.message for change in found for error in validator.iter_errors(change.spec)}
        assert wrong == {}


def test_every_override_names_a_property() -> None:
    assert unknown_overrides() == []
    assert all(OVERRIDES.values())


@pytest.mark.parametrize("kind", ["DoctorTwin", "MinerPool", "Validator"])
def test_there_and_back_leaves_nothing(kind: str) -> None:
    walked = walk([kind], every=EVERY)
    assert walked.faults == {}
    assert walked.done > 4
    assert len(walked.without_effect) < walked.done  # a walk in which nothing ever moves would see nothing


@pytest.mark.parametrize("parts", [{"cache": {}}, {"resources": {}}])
def test_an_empty_part_is_the_pools_own_wish(parts: dict[str, dict[str, str]]) -> None:
    name = "MinerPool." + next(iter(parts))
    spec = starting_specs()["MinerPool"]
    place = [change.name for change in changes("MinerPool", spec)].index(name)
    assert next(change for change in changes("MinerPool", spec) if change.name == name).spec == {**spec, **parts}
    assert walk(["MinerPool"], every=10_000, first=place).faults == {}
