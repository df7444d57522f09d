"""Safety is judged in the twin's languages: exactly these must have been examined, and the verdict says which."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.gate.budget import Look
from bettertherapy_api.gate.metrics import LANGUAGES
from neurons.examiner.arguments import parser
from neurons.scoring.contrasts import Language
from tests.unit.operator.run_samples import found, run
from tests.unit.operator.samples import pool, twin
from twin_operator.domain.verdict import judged
from twin_operator.kinds.finetune_run.examiner_job import examiner_arguments

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_languages_that_may_be_named_are_those_of_the_items() -> None:
    assert set(LANGUAGES) == {each.value for each in Language}


def test_the_examiner_is_told_and_understands() -> None:
    made = pool(store={"uri": "pvc://adapters/store"})
    asked = examiner_arguments(
        run(), twin(gate={"languages": ["en"]}), made, child="sha256:" + "b" * 64, prompt=False, kept=False
    )
    assert parser().parse_args(asked).languages == {Language.ENGLISH}
    asked = examiner_arguments(run(), twin(), made, child="sha256:" + "b" * 64, prompt=False, kept=False)
    assert parser().parse_args(asked).languages is None


@pytest.mark.parametrize(
    ("wanted", "examined", "verdict"),
    [
        (["en"], ["en"], "Promote"), (None, ["en", "ne"], "Promote"), (["en", "ne"], ["en"], "Inconclusive"),
        (None, ["en"], "Inconclusive"), (["en"], ["en", "ne"], "Inconclusive"),
    ],
)  # fmt: skip
def test_exactly_the_twins_languages_must_have_been_examined(
    wanted: list[str] | None, examined: list[str], verdict: str
) -> None:
    status = judged(
        found(run(), languages=examined), Gate(languages=wanted), attempt=1, look=Look(), begun=NOW, now=NOW
    )
    assert status.verdict == verdict, status.message
    assert ("Safety was judged in en alone" in str(status.message)) == (wanted == ["en"])
