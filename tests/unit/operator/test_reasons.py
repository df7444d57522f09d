"""Every reason is one of the enumeration, is produced by some code, may stand in a condition, and is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import twin_operator
from bettertherapy_api.report import FailureReason
from bettertherapy_api.schema import Condition as ApiCondition
from neurons.trainer import errors
from twin_operator.domain import appearances, reasons
from twin_operator.domain.appearances import ADAPTER, ARTIFACT, MINER, ROUND, TABLES, TRAINER
from twin_operator.domain.reasons import Reason, from_elsewhere
from twin_operator.engine.conditions import Chain, Finding

SOURCES = Path(twin_operator.__file__).parent
ROOT = SOURCES.parents[1]
DECLARED = {Path(reasons.__file__), Path(appearances.__file__)}
CONSTRUCTORS = {
    "Finding",
    "Condition",
    "Failure",
    "Analysis",
    "LastRollback",
    "refusing",
    "_take_back",
    "RefusedVersion",
}
EXPECTED = {
    Reason.WEIGHTS_NOT_FINITE: "agents that measure weights",
    Reason.NO_EFFECT: "agents that measure weights",
}
"""Reasons whose code is on its way; a line goes when its code comes."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCES.rglob("*.py")):
        if path not in DECLARED:
            yield path, ast.parse(path.read_text())


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Reasons that are written as strings, where something is given a reason."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in CONSTRUCTORS:
            continue
        given = [each.value for each in node.keywords if each.arg in ("reason", "failure_class")]
        if name in ("Finding", "refusing", "_take_back"):
            given += node.args[: {"Finding": 1, "refusing": 2, "_take_back": 3}[name]]
        for value in given:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node.lineno, part.value


def test_no_reason_is_written_as_a_string() -> None:
    found = [f"{path.relative_to(SOURCES)}:{line}: {word}" for path, tree in trees() for line, word in literals(tree)]
    assert found == []


def test_a_reason_written_as_a_string_would_be_found() -> None:
    code = 'Finding("Loading", "m"); Condition(type="Ready", status="False", reason="X" if a else b, message="m")'
    assert [word for _, word in literals(ast.parse(code))] == ["Loading", "X"]


def _used() -> set[str]:
    return {
        node.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


def test_every_reason_is_given_by_some_code() -> None:
    used = _used()
    from_agents_and_trainers = {*ADAPTER, *TRAINER, *MINER, *ROUND}
    unused = {reason for reason in Reason if reason.name not in used} - from_agents_and_trainers
    assert unused <= set(EXPECTED)


def test_every_reason_may_stand_somewhere_and_is_documented() -> None:
    placed = {reason for table in TABLES for place in table.places for reason in place.reasons}
    assert set(Reason) - placed == set()
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in text] == []


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_one_the_api_takes_and_says_what_it_means(reason: Reason) -> None:
    pattern = next(each.pattern for each in ApiCondition.model_fields["reason"].metadata if hasattr(each, "pattern"))
    assert re.fullmatch(pattern, reason.value)
    assert len(reason.value) <= 63  # refusedVersions, lastRollback and failure.class take no more
    assert reason.meaning
    assert "|" not in reason.meaning + reason.remedy + reason.again


def test_what_agents_and_trainers_say_is_known() -> None:
    assert {each.value for each in FailureReason} <= {reason.value for reason in ADAPTER}
    classes = {each.failure_class for each in errors.TrainerError.__subclasses__()}
    assert classes <= {reason.value for reason in TRAINER}
    assert set(ARTIFACT) <= set(ADAPTER)


@pytest.mark.parametrize("word", ["OutOfCheese", "not a reason", "", "x" * 500, "Loading", None])
def test_a_word_that_is_not_known_goes_into_the_message(word: str | None) -> None:
    reason, message = from_elsewhere(word, "m", known=ADAPTER, otherwise=Reason.ADAPTER_FAILED)
    assert (reason, message) == (Reason.ADAPTER_FAILED, f"{word}: m" if word else "m")


def test_a_chain_gives_its_first_finding_and_a_longer_one_keeps_the_order() -> None:
    def over(limit: int, reason: Reason) -> object:
        return lambda value: Finding(reason, str(value)) if value > limit else None

    short = Chain[int]("short", over(5, Reason.LOADING))  # type: ignore[arg-type]
    chain = Chain[int]("all", short).including(over(1, Reason.OFF))  # type: ignore[arg-type]
    assert [chain.evaluate(value) for value in (0, 3, 7)] == [
        None, Finding(Reason.OFF, "3"), Finding(Reason.LOADING, "7"),
    ]  # fmt: skip
