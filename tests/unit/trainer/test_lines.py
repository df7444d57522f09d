"""Odd lines are repaired or left out, and counted; what isn't the format fails with file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.dataset import Dataset, read_dataset, to_learn
from neurons.trainer.errors import BadData
from neurons.trainer.lines import MAX_TURNS

Turn = tuple[str, str | None]
GOOD = [("user", "My knee hurts."), ("assistant", "Rest it.")]


def line(*turns: Turn, **fields: Any) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in turns or GOOD]
    return {"messages": messages, "consent": True, **fields}


def pair(*turns: Turn, **fields: Any) -> dict[str, Any]:
    return line(*turns, **{"preferred": "Rest it.", "rejected": "Run.", **fields})


def read(tmp_path: Path, *lines: dict[str, Any] | bytes) -> Dataset:
    """What is read from a good line and these."""
    path = tmp_path / "data.jsonl"
    given = [line(), *lines]
    path.write_bytes(
        b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in given)
    )
    return read_dataset(path)


def learned(data: Dataset) -> list[list[Turn]]:
    """The conversations besides the good one."""
    return [[(each.role, each.content) for each in conversation] for conversation in data.conversations[1:]]


@pytest.mark.parametrize(
    ("odd", "becomes", "flaw"),
    [
        pytest.param(
            line(("user", "My knee hurts."), ("user", "The left one."), ("assistant", "Rest it.")),
            [("user", "My knee hurts.\nThe left one."), ("assistant", "Rest it.")],
            "turns",
            id="two questions in a row",
        ),
        pytest.param(
            line(("user", "My knee hurts."), ("assistant", "Rest it."), ("assistant", "But NEVER with warfarin.")),
            [("user", "My knee hurts."), ("assistant", "Rest it.\nBut NEVER with warfarin.")],
            "turns",
            id="two answers in a row",
        ),
        pytest.param(line(*GOOD, ("user", "Thank you!")), GOOD, "turns", id="a closing thank you"),
        pytest.param(line(("assistant", "Welcome."), *GOOD), GOOD, "turns", id="a greeting"),
        pytest.param(
            line(("user", "My knee hurts."), ("user", "  "), ("assistant", "Rest it."), ("user", None)),
            GOOD,
            "empty",
            id="empty bubbles",
        ),
        pytest.param(line(*GOOD, correction=" "), GOOD, "empty", id="an empty correction"),
        pytest.param(
            line(("user", "My knee hurts."), ("assistant", ""), correction="Rest it."),
            GOOD,
            "empty",
            id="an empty answer",
        ),
    ],
)
def test_an_odd_line_is_repaired_and_counted(
    odd: dict[str, Any], becomes: list[Turn], flaw: str, tmp_path: Path
) -> None:
    data = read(tmp_path, odd)
    assert learned(data) == [becomes]
    assert (data.repaired, data.refused) == ({flaw: 1}, {})


@pytest.mark.parametrize(
    ("odd", "flaw"),
    [
        pytest.param(line(("user", "My knee hurts.")), "turns", id="a question without an answer"),
        pytest.param(line(("assistant", "Welcome."), ("user", "My knee hurts.")), "turns", id="never answered"),
        pytest.param(line(*GOOD, ("system", "Be kind."), *GOOD), "turns", id="a system message in the middle"),
        pytest.param(pair(*GOOD), "turns", id="two answers to an answer"),
        pytest.param(line(messages=[]), "empty", id="no messages"),
        pytest.param(line(("user", "My knee hurts."), ("assistant", "\n")), "empty", id="an empty answer"),
        pytest.param(pair(("user", "My knee hurts."), rejected=""), "empty", id="an empty answer of a pair"),
        pytest.param(line(("user", "It hurts \ud83d"), ("assistant", "Rest it.")), "encoding", id="half an emoji"),
        pytest.param(line(*GOOD, correction="Rest it, but \ude00"), "encoding", id="half an emoji in a correction"),
        pytest.param(
            json.dumps(line(("user", "38 °C"), *GOOD[1:]), ensure_ascii=False).encode("latin-1"),
            "encoding",
            id="not UTF-8",
        ),
        pytest.param(line(("user", "It hurts. " * 30_000), *GOOD[1:]), "tooLong", id="a very long message"),
    ],
)
def test_what_can_not_be_learned_is_left_out_and_counted(
    odd: dict[str, Any] | bytes, flaw: str, tmp_path: Path
) -> None:
    data = read(tmp_path, odd)
    assert learned(data) == []
    assert (data.repaired, data.refused) == ({}, {flaw: 1})
    assert len(data.lines) == 1


def test_of_seventy_turns_the_last_ones_are_learned(tmp_path: Path) -> None:
    turns = [("assistant" if number % 2 else "user", f"turn {number}") for number in range(70)]
    data = read(tmp_path, line(("system", "Be kind."), *turns))
    (conversation,) = learned(data)
    assert conversation[0] == ("system", "Be kind.")
    assert conversation[1][0] == "user"
    assert conversation[1:] == turns[70 - len(conversation) + 1 :]
    assert MAX_TURNS - 1 <= len(conversation) <= MAX_TURNS
    assert data.repaired == {"tooLong": 1}


def test_the_correction_is_learned_also_when_the_patient_said_thank_you(tmp_path: Path) -> None:
    data = read(tmp_path, line(*GOOD, ("user", "Thank you!"), correction="Cool it."))
    assert learned(data) == [[GOOD[0], ("assistant", "Cool it.")]]


def test_a_correction_takes_the_place_of_all_that_was_answered_last(tmp_path: Path) -> None:
    data = read(tmp_path, line(*GOOD, ("assistant", "Take aspirin."), correction="Never take aspirin."))
    assert learned(data) == [[GOOD[0], ("assistant", "Never take aspirin.")]]


def test_a_repaired_line_reads_the_same_again(tmp_path: Path) -> None:
    once = read(tmp_path, line(("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "thanks"))).lines[1]
    path = tmp_path / "again.jsonl"
    path.write_bytes(once.canonical() + b"\n")
    again = read_dataset(path)
    assert again.lines == (once,)
    assert again.repaired == {}
    assert to_learn(once)[-1].content == "c"


def test_a_byte_order_mark_is_read_over_also_where_files_were_put_together(tmp_path: Path) -> None:
    mark, raw = b"\xef\xbb\xbf", json.dumps(line()).encode()
    path = tmp_path / "data.jsonl"
    path.write_bytes(mark + raw + b"\r\n" + mark + b"\n" + mark + raw + b"\n")
    assert len(read_dataset(path).lines) == 2


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b'{"messages": [}', r"not JSON: .* at character 15"),
        (b'{"messages": NaN}', "not JSON: NaN is no number"),
        (b'{"rating": 5, "rating": 1}', "a field stands there twice"),
        (b"[" * 100_000, "one object .* a line"),
        (b'{"a":' * 10_000, "not JSON: nested too deeply"),
        (b'"text"', r"the line is not an object \{…\}"),
        (b'[{"messages": []}]', "JSON Lines, not one JSON document"),
        ("{}".encode("utf-16"), "not in UTF-8"),
        (b"{}", "`messages` is missing"),
        (line(concent=True), "the field `concent` is unknown .is `consent` meant"),
        (line(**{"Jane Roe": True}), "a field is unknown; known are `messages`"),
        (line(consent="yes"), "`consent` is not true or false, without quotation marks"),
        (line(rating=6), "`rating` is not a whole number from 1 to 5"),
        (line(rating="good"), "`rating` is not a whole number from 1 to 5"),
        (line(correction=5), "`correction` is not text"),
        (line(id="x" * 129), "`id` is not text of 1 to 128 characters"),
        (line(messages="Rest it."), "`messages` is not a list of messages"),
        (line(messages=["Rest it."]), r"the message 1 is not an object \{\"role\""),
        (line(*GOOD, ("doctor", "Rest it.")), "`role` of message 3 is not system, user or assistant"),
        (line(messages=[{"role": "user"}]), "`content` of message 1 is missing"),
        (line(messages=[{"role": "user", "text": "x", "content": "x"}]), "the field `text` of message 1 is unknown"),
        (line(messages=[{"role": "user", "content": 5}]), "`content` of message 1 is not text"),
        (pair(("user", "x"), rejected=None), "come together, and one of them is missing"),
        (pair(("user", "x"), correction="y"), "has no `correction` and no `rating`"),
    ],
)
def test_what_is_not_the_format_fails_with_file_line_and_field(
    bad: dict[str, Any] | bytes, told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match=rf"data\.jsonl, line 2: .*{told}") as caught:
        read(tmp_path, bad)
    assert "Roe" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
