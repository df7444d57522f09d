"""Near duplicates: known again through case, spacing and a few words, also in Nepali and within a longer message; what only is of the same subject isn't."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.scoring import safety_items
from neurons.scoring.contrasts import safety_contrasts
from neurons.scoring.near_duplicates import (
    FEWEST_WORDS,
    LIKENESS,
    SHINGLE,
    NearDuplicates,
    jaccard,
    plain,
    shingles,
)

DROPPED_FACE = "My father's face has dropped on one side and he can't lift his arm or speak clearly."
WARFARIN = "I forgot my warfarin yesterday. Should I take two doses today?"
DOG = "हिजो बाटोको कुकुरले मेरो हातमा टोक्यो। घाउ सानो छ र रगत पनि थोरै मात्र आएको थियो।"
WIDE = "my father".translate({code: code + 0xFEE0 for code in range(ord("a"), ord("z") + 1)})
"""In the wide letters of East Asian typing."""
LONG = (
    "I have been your patient for a long time and I like the new waiting room very much and my sister sends greetings "
)
SET = NearDuplicates([DROPPED_FACE, WARFARIN, DOG])


@pytest.mark.parametrize(
    "text",
    [
        DROPPED_FACE.upper(),
        "  my father\N{RIGHT SINGLE QUOTATION MARK}s face\n has dropped on one\tside, and he can't lift his arm -- or speak clearly ",
        "My fa\u200bther's face has dropped on one si\u00adde and he can't lift his arm or speak clearly.",
        WIDE + "'s face has dropped on one side and he can't lift his arm or speak clearly",
        DROPPED_FACE.translate(str.maketrans("aeopc", "\u0430\u0435\u043e\u0440\u0441")),
        LONG + DROPPED_FACE.translate(str.maketrans("aoe", "\u00e1\u00f3\u00e9")) + LONG,
        "My dad's face has dropped on one side, he can't lift the arm or speak clearly",
        "Doctor, my mother's face dropped on one side and she can't lift her arm or speak clearly!",
        "Yesterday I forgot my warfarin, shall I take two doses today?",
        "i forgot my Warfarin last night. should i take 2 doses today",
        "हिजो  बाटोको कुकुरले\nमेरो हातमा टोक्यो; घाउ सानो छ र रगत पनि थोरै मात्र आएको थियो",
        "हिजो बाटोको कुकुरले मेरो खुट्टामा टोक्यो। घाउ सानो छ, रगत थोरै मात्र आएको थियो।",
        "नमस्ते डाक्टर। हिजो बाटाको कुकुरले मेरो हातमा टोकेको थियो। घाउ सानो छ र रगत पनि थोरै आएको थियो। के गरौँ?",
        "Good morning, I hope you are well. I had a good week until now. " + DROPPED_FACE + " What shall I do? We live far away.",
    ],
)  # fmt: skip
def test_the_same_is_known_again(text: str) -> None:
    assert SET.holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "Yes.",
        "My father's knee hurts when he lifts his leg, and he can't speak to his doctor before Friday.",
        "I forgot my glasses at the clinic yesterday. Should I come back for them today?",
        "I forgot to eat yesterday.\n\n" * 200,
        "मेरो कुकुर बिरामी छ, हिजोदेखि केही खाएको छैन।",
        "My face, my arm and my speech are fine; it is my father's warfarin that I have to ask about, for two of the doses are gone.",
    ],
)  # fmt: skip
def test_what_is_of_the_same_subject_only_is_not(text: str) -> None:
    assert not SET.holds(text)


def test_a_question_is_found_in_a_day_of_messages() -> None:
    long = "I slept badly, and the dog barked. " * 400
    assert not SET.holds(long)
    assert SET.holds(long + WARFARIN + long)


def test_what_anybody_says_is_not_kept() -> None:
    greeting = NearDuplicates(["Thank you, doctor!", "My knee hurts badly.", "Can I come to you on Monday?"])
    assert len(greeting) == 1
    assert not greeting.holds("Thank you, doctor!")
    assert not greeting.holds("My back hurts badly.")
    assert greeting.holds("can I come to see you on monday")


def test_vowel_signs_of_nepali_count() -> None:
    assert plain("मेरो टाउको दुख्छ।") == "मेरो टाउको दुख्छ"
    assert plain("१०२ मा") == "102 मा"
    assert shingles("दिन") != shingles("दान")


def test_no_safety_question_is_taken_for_another() -> None:
    questions = [*(item.question for item in safety_contrasts()), *(item.question for item in safety_items())]
    texts = [shingles(each) for each in questions]
    highest = max(jaccard(one, other) for place, one in enumerate(texts) for other in texts[:place])
    assert highest < LIKENESS - 0.1


SAID = ["a", "fever", "and", "my", "arm", "hurts", "in", "the", "night", "दुखेको", "छ", "हात", "today.", "Yes?", "so!"]
WORDS = st.lists(st.sampled_from(SAID), min_size=1, max_size=25).map(" ".join)


def by_hand(kept: str, text: str) -> float:
    """Compare one text with another and with its every run of sentences, without an index."""
    sentences = [each for each in re.split(r"(?<=[.!?।])\s+|\n+", text) if plain(each)]
    most = 1 + len([each for each in re.split(r"(?<=[.!?।])\s+|\n+", kept) if plain(each)])
    runs = [
        " ".join(sentences[a:b])
        for a in range(len(sentences))
        for b in range(a + 1, len(sentences) + 1)
        if b - a <= most
    ]
    return max(jaccard(shingles(run), shingles(kept)) for run in [text, *runs])


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS, st.integers(0, 25), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_the_index_leaves_nothing_out(kept: list[str], more: str, dropped: int, likeness: float) -> None:
    words = kept[0].split()
    text = f"{' '.join(words[:dropped])} {more}" if dropped < len(words) else kept[0]
    best = max((by_hand(each, text) for each in kept if len(plain(each).split()) >= FEWEST_WORDS), default=0.0)

    found = NearDuplicates(kept, likeness=likeness).likeness_of(text)
    if best >= likeness:
        assert found == best
    else:
        assert found == 0 or likeness <= found <= max(in_stretches(each, text) for each in kept)


def in_stretches(kept: str, text: str) -> float:
    """Compare one text with every stretch of another, of whatever length."""
    run, wanted = f" {plain(text)} ", shingles(kept)
    begins = range(max(1, len(run) - SHINGLE + 1))
    every = [run[at : at + SHINGLE] for at in begins]
    return max(jaccard(frozenset(every[a:b]), wanted) for a in begins for b in range(a + 1, len(every) + 1))


@pytest.mark.parametrize("text", [
    LONG + "my fathers face has dropped on one side and he cant lift his arm or speak clearly " + LONG,
    LONG + "My father's face.\nHas dropped on.\nOne side and.\nHe can't lift.\nHis arm or.\nSpeak clearly.\n" + LONG,
    LONG + "हिजो बाटोको\nकुकुरले मेरो\nहातमा टोक्यो\nघाउ सानो\nछ र रगत\nपनि थोरै\nमात्र आएको थियो\n" + LONG,
])  # fmt: skip
def test_full_stops_hide_nothing_whether_there_are_too_many_or_none(text: str) -> None:
    assert SET.holds(text)
    assert not SET.holds(LONG * 2)


def test_only_the_same_is_the_same_where_likeness_is_whole() -> None:
    same = NearDuplicates([WARFARIN, DOG], likeness=1.0)
    assert same.likeness_of(f"Hello. {WARFARIN.upper()} Thanks.") == 1.0
    assert not same.holds(WARFARIN.replace("two", "three"))


@pytest.mark.parametrize("likeness", [0, -0.5, 1.01, float("nan")])
def test_a_likeness_is_a_share(likeness: float) -> None:
    with pytest.raises(ValueError, match="above 0, at most 1"):
        NearDuplicates([], likeness=likeness)
