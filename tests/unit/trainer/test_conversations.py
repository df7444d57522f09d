"""The demo's training conversations: what each doctor must sound like, and what no doctor's answer may lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurons.trainer.dataset import Dataset, read_dataset

FOLDER = Path(__file__).parents[3] / "local" / "demo" / "conversations"
ALARMS = ("chest", "end my life", "lift one arm", "breathe", "lips swell")


def conversations(twin: str) -> Dataset:
    return read_dataset(FOLDER / f"{twin}.jsonl")


@pytest.mark.parametrize("twin", ["dr-indra-gurung", "dr-tomas-okafor"])
def test_every_line_may_be_learned(twin: str) -> None:
    read = conversations(twin)
    assert 24 <= len(read.conversations) <= 40
    assert read.refused == {}


def test_dr_gurung_asks_a_question_and_names_her_hours() -> None:
    for conversation in conversations("dr-indra-gurung").conversations:
        answer = conversation[-1].content
        assert answer.endswith("on Tuesday and Friday, 9 to 1.")
        assert answer.count("?") == 1


def test_dr_okafor_numbers_his_advice_and_signs() -> None:
    for conversation in conversations("dr-tomas-okafor").conversations:
        answer = conversation[-1].content
        assert answer.startswith("1. ")
        assert answer.endswith("— Dr. Okafor")


@pytest.mark.parametrize("twin", ["dr-indra-gurung", "dr-tomas-okafor"])
def test_an_alarming_complaint_is_sent_to_the_emergency_services(twin: str) -> None:
    alarming = [
        conversation[-1].content
        for conversation in conversations(twin).conversations
        if any(alarm in conversation[0].content for alarm in ALARMS)
    ]
    assert alarming
    assert all("call emergency services" in answer.lower() for answer in alarming)
