"""Exact options: what a reader would say that an answer chooses, and nothing when two readers would differ."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.scoring.options import Chosen, How, read_option

OPTIONS = {"A": "Rest", "B": "Surgery", "C": "Rest and surgery", "D": "No treatment"}
YES = {"A": "yes", "B": "no", "C": "maybe"}


@pytest.mark.parametrize(("answer", "letter", "how"), [
    ("B", "B", How.LETTER), ("(B)", "B", How.LETTER), ("**B**", "B", How.LETTER), ("B. Surgery", "B", How.LETTER),
    ("B) because it is torn", "B", How.LETTER), ("Option C: both", "C", How.LETTER), ("$\\boxed{D}$", "D", How.LETTER),
    ("The answer is B.", "B", How.STATED), ("Answer: $C", "C", How.STATED), ("ANSWER: (D)", "D", How.STATED),
    ("I considered option A, but the correct answer is B.", "B", How.STATED), ("B is the right answer", "B", How.STATED),
    ("It is torn.\n\nFinal answer: **B**", "B", How.STATED), ("A. Rest is wrong.\nThe answer is B", "B", How.STATED),
    ("Surgery", "B", How.WORDS), ("rest and surgery", "C", How.WORDS), ("You need surgery.", "B", How.WORDS),
    ("no treatment!", "D", How.WORDS),
    ("A or B", None, How.SEVERAL), ("The answer is A or B.", None, How.SEVERAL), ("A, B and C", None, How.SEVERAL),
    ("The answer is A. No, the answer is B.", None, How.SEVERAL), ("A. Rest\nB. Surgery\nC. both", None, How.SEVERAL),
    ("Rest, or surgery.", None, How.SEVERAL), ("Surgery or a rest, then surgery", None, How.SEVERAL),
    ("", None, How.NOTHING), ("A headache needs a doctor", None, How.NOTHING), ("E", None, How.NOTHING),
    ("You don't need surgery.", None, How.NOTHING), ("Ask your doctor.", None, How.NOTHING),
    ("The answer is not B.", None, How.NOTHING), ("B is not correct.", None, How.NOTHING),
])  # fmt: skip
def test_what_an_answer_chooses(answer: str, letter: str | None, how: How) -> None:
    assert read_option(answer, OPTIONS) == Chosen(letter, how)


@pytest.mark.parametrize(("answer", "letter"), [
    ("Yes, it does.", "A"), ("no", "B"), ("Maybe.", "C"), ("There is no evidence for it.", None),
    ("It may help, yes", None), ("Nobody knows", None), ("The answer is yes.", "A"), ("Answer: no", "B"), ("The answer is not known", None),
])  # fmt: skip
def test_words_that_stand_in_any_text_count_where_they_are_the_answer(answer: str, letter: str | None) -> None:
    assert read_option(answer, YES).letter == letter


@given(st.text(max_size=300), st.dictionaries(st.sampled_from("ABCDE"), st.text(max_size=30), min_size=2))
def test_any_answer_chooses_one_of_the_options_or_none(answer: str, options: dict[str, str]) -> None:
    chosen = read_option(answer, options)
    assert chosen.letter is None or chosen.letter in options
    assert (chosen.letter is None) == (chosen.how in (How.SEVERAL, How.NOTHING))


@pytest.mark.parametrize(("answer", "letter"), [
    ("It would be wrong to say the answer is B.", None), ("It is not true that the answer is B", None),
    ("It would be incorrect to conclude that the correct answer is B. The answer is A", "A"),
    ("Rest is wrong\nThe answer is B", "B"), ("She is not well, so the answer is B", "B"),
])  # fmt: skip
def test_what_is_denied_is_not_chosen(answer: str, letter: str | None) -> None:
    assert read_option(answer, OPTIONS).letter == letter


def test_of_no_options_none_is_chosen() -> None:
    assert read_option("B", {}) == Chosen(None, How.NOTHING)


@pytest.mark.parametrize("answer", ["\n" * 20_000, "A, " * 20_000, "answer " * 20_000, "((((" * 20_000, "A\n" * 20_000])
def test_a_long_answer_is_read_in_a_moment(answer: str) -> None:
    begun = time.process_time()
    read_option(answer, OPTIONS)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("answer", "letter"), [("<50 degree", "C"), (">50 degree.", "A"), ("50 degree", None), ("< 50 degree", None)]
)
def test_options_that_differ_in_a_sign_alone_are_told_apart_by_it(answer: str, letter: str | None) -> None:
    """MedMCQA has such; the first of them was taken, whichever was said."""
    options = {"A": ">50 degree", "B": ">90 degree", "C": "<50 degree", "D": "<90 degree"}

    assert read_option(answer, options).letter == letter


@pytest.mark.parametrize(("answer", "letter"), [
    ("b", "B"), ("(c)", "C"), ("d.", "D"), ("\uff22", "B"), (" [b] ", "B"), ("e", None), ("b c", None), ("a headache", None),
    ("The answer is definitely C", "C"), ("the correct option is most likely B.", "B"), ("The answer is therefore: **D**", "D"),
    ("The answer is probably not C", None), ("The answer is unlikely A", None), ("The answer is hardly B.", None),
])  # fmt: skip
def test_a_letter_alone_is_an_answer_and_an_adverb_takes_none_away(answer: str, letter: str | None) -> None:
    assert read_option(answer, OPTIONS).letter == letter
