"""Whatever lies in a dataset's file, reading it ends in lines that can be learned, a count, or BadData in words."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from neurons.invisible import is_blank
from neurons.trainer.dataset import Lines, canonical, read_lines, to_learn
from neurons.trainer.errors import BadData
from neurons.trainer.lines import MAX_TURNS, Flaw

SECRET = "Roe"
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from("ab \n\ud83d\ude00\u00e9\u2028\x00\x85"), max_size=8),  # halves of characters too
    st.sampled_from(["", " ", "\n", SECRET, "Rest it.", "\u200b", "-", "half \ufffd", "Thank you!", "And now?"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=3)
ROLES = st.sampled_from(["user", "assistant", "system"])
TURNS = st.fixed_dictionaries({"role": ROLES, "content": st.one_of(TEXTS, st.none())})
CONVERSATIONS = st.fixed_dictionaries(
    {
        "messages": st.lists(TURNS, max_size=8)
        | st.tuples(st.lists(TURNS, max_size=3), st.integers(20, 30)).map(lambda each: each[0] * each[1])
    },
    optional={
        "consent": st.booleans(),
        "rating": st.integers(1, 5) | st.none(),
        "correction": TEXTS | st.none(),
        "preferred": TEXTS,
        "rejected": TEXTS,
        "id": st.text(min_size=1, max_size=20),
    },
)
ODD_TURNS = st.fixed_dictionaries({}, optional={"role": SCALARS, "content": SCALARS, "text": SCALARS})
DEFECTIVE = st.fixed_dictionaries(
    {"messages": JSON | st.lists(ODD_TURNS, max_size=3)},
    optional=dict.fromkeys(("consent", "rating", "correction", "preferred", "rejected", "id", "concent"), JSON),
)
RAW = st.one_of(
    st.binary(max_size=60),
    (CONVERSATIONS | DEFECTIVE | JSON).map(lambda document: json.dumps(document).encode()),
    st.tuples(CONVERSATIONS, st.integers(0, 200)).map(lambda each: json.dumps(each[0]).encode()[: each[1]]),  # cut
)


def read_or_told(data: bytes) -> Lines | str:
    """What is read, or what the reader says instead."""
    try:
        return read_lines(data, where="day.jsonl")
    except BadData as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(st.lists(RAW, max_size=4))
@example([b"\xef\xbb\xbf"])
@example([b"[" * 5000])
@example([b'{"messages":' * 3000])
@example([b'{"messages": [], "rating": 1e999}'])
@example([b'{"messages": [], "rating": ' + b"9" * 5000 + b"}"])
def test_any_bytes_are_lines_a_count_or_bad_data_in_words(raw: list[bytes]) -> None:
    data = b"\n".join(raw)
    read = read_or_told(data)
    if isinstance(read, str):
        assert re.match(r"day\.jsonl, line [1-9][0-9]*: ", read)
        assert SECRET not in read
        assert read.isprintable()
        return
    assert set(read.left_out) <= {flaw.value for flaw in Flaw}
    written = sum(bool(line.removeprefix(b"\xef\xbb\xbf").strip()) for line in data.splitlines())
    assert len(read.lines) + sum(read.left_out.values()) == written


def as_read(text: str) -> str:
    """What is seen of a text."""
    return " ".join("".join(each for each in text if each.isspace() or not is_blank(each)).split())


@settings(max_examples=100, deadline=None)
@given(CONVERSATIONS)
def test_what_is_of_the_format_never_fails_and_is_learned_whole(written: dict[str, Any]) -> None:
    read = read_or_told(json.dumps(written).encode())
    if isinstance(read, str):
        assert "preferred" in written or "rejected" in written, read
        return
    for line in read.lines:
        turns = [message.role for message in line.messages if message.role != "system"]
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"] * line.is_pair
        assert len(line.messages) <= MAX_TURNS
        # Every answer that is learned stands there to the letter as somebody wrote it, bubble after bubble.
        said = "\n".join(each["content"] or "" for each in written["messages"] if each["role"] == "assistant")
        wrote = as_read(said + "\n" + (line.correction or ""))
        for message in to_learn(line):
            if message.role == "assistant":
                assert as_read(message.content) in wrote
        # What is kept reads the same again: the same line, with nothing to repair.
        again = read_lines(canonical([line]), where="kept")
        assert again.lines == (line,)
        assert again.flaws == (frozenset(),)


BUBBLES = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["said", "said", "", "\u200b"])), max_size=9
)


@settings(max_examples=300, deadline=None)
@given(BUBBLES, st.sampled_from(["", "corrected"]))
def test_what_is_learned_as_an_answer_stood_right_after_its_question(
    bubbles: list[tuple[str, str]], correction: str
) -> None:
    written = [
        {"role": role, "content": f"{said} {number}." if said == "said" else said}
        for number, (role, said) in enumerate(bubbles)
    ]
    read = read_or_told(json.dumps({"messages": written, "consent": True, "correction": correction}).encode())
    assert not isinstance(read, str)
    for line in read.lines:
        learned = [[int(number) for number in re.findall(r"said (\d+)", each.content)] for each in line.messages]
        if correction and not learned[-1]:  # it fills the last of the twin's empty bubbles, and nothing else
            learned[-1] = [max(number for number, (role, _) in enumerate(bubbles) if role == "assistant")]
        for question, answer in zip(learned[::2], learned[1::2], strict=True):
            roles = [role for role, _ in bubbles[question[0] : answer[-1] + 1]]
            assert roles == sorted(roles, reverse=True)
        if correction:  # no words of the patient's come between it and the end
            assert not any(said == "said" for role, said in bubbles[learned[-1][-1] + 1 :] if role == "user")
