"""What each scorer prefers, and how their opinions become a choice."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import pytest

from neurons.candidates import (
    ENTRY_POINTS,
    Candidate,
    Chooser,
    Question,
    Scorer,
    ScorerSettingError,
    Weighted,
    read_scorers,
)
from neurons.candidates.agreement import Agreement
from neurons.candidates.likelihood import Likelihood
from neurons.candidates.support import Support

QUESTION = Question(text="Can I take ibuprofen in the third trimester?")


def drawn(*texts: str, logprobs: Sequence[Sequence[float] | None] = (), finish: str = "stop") -> list[Candidate]:
    given = [*logprobs, *([None] * (len(texts) - len(logprobs)))]
    return [
        Candidate(index=index, text=text, finish=finish, logprobs=tuple(values) if values is not None else None)
        for index, (text, values) in enumerate(zip(texts, given, strict=True))
    ]


def best(scores: Sequence[float | None]) -> int:
    return max(range(len(scores)), key=lambda index: -1.0 if scores[index] is None else scores[index])  # type: ignore[arg-type,return-value]


async def test_agreement_is_a_majority_for_letters() -> None:
    scores = await Agreement().score(QUESTION, drawn("B", "A", "A.", "a"))
    assert scores == [0.0, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)]


async def test_agreement_takes_the_text_that_is_most_like_the_others() -> None:
    candidates = drawn(
        "Bananas are yellow.",
        "No, do not take it now.",
        "No, you should not take it now.",
        "No, do not take it at all.",
    )
    assert best(await Agreement().score(QUESTION, candidates)) == 1


async def test_a_not_makes_texts_less_alike_than_another_word() -> None:
    [_, with_not, other_word] = await Agreement().score(
        QUESTION, drawn("You can take it now.", "You can not take it now.", "You can take it today.")
    )
    alike = await Agreement().score(QUESTION, drawn("You can take it now.", "You can take it now please."))
    assert with_not is not None
    assert other_word is not None
    assert alike[0] is not None
    assert max(with_not, other_word) < alike[0]


async def test_a_single_candidate_agrees_with_nobody() -> None:
    assert await Agreement().score(QUESTION, drawn("A")) == [None]


async def test_likelihood_is_per_token() -> None:
    short_long = drawn("a", "b", logprobs=[[-1.0], [-0.5] * 100])
    assert await Likelihood().score(QUESTION, short_long) == [
        pytest.approx(math.exp(-1)),
        pytest.approx(math.exp(-0.5)),
    ]


@pytest.mark.parametrize("values", [None, [], [math.nan], [-0.1, math.nan], [0.5], [math.inf]], ids=str)
async def test_likelihood_has_no_opinion_without_numbers_that_can_be(values: list[float] | None) -> None:
    assert await Likelihood().score(QUESTION, drawn("a", logprobs=[values])) == [None]


SOURCE = (
    "Ibuprofen must not be taken in the third trimester. It can close a vessel of the baby's heart early. "
    "Paracetamol 500 mg is the first choice."
)


@pytest.mark.parametrize(
    ("supported", "not_supported"),
    [
        ("Ibuprofen must not be taken in the third trimester.", "Ibuprofen can be taken in the third trimester."),
        ("Paracetamol 500 mg is the first choice.", "Paracetamol 5000 mg is the first choice."),
        ("Ibuprofen can close a vessel of the heart.", "Ginger tea helps most people with nausea."),
    ],
)
async def test_support_tells_what_a_source_says_from_what_only_looks_like_it(
    supported: str, not_supported: str
) -> None:
    question = Question(text=QUESTION.text, sources=(SOURCE,))
    scores = await Support().score(question, drawn(not_supported, supported))
    assert best(scores) == 1
    assert scores[0] == 0.0 or (scores[0] is not None and scores[1] is not None and scores[0] < scores[1] / 2)


async def test_support_has_no_opinion_without_sources_or_words() -> None:
    assert await Support().score(QUESTION, drawn("Ibuprofen can close a vessel.")) == [None]
    assert await Support().score(Question(text="?", sources=(SOURCE,)), drawn("...")) == [None]


TELLS = "Do not take ibuprofen; take paracetamol instead."


@pytest.mark.parametrize(
    ("source", "supported", "opposite"),
    [
        ("Never take ibuprofen with warfarin.", "You mustn't take ibuprofen with warfarin.",
         "You must take ibuprofen with warfarin."),
        ("You mustn't take ibuprofen with warfarin.", "You mustn't take ibuprofen with warfarin.",
         "You must take ibuprofen with warfarin."),
        ("It hasn't been tested in children.", "It hasn't been tested in children.", "It has been tested in children."),
        ("Do not stop taking warfarin.", "Do not stop taking warfarin.", "Stop taking warfarin."),
        ("Take it with food.", "Do not take it without food.", "Take it without food."),
        ("None of these is safe in pregnancy.", "None of these is safe in pregnancy.", "These are safe in pregnancy."),
        ("वारफरिनसँग आइबुप्रोफेन नलिनुहोस्।", "वारफरिनसँग आइबुप्रोफेन नलिनुहोस्।", "वारफरिनसँग आइबुप्रोफेन लिनुहोस्।"),
        ("दूध दिनु हुँदैन।", "दूध दिनु हुँदैन।", "दूध दिनु हुन्छ।"),
        (TELLS, "Do not take ibuprofen. Take paracetamol instead.", "Do not take paracetamol; take ibuprofen instead."),
        (TELLS, "Take paracetamol, not ibuprofen.", "Take ibuprofen, not paracetamol."),
        (TELLS, "Take paracetamol and do not take ibuprofen.", "Take ibuprofen and do not take paracetamol."),
        (TELLS, "Never ibuprofen, but paracetamol.", "Never paracetamol, but ibuprofen."),
    ],
)  # fmt: skip
async def test_support_goes_to_who_says_the_same_and_not_to_the_opposite(
    source: str, supported: str, opposite: str
) -> None:
    question = Question(text=QUESTION.text, sources=(source,))
    [against, same] = await Support().score(question, drawn(opposite, supported))
    assert same is not None
    assert against is not None
    assert same > 0.6
    assert against <= same - 0.4


@pytest.mark.parametrize("said", ["तीन दिन औषधि निल्नुहोस्।", "ज्वरो नाप्नुहोस्।", "आइबुप्रोफेन लिनुहोस्।"])
async def test_nepali_words_that_only_look_like_a_negation_are_none(said: str) -> None:
    question = Question(text=QUESTION.text, sources=(said, "यो नखानुहोस्।"))
    denied = said.replace("निल्नुहोस्", "ननिल्नुहोस्").replace("नाप्नुहोस्", "ननाप्नुहोस्").replace(" लि", " नलि")
    assert await Support().score(question, drawn(said, denied)) == [1.0, 0.0]


@pytest.mark.parametrize("part", [" ", "no ", ", ", "word, not that and ", "and do ", "a.b!", "\t"])
async def test_the_longest_answers_are_compared_at_once(part: str) -> None:
    """A model that fails may give nothing but blanks, and every patient of the miner waits meanwhile."""
    question = Question(text=QUESTION.text, sources=(SOURCE,))
    candidates = drawn(*(["Take it" + part * (100_000 // len(part)) + "."] * 4))
    began = time.process_time()
    await Support().score(question, candidates)
    assert time.process_time() - began < 1.0


async def test_a_list_behind_a_negation_stays_negated() -> None:
    question = Question(text=QUESTION.text, sources=("Do not take ibuprofen, aspirin or naproxen.",))
    [aspirin, no_aspirin] = await Support().score(question, drawn("Take aspirin.", "Do not take aspirin."))
    assert (aspirin, no_aspirin) == (0.0, 1.0)


async def test_who_says_nothing_is_not_supported() -> None:
    """Or it would be left out of the reckoning in which all others are held to the texts."""
    question = Question(text=QUESTION.text, sources=(SOURCE,))
    assert await Support().score(question, drawn("You should.", "No.")) == [0.0, None]


@pytest.mark.parametrize("empty", ["...", "\u200b", "\u2014", "**", "\U0001f642"])
async def test_what_has_no_word_is_as_empty_as_nothing(empty: str) -> None:
    """Two of them agree wholly, and a single sure token is likelier than any sentence."""
    sure, unsure = [-0.01], [-0.9] * 6
    candidates = drawn(empty, empty, "Take paracetamol.", "Drink water.", logprobs=[sure, sure, unsure, unsure])
    choice = await Chooser(read_scorers("agreement:2,likelihood")).choose(QUESTION, candidates, seconds=1)
    assert choice.candidate.index >= 2


LOOP = "Ibuprofen is a medicine for pain. " * 7


async def test_what_goes_round_in_circles_is_given_after_what_was_only_cut_off() -> None:
    """Each further round of a loop is likelier than the one before."""
    candidates = drawn(
        LOOP,
        "Rest, drink plenty of water, and take paracetamol if it",
        "Drink water, and see a doctor if the fever lasts",
        logprobs=[[-0.05] * 48, [-0.8] * 14, [-0.8] * 14],
        finish="length",
    )
    choice = await Chooser(read_scorers("agreement:2,likelihood")).choose(QUESTION, candidates, seconds=1)
    assert choice.candidate.index != 0
    assert (await Chooser([]).choose(QUESTION, candidates[:1], seconds=1)).candidate.index == 0


@pytest.mark.parametrize(
    "text",
    [
        "Take one tablet in the morning, one tablet at noon and one tablet in the evening, with water.",
        "1. Rest. 2. Drink water. 3. Take paracetamol. 4. Measure your temperature. 5. Call us if it is 39. 6. Rest.",
        "No. No, and no again: never take ibuprofen with warfarin, never take aspirin with warfarin, never.",
    ],
)
async def test_an_answer_that_repeats_words_is_no_loop(text: str) -> None:
    candidates = drawn(text, "Cut off in the mid", finish="length")
    assert (await Chooser(read_scorers("likelihood")).choose(QUESTION, candidates, seconds=1)).candidate.index == 0


async def test_opinions_are_weighed_and_silence_counts_neither_way() -> None:
    class Says:
        needs_logprobs = False

        def __init__(self, *said: float | None) -> None:
            self._said = said

        async def score(self, question: Question, candidates: Sequence[Candidate]) -> Sequence[float | None]:
            return self._said

    heavy, light = Weighted("heavy", Says(0.4, 0.6), 3.0), Weighted("light", Says(0.9, None), 1.0)
    choice = await Chooser([heavy, light]).choose(QUESTION, drawn("a", "b"), seconds=1)
    assert (choice.candidate.index, choice.score) == (1, pytest.approx(0.6)), "0.525 against 0.6"
    choice = await Chooser([light, Weighted("heavy", Says(0.4, 0.5), 1.0)]).choose(QUESTION, drawn("a", "b"), seconds=1)
    assert choice.candidate.index == 0
    with pytest.raises(ValueError, match="no candidates"):
        await Chooser([heavy]).choose(QUESTION, [], seconds=1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no scorer"), ("agreement,,", "names no scorer"), ("agreement,agreement", "named twice"),
        ("agreement:0", "must be above 0"), ("agreement:x", "must be above 0"), ("agreement:nan", "must be above 0"),
        ("judge", "there is no scorer 'judge': agreement, likelihood, support"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ScorerSettingError, match=says):
        read_scorers(text)


class Plugged:
    """A package's own scorer."""

    needs_logprobs = False

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> list[float | None]:
        return [None] * len(candidates)


class Unfit:
    """It lacks what a scorer has."""


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = [
        metadata.EntryPoint(name, f"{__name__}:{thing}", ENTRY_POINTS)
        for name, thing in (("own", "Plugged"), ("unfit", "Unfit"), ("gone", "Gone"))
    ]

    def entry_points(**asked: Any) -> list[metadata.EntryPoint]:
        assert asked == {"group": ENTRY_POINTS}
        return offered

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    [own, agreement] = read_scorers("own:3, agreement")
    assert (type(own.scorer).__name__, own.weight, agreement.weight) == ("Plugged", 3.0, 1.0)
    with pytest.raises(ScorerSettingError, match="can't be made"):
        read_scorers("unfit")
    with pytest.raises(ScorerSettingError, match="can't be made"):
        read_scorers("gone")


@pytest.mark.parametrize("scorer", [Agreement(), Support()], ids=["agreement", "support"])
async def test_long_answers_keep_nobody_waiting(scorer: Scorer) -> None:
    """Scorers work on the event loop of all patients' answers."""
    answers = drawn(*(f"{number}. " + "\ufdfa. " * 100_000 for number in range(4)))
    began = time.thread_time()
    await scorer.score(Question(text="What?", sources=["Rest."]), answers)
    assert time.thread_time() - began < 0.5
