"""Events of a server that isn't vLLM: what is not of OpenAI's form is passed over, and breaks no stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from neurons.miner.continuation import GoOn, Splice
from neurons.miner.race import Race
from neurons.miner.transcript import Transcript

ODD: tuple[dict[str, Any], ...] = (
    {"choices": [None]},
    {"choices": ["x"]},
    {"choices": 1},
    {"choices": [{"index": 0, "delta": "x"}]},
    {"choices": [{"index": 0, "delta": {"content": 1}}]},
    {"choices": [{"index": 0, "delta": {"content": ["x"]}}]},
    {"choices": [{"index": 0, "text": {"a": 1}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": 1}]},
    {"choices": [], "usage": [1]},
    {"choices": [], "usage": {"completion_tokens": "many"}},
)


def event(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def says(words: str, end: str | None = None) -> bytes:
    return event({"id": "a", "choices": [{"index": 0, "delta": {"content": words}, "finish_reason": end}]})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: orjson.dumps(odd).decode())
def test_an_event_of_no_known_form_is_passed_over(odd: dict[str, Any]) -> None:
    stream = says("one ") + event(odd) + says("two", "stop") + b"data: [DONE]\n\n"
    transcript = Transcript()
    transcript.add(stream)
    assert (transcript.text, transcript.finished) == ("one two", "stop")
    rest = Splice(transcript, GoOn(said="zero", tokens=1, space="")).rewrite(stream)
    assert rest.count(b"one ") == rest.count(b"two") == rest.count(b"[DONE]") == 1
    race = Race(2)
    race.read(stream)
    assert [track.text for track in race.finished()] == ["one two"]


def test_a_number_that_is_none_loses_no_word() -> None:
    """As of a probability that is NaN: clients in Python read the words, so the receipt must be over them."""
    odd = b'data: {"choices": [{"index": 0, "delta": {"content": "two "}, "logprobs": {"content": [NaN]}}]}\n\n'
    stream = says("one ") + odd + says("three", "stop") + b"data: [DONE]\n\n"
    transcript = Transcript()
    transcript.add(stream)
    assert transcript.text == "one two three"
    assert b"two " in Splice(Transcript(), GoOn("", 0, "")).rewrite(stream)


def test_an_event_that_is_nested_too_deep_is_passed_over() -> None:
    transcript = Transcript()
    transcript.add(says("one ") + b"data: " + b"[" * 100_000 + b"\n\n" + says("two", "stop"))
    assert transcript.text == "one two"
