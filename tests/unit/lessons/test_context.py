"""A question that points back carries what it is about; where that can't be told there is no lesson."""

from __future__ import annotations

import json
import time

import pytest

from neurons.lessons.__main__ import lessons_of
from neurons.lessons.context import MAX_SAID, asked_in
from neurons.miner.lessons import _questions

HEAD = [("user", "I have a headache."), ("assistant", "You may take paracetamol.")]


@pytest.mark.parametrize(
    "question",
    ["Is 500 mg ok?", "Can I take it with food?", "And for how long?", "Is ibuprofen ok?", "What about my children?"],
)
def test_a_question_that_points_back_carries_what_was_said(question: str) -> None:
    assert asked_in([*HEAD, ("user", question)]) == f"I have a headache.\nYou may take paracetamol.\n{question}"


def test_one_that_says_what_it_is_about_stands_alone() -> None:
    question = "Does warfarin go together with grapefruit?"
    assert asked_in([*HEAD, ("user", question)]) == question
    assert asked_in([("user", "When are you open?")]) == "When are you open?"
    assert asked_in([("user", "क्या मैं पेरासिटामोल ले सकता हूँ?")]) is not None


@pytest.mark.parametrize("question", ["Is 500 mg ok?", "May I take it?", "Twice a day?"])
def test_one_of_which_nobody_can_tell_what_it_is_about_is_none(question: str) -> None:
    assert asked_in([("user", question)]) is None


def test_only_the_round_before_is_carried_and_not_all_of_a_long_one() -> None:
    turns = [("user", "My knee hurts."), ("assistant", "Rest it."), *HEAD[:1], ("assistant", "word " * 400)]
    said = asked_in([*turns, ("user", "Is 500 mg ok?")])
    assert said is not None
    assert "knee" not in said
    assert len(said) < 2 * MAX_SAID + 50


def line(*said: str, **more: object) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
    return json.dumps({"messages": messages, "consent": True, **more}).encode()


def test_a_correction_keeps_its_context_and_one_without_any_is_no_lesson() -> None:
    dose = "Is 500 mg ok?"
    lines = [
        line(*(text for _, text in HEAD), dose, "Yes.", correction="Yes, every six hours."),
        line(dose, "Yes.", correction="No."),
    ]
    [lesson] = lessons_of(lines, approve_liked=False)
    assert lesson.question == f"I have a headache.\nYou may take paracetamol.\n{dose}"
    assert lesson.answer == "Yes, every six hours."


def test_a_conversation_is_looked_up_with_the_same_words() -> None:
    turns = [{"role": role, "content": text} for role, text in [*HEAD, ("user", "Is 500 mg ok?")]]
    [lesson] = lessons_of(
        [line(*(text for _, text in HEAD), "Is 500 mg ok?", "Yes.", correction="x")], approve_liked=False
    )
    assert _questions(turns) == ["I have a headache.", lesson.question]


@pytest.mark.parametrize("text", ["\ufdfa" * 349_000, "fever " * 174_000], ids=["eighteen letters in one", "words"])
def test_a_message_of_a_megabyte_keeps_nobody_waiting(text: str) -> None:
    """It is looked at on the event loop of all patients' answers."""
    began = time.thread_time()
    [question] = _questions([{"role": "user", "content": text}])
    assert time.thread_time() - began < 0.1
    assert len(question) <= 2000
