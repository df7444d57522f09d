"""What each scorer prefers, and how their opinions become a choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import pytest

from neurons.candidates import ENTRY_POINTS, Candidate, Chooser, Question, ScorerSettingError, Weighted, read_scorers
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
