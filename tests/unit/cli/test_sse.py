"""How streamed answers are read."""

from __future__ import annotations

import pytest

from kubectl_twin.errors import TwinCliError
from kubectl_twin.sse import data_of, pieces


def lines(text: str) -> list[bytes]:
    return text.encode().splitlines(keepends=True)


def test_text_is_put_together_from_the_deltas() -> None:
    stream = lines(
        'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"Drink "}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"water."},"finish_reason":"stop"}]}\n\n'
        "data: [DONE]\n\n"
    )
    read = list(pieces(stream))
    assert "".join(piece.text for piece in read) == "Drink water."
    assert read[-1].finish_reason == "stop"


def test_the_usage_event_without_choices_carries_the_number_of_tokens() -> None:
    read = list(pieces(lines('data: {"choices":[],"usage":{"completion_tokens":42}}\n\ndata: [DONE]\n\n')))
    assert read[0].completion_tokens == 42


def test_comments_and_carriage_returns_are_no_data() -> None:
    assert list(data_of(lines(": keep-alive\r\n\r\ndata: x\r\n\r\n"))) == ["x"]


def test_data_on_several_lines_is_one_event() -> None:
    assert list(data_of(lines("data: a\ndata: b\n\n"))) == ["a\nb"]


def test_an_error_event_ends_the_answer_with_its_message() -> None:
    with pytest.raises(TwinCliError, match="engine went away"):
        list(pieces(lines('data: {"error":{"message":"the engine went away"}}\n\n')))


def test_a_stream_without_done_is_no_whole_answer() -> None:
    stream = lines('data: {"choices":[{"delta":{"content":"Dri"}}]}\n\n')
    with pytest.raises(TwinCliError, match="broke off"):
        list(pieces(stream))


def test_what_is_no_json_is_said() -> None:
    with pytest.raises(TwinCliError, match="no event"):
        list(pieces(lines("data: <html>\n\n")))
