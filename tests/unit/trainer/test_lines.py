"""Odd lines are repaired or left out, and counted; what isn't the format fails with file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neurons.conversation import shape
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
            [("user", "My knee hurts.\n\nThe left one."), ("assistant", "Rest it.")],
            "turns",
            id="two questions in a row",
        ),
        pytest.param(
            line(("user", "My knee hurts."), ("assistant", "Rest it."), ("assistant", "But NEVER with warfarin.")),
            [("user", "My knee hurts."), ("assistant", "Rest it.\n\nBut NEVER with warfarin.")],
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


Q1, A1 = ("user", "May I take ibuprofen? I take warfarin."), ("assistant", "No, never ibuprofen with warfarin.")
Q2, A2 = ("user", "And my cough syrup?"), ("assistant", "Yes, that one is fine.")
LOST, NULL, PHOTO = ("assistant", ""), ("assistant", None), ("user", "")
FINE = A2[1]


@pytest.mark.parametrize(
    ("odd", "flaw"),
    [
        pytest.param(line(Q1, A1, Q2, correction=FINE), "turns", id="a correction after a question"),
        pytest.param(line(Q1, A1, ("user", "and the syrup"), correction=FINE), "turns", id="without a question mark"),
        pytest.param(
            line(Q1, A1, ("user", "Thank you! And the syrup?"), correction=FINE), "turns", id="thanks and more"
        ),
        pytest.param(line(Q1, A1, ("user", "ok?"), correction=FINE), "turns", id="a question of one word"),
        pytest.param(line(Q1, A1, ("user", "thanks " * 13), correction=FINE), "turns", id="thanks without an end"),
        pytest.param(line(Q1, A1, PHOTO, correction=FINE), "empty", id="a correction after a photo"),
        pytest.param(line(Q1, correction=FINE), "turns", id="a correction and no answer"),
        pytest.param(line(Q1, LOST, Q2, correction=FINE), "turns", id="a lost answer and a second question"),
        pytest.param(line(Q1, A1, PHOTO, LOST, correction=FINE), "empty", id="the answer to a photo is corrected"),
        pytest.param(line(Q1, A1, PHOTO, A2), "empty", id="an answer to a photo"),
        pytest.param(line(Q1, A1, PHOTO, A2, rating=5), "empty", id="an answer to a photo is liked"),
        pytest.param(line(Q1, A1, PHOTO, A2, correction="Yes, thrice."), "empty", id="and is corrected"),
        pytest.param(line(PHOTO, A1), "empty", id="an answer to nothing"),
        pytest.param(pair(Q1, A1, PHOTO), "empty", id="two answers to a photo"),
        pytest.param(pair(Q1, LOST, ("user", "hello?")), "turns", id="two answers to a call"),
        pytest.param(line(Q1, ("assistant", "\u200b")), "empty", id="an invisible answer"),
        pytest.param(line(Q1, ("assistant", "\ufeff \u2060")), "empty", id="a mark as an answer"),
        pytest.param(line(Q1, ("assistant", "…")), "empty", id="an answer of three dots"),
        pytest.param(line(Q1, ("assistant", "&nbsp;")), "empty", id="a blank of HTML"),
        pytest.param(line(("user", "\u2068\u2069"), A1), "empty", id="an invisible question"),
        pytest.param(pair(Q1, preferred="\u200b"), "empty", id="an invisible answer of a pair"),
        pytest.param(pair(Q1, rejected="-"), "empty", id="a dash of a pair"),
        pytest.param(pair(Q1, preferred="No.", rejected="No."), "equalAnswers", id="two equal answers"),
        pytest.param(pair(Q1, preferred="No.", rejected=" No.\u200b\n"), "equalAnswers", id="and equal to who reads"),
        pytest.param(pair(Q1, preferred="No\u00e9.", rejected="Noe\u0301."), "equalAnswers", id="an accent by itself"),
        pytest.param(pair(Q1, preferred="No &amp; no.", rejected="No & no."), "equalAnswers", id="a sign of HTML's"),
        pytest.param(pair(Q1, preferred="No.", rejected="N\u2065o\U000e0fff."), "equalAnswers", id="unseen, unnamed"),
        pytest.param(
            line(Q1, ("assistant", "50 \ufffdg, but NE\ufffd")), "encoding", id="the mark of a lost character"
        ),
        pytest.param(line(Q1, A1, correction="N\ufffd"), "encoding", id="and in a correction"),
    ],
)
def test_an_answer_whose_question_nobody_can_tell_is_left_out(odd: dict[str, Any], flaw: str, tmp_path: Path) -> None:
    data = read(tmp_path, odd)
    assert learned(data) == []
    assert data.pairs == ()
    assert (data.repaired, data.refused) == ({}, {flaw: 1})


@pytest.mark.parametrize(
    ("odd", "becomes"),
    [
        pytest.param(line(Q1, A1, Q2, LOST, correction=FINE), [Q1, A1, Q2, A2], id="fills the lost answer"),
        pytest.param(line(Q1, A1, Q2, LOST, ("user", "thanks"), correction=FINE), [Q1, A1, Q2, A2], id="before thanks"),
        pytest.param(line(Q1, A1, Q2, NULL, ("user", "hello?"), correction=FINE), [Q1, A1, Q2, A2], id="before a call"),
        pytest.param(line(Q2, ("assistant", "\u200b"), correction=FINE), [Q2, A2], id="fills an invisible answer"),
        pytest.param(line(Q2, ("assistant", "-"), correction=FINE), [Q2, A2], id="fills a dash"),
        pytest.param(line(Q1, A1, correction="\u200b"), [Q1, A1], id="an invisible correction"),
        pytest.param(line(Q1, A1, correction="-"), [Q1, A1], id="a dash as a correction"),
        pytest.param(line(Q1, LOST, Q2, A2), [Q2, A2], id="begins after a lost answer"),
        pytest.param(line(Q1, A1, PHOTO, ("assistant", "I see."), Q2, A2), [Q2, A2], id="begins after a photo"),
        pytest.param(line(Q1, A1, Q2, LOST), [Q1, A1], id="what was answered before the last one was lost"),
        pytest.param(line(Q1, A1, PHOTO), [Q1, A1], id="a photo at the end"),
    ],
)
def test_no_answer_is_taught_across_what_was_lost(odd: dict[str, Any], becomes: list[Turn], tmp_path: Path) -> None:
    data = read(tmp_path, odd)
    assert learned(data) == [becomes]
    assert data.repaired["empty"] == 1


def test_an_invisible_correction_makes_no_disliked_answer_learnable(tmp_path: Path) -> None:
    data = read(tmp_path, line(rating=1, correction="\ufeff"), line(rating=2, correction="-"))
    assert (len(data.lines), data.refused) == (1, {"dislikedWithoutCorrection": 2})


@pytest.mark.parametrize(
    "closing", ["Thank you!", "ok thanks", "Thank you so much, doctor.", "Thanks for your help! Bye.", "OK 👍", "Merci"]
)
def test_a_correction_stands_when_the_patient_only_said_thank_you(closing: str, tmp_path: Path) -> None:
    data = read(tmp_path, line(*GOOD, ("user", closing), correction="Cool it."))
    assert learned(data) == [[GOOD[0], ("assistant", "Cool it.")]]


def test_two_answers_to_a_question_after_a_lost_one(tmp_path: Path) -> None:
    data = read(tmp_path, pair(Q1, LOST, Q2), pair(Q2, LOST))
    assert [[(each.role, each.content) for each in pair.prompt] for pair in data.pairs] == [[Q2], [Q2]]


def test_what_was_sent_in_a_row_is_joined_as_the_miner_joins_it(tmp_path: Path) -> None:
    turns = [
        ("system", "Be kind."),
        ("system", "Be brief."),
        ("user", "My knee hurts."),
        ("user", "Since Monday."),
        GOOD[1],
    ]
    written = line(*turns)
    (conversation,) = read(tmp_path, written).conversations[1:]
    assert [each.model_dump() for each in conversation] == shape(written["messages"], system=None)


@pytest.mark.parametrize(
    "blank",
    [
        {"preferred": "", "rejected": ""},
        {"preferred": "", "rejected": "", "correction": "", "rating": "", "id": ""},
        {"preferred": "", "rejected": None, "rating": 5},
        {"preferred": ""},
        {"rating": ""},
        {"id": ""},
    ],
)
def test_a_blank_column_of_an_export_is_nothing(blank: dict[str, Any], tmp_path: Path) -> None:
    data = read(tmp_path, line(Q1, A1, **blank))
    assert learned(data) == [[Q1, A1]]
    assert (data.repaired, data.refused) == ({}, {})


def test_a_blank_consent_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, line(consent="")).refused == {"noConsent": 1}


@pytest.mark.parametrize(
    "name",
    ["6a8ac4ba-0580-4975-ad2f-89d94a2f20aa", "conv-{d4ee8f76-0ac4-4f15-8feb-88270026ae8b}",
     "6A8AC4BA05804975AD2F89D94A2F20AA", "conv_000123456"],
)  # fmt: skip
def test_a_uuid_is_no_telephone_number(name: str, tmp_path: Path) -> None:
    data = read(tmp_path, line(Q1, A1, id=name))
    assert (data.lines[1].id, data.refused) == (name, {})


@pytest.mark.parametrize("name", ["12345678", "1735898400", "conv-2025-01-03-0007", "session 1004711"])
def test_an_id_that_may_be_a_number_of_somebodys_is_not_kept_and_the_line_is_learned(name: str, tmp_path: Path) -> None:
    data = read(tmp_path, line(Q1, A1, id=name))
    assert (data.lines[1].id, data.refused) == (None, {})


@pytest.mark.parametrize("name", ["maria@example.com", "Mrs. Roe", "123-45-6789"])
def test_an_id_that_names_somebody_is_refused(name: str, tmp_path: Path) -> None:
    assert sum(read(tmp_path, line(Q1, A1, id=name)).refused.values()) == 1


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
    path.write_bytes(mark + mark + raw + b"\r\n" + mark + b"\n" + mark + raw + b"\n")
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
        (b"question,answer,consent", r"a table \(CSV\), it seems; expected one object"),
        (b'"My knee hurts.";"Rest it."', r"a table \(CSV\), it seems"),
        (b"<!DOCTYPE html>", "a web page or XML"),
        (b"# export of today", "a comment"),
        (b"{", "the object goes on in the next line"),
        (b"[", "the object goes on in the next line"),
        (b"\x1f\x8b\x08\x00\x00", "the file is compressed"),
        (bytes.fromhex("00051607000200004d6163204f532058"), "the file is no text"),
        (json.dumps(line()).encode() * 2, "something follows the object"),
        (b'{"rating": ' + b"9" * 5000 + b"}", "not JSON: a number of 5000 digits"),
        ({"Messages": [], "consent": True}, '`messages` is missing: it is written "Messages"'),
        ({"conversations": []}, "`messages` is missing: this is ShareGPT's shape .*; wanted is"),
        ({"instruction": "x", "output": "y"}, "this is Alpaca's shape"),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "`chosen`"),
        (line(concent=True), "the field `concent` is unknown .is `consent` meant"),
        (line(**{"Jane Roe": True}), "a field is unknown; known are `messages`"),
        (line(consent="yes"), "`consent` is not true or false, without quotation marks"),
        (line(rating=6), "`rating` is not a whole number from 1 to 5"),
        (line(rating="good"), "`rating` is not a whole number from 1 to 5"),
        (line(rating=True), "`rating` is not a whole number from 1 to 5"),
        (line(rating="5"), "`rating` is not a whole number from 1 to 5, without quotation marks"),
        (line(rating=5.0), "`rating` is not a whole number from 1 to 5, .* decimal point"),
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
