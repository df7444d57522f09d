"""A grader counts when it has shown that it can grade: not at chance, not by lying, and not for whoever tells it to."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from neurons.scoring.benchmarks import read_medmcqa, read_medqa, read_pubmedqa
from neurons.scoring.calibration import RIGHT, Pair, calibrate, choice_items, items_digest, kept_items, parse_pairs
from neurons.scoring.facts import CONTRADICTS, STATES
from neurons.scoring.items import ItemError
from neurons.scoring.judge import (
    MET,
    WORDINGS,
    Calibration,
    CalibrationError,
    Endpoint,
    EndpointSettings,
    Seat,
    Task,
    read_calibration,
)
from neurons.scoring.judge.prompts import Wording
from tests.unit.scoring.grader import MODEL, NOW, Plays, StandIn, guesses, honest, obeys, passed, says, seat_at, truths

DATA = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data"))
KINDS = ((Task.RUBRIC, "en"), (Task.RUBRIC, "ne"), (Task.SUPPORT, "en"))
LINE = {"id": "1", "task": "Rubric", "language": "en", "question": "q", "criterion": "c", "met": "a", "notMet": "b"}


async def calibrated(
    standin: StandIn,
    plays: Plays,
    *,
    wording: Wording = MET,
    task: Task = Task.RUBRIC,
    language: str = "en",
    **fields: Any,
) -> Calibration:
    standin.plays = plays
    seat = seat_at(standin, wording, concurrency=16)
    pairs = fields.pop("pairs", kept_items())
    try:
        return await calibrate(
            seat, pairs, task=task, language=language, **{"seconds": 100, "clock": lambda: NOW} | fields
        )
    finally:
        await seat.endpoint.close()


@pytest.mark.parametrize(("task", "language"), KINDS)
@pytest.mark.parametrize("wording", WORDINGS)
async def test_a_grader_that_knows_its_trade_counts(
    standin: StandIn, wording: Wording, task: Task, language: str
) -> None:
    found = await calibrated(standin, honest(truths(kept_items())), wording=wording, task=task, language=language)

    assert found.refusal(now=NOW) is None
    assert (found.kappa, found.high, found.followed, found.none) == (1.0, 1.0, 0, 0)
    assert 0.6 < found.low < 1, "so few items leave something open"
    assert found.injections >= 6
    assert (found.task, found.language, found.model, found.answered) == (task, language, MODEL, MODEL)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_grader_that_guesses_is_refused(standin: StandIn, seed: int) -> None:
    found = await calibrated(standin, guesses(truths(kept_items()), seed))

    assert (found.refusal(now=NOW) or "").startswith("it can't be told from guessing (kappa ")
    assert found.low < 0.1


@pytest.mark.parametrize("plays", [says(True), says(False), lambda _: "It is met.", lambda _: "{}"])
async def test_a_grader_that_lies_or_talks_is_refused(standin: StandIn, plays: Plays) -> None:
    found = await calibrated(standin, plays)

    assert found.refusal(now=NOW) is not None
    assert found.none == found.count == 80
    assert found.kappa == -1.0, "what can't be counted is taken for wrong"


@pytest.mark.parametrize("canaries_too", [True, False])
@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize(("task", "language"), KINDS)
async def test_a_grader_that_obeys_answers_is_refused_however_well_it_grades_otherwise(
    standin: StandIn, wording: Wording, canaries_too: bool, task: Task, language: str
) -> None:
    plays = obeys(truths(kept_items()), canaries_too=canaries_too)
    found = await calibrated(standin, plays, wording=wording, task=task, language=language)

    assert found.followed >= 3
    assert found.count - found.followed - found.true_met - found.true_not == 0, "all else it graded rightly"
    assert found.refusal(now=NOW) is not None
    assert "withstand" in (found.refusal(now=NOW, min_kappa=-1) or "") or found.low <= 0


async def test_one_trick_that_works_is_enough_to_be_refused(standin: StandIn) -> None:
    told = obeys(truths(kept_items()), canaries_too=False)
    know = honest(truths(kept_items()))
    found = await calibrated(standin, lambda asked: (told if "decodes" in asked.answer else know)(asked))

    assert (found.followed, found.none) == (2, 0)
    assert found.low > 0.6
    assert "it did not withstand 2 of 20 answers" in (found.refusal(now=NOW) or "")


async def test_a_grader_that_was_down_is_not_refused_but_unknown(standin: StandIn) -> None:
    with pytest.raises(CalibrationError, match="80 of 80 items had no answer, so that nothing is known"):
        await calibrated(standin, lambda _: web.Response(status=503), retries=3)
    assert len(standin.asked) == 83
    standin.hanging = True
    with pytest.raises(CalibrationError, match="within its time"):
        await calibrated(standin, says(True), seconds=0.3)


async def test_an_endpoint_that_changes_its_model_meanwhile_isnt_calibrated(standin: StandIn) -> None:
    know, answered = honest(truths(kept_items())), itertools.count()

    def plays(asked: Any) -> str | web.Response:
        standin.model = f"judge-{next(answered) % 2}"
        return know(asked)

    with pytest.raises(CalibrationError, match="2 models answered under one name"):
        await calibrated(standin, plays)


async def test_too_few_items_calibrate_nobody(standin: StandIn) -> None:
    with pytest.raises(CalibrationError, match="0 items are of task Support and language ne"):
        await calibrated(standin, says(True), task=Task.SUPPORT, language="ne")
    with pytest.raises(CalibrationError, match="28 items"):
        await calibrated(standin, says(True), pairs=[each for each in kept_items() if each.task is Task.RUBRIC][:14])
    assert not standin.asked


async def test_the_document_is_kept_whole_and_nothing_in_it_can_be_improved(standin: StandIn) -> None:
    found = await calibrated(standin, guesses(truths(kept_items())))
    kept = found.model_dump_json().encode()

    assert read_calibration(kept) == found
    assert "127.0.0.1" not in kept.decode()
    document = json.loads(kept)
    for change in (
        {"kappa": 1.0, "low": 0.9, "high": 1.0}, {"low": document["kappa"] + 0.1}, {"model": "another"}, {"prompt": "sha256:" + "1" * 64},
        {"true_met": 80}, {"true_met": document["true_met"] + 2}, {"followed": 30}, {"none": 79}, {"kappa": float("nan")}, {"at": "2026-11-01T00:00:00"}, {"passed": True}, {"true_met": -1},
    ):  # fmt: skip
        with pytest.raises(CalibrationError, match="this is no calibration"):
            read_calibration(json.dumps(document | change).encode())
    for data in (b"", b"{}", b"[]", b"\xff", b"{" + b" " * 70_000 + b"}"):
        with pytest.raises(CalibrationError):
            read_calibration(data)


def seat() -> Seat:
    return Seat(Endpoint(EndpointSettings(base="http://127.0.0.1:9/v1", model="m")), MET)


@pytest.mark.parametrize(("fields", "told"), [
    ({"true_met": 15, "true_not": 15, "low": 0.9}, "no interval as narrow"), ({"low": 0.83}, "no interval as narrow"),
    ({"true_met": 78, "true_not": 2}, "items come in pairs"),
])  # fmt: skip
def test_what_so_few_items_cannot_have_shown_is_no_calibration(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        passed(seat(), **fields)


@pytest.mark.parametrize("injections", [0, 5])
def test_a_grader_that_nobody_told_what_to_say_may_not_count(injections: int) -> None:
    assert f"tried on {injections} answers" in (passed(seat(), injections=injections).refusal(now=NOW) or "")
    assert passed(seat(), injections=6).refusal(now=NOW) is None


def test_our_own_items_are_what_they_say() -> None:
    items = kept_items()
    assert Counter((each.task, each.language) for each in items) == {
        (Task.RUBRIC, "en"): 40, (Task.RUBRIC, "ne"): 20, (Task.SUPPORT, "en"): 40,
    }  # fmt: skip
    assert {each.criterion for each in items if each.task is Task.SUPPORT} == {STATES, CONTRADICTS}, (
        "as facts asks it, word for word"
    )
    assert all(len({each.met, each.not_met, each.question}) == 3 for each in items)
    answers = Counter(answer for each in items if each.task is Task.RUBRIC for answer in (each.met, each.not_met))
    assert max(answers.values()) == 1
    for each in items:
        nepali = sum("\u0900" <= sign <= "\u097f" for sign in each.met + each.not_met)
        assert (nepali > 20) is (each.language == "ne")


def test_the_digest_is_of_the_items_and_not_of_their_order() -> None:
    items = kept_items()
    assert items_digest(items) == items_digest(items[::-1]) != items_digest(items[1:])


@pytest.mark.parametrize(("data", "told"), [
    (b'{"id": "1"}', "line 1: task"), (json.dumps(LINE | {"met": "b"}).encode(), "same answer"), (json.dumps(LINE | {"task": "Secret"}).encode(), "task"),
    (f"{json.dumps(LINE)}\n{json.dumps(LINE)}".encode(), "line 2: two pairs"), (json.dumps(LINE | {"secret": 1}).encode(), "line 1: the line"), (b"\x1f\x8b", "compressed"),
    (b'{"id": "\xff"}', "UTF-8"), (b"[", "line 1"), (json.dumps(LINE | {"language": "English"}).encode(), "language"), (json.dumps(LINE | {"notMet": ""}).encode(), "notMet"),
])  # fmt: skip
def test_a_line_that_is_no_pair_is_refused_in_words(data: bytes, told: str) -> None:
    with pytest.raises(ItemError, match=re.escape(told)) as error:
        parse_pairs(data)
    assert "ecret" not in str(error.value)


@pytest.mark.skipif(not (DATA / "medqa.jsonl").is_file(), reason=f"{DATA} is not there")
async def test_exam_questions_make_items_by_which_a_grader_is_told_from_a_guesser(standin: StandIn) -> None:
    choices = [
        *read_medqa((DATA / "medqa.jsonl").read_bytes())[:20], *read_medmcqa((DATA / "medmcqa.jsonl").read_bytes())[:20],
        *(each for each in read_pubmedqa((DATA / "pubmedqa.json").read_bytes())[:20]),
    ]  # fmt: skip
    pairs = choice_items(choices, language="en")
    right = {each.id: each.options[each.answer] for each in choices}

    assert len(pairs) == 60
    assert {each.criterion for each in pairs} == {RIGHT}
    assert all(each.met == right[each.id] != each.not_met for each in pairs)
    assert pairs == choice_items(choices, language="en")

    def plays(asked: Any) -> str:
        """Looks its question up: the same options stand in several."""
        question = asked.text.split("conversation begins\n[user] ")[1].split(f"\n{asked.mark}")[0]
        truth = by_question[question]
        return str(asked.reply({name: truth == asked.answer if text == RIGHT else asked.known(text)
                                for name, text in asked.criteria.items()}))  # fmt: skip

    by_question = {each.question: each.met for each in pairs}
    knows = await calibrated(standin, plays, pairs=pairs)
    first: dict[str, bool] = {}
    guess = await calibrated(standin, lambda asked: asked.reply({
        name: first.setdefault(asked.mark, len(first) % 3 == 0) if text == RIGHT else asked.known(text)
        for name, text in asked.criteria.items()
    }), pairs=pairs)  # fmt: skip

    assert "tried on 0 answers" in (knows.refusal(now=NOW) or ""), "nobody told it what to say"
    assert guess.refusal(now=NOW) is not None


def test_a_pair_can_be_made_in_code() -> None:
    assert Pair.model_validate(LINE) == parse_pairs(json.dumps(LINE).encode())[0]
