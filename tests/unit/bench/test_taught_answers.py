"""What versions are taught, what is compared, and how the figure is worked out; nothing is taught here."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from neurons.scoring import safety_items
from neurons.scoring.contrasts import Language
from neurons.scoring.near_duplicates import jaccard, plain, shingles
from tests.bench.safety_answers import Answer, read_answers
from tests.bench.taught_answers import ITEMS, Continuations, Taught, continuations, draw_versions, result

ANSWERS = read_answers()


def test_each_answer_is_taught_once_and_a_version_learns_one_answer_to_an_item() -> None:
    for mixed in (False, True):
        versions = draw_versions(ANSWERS, seed=13, mixed=mixed)
        assert Counter(each for version in versions for each in version) == Counter(ANSWERS)
        assert all(max(Counter(each.item for each in version).values()) == 1 for version in versions)
        assert max(map(len, versions)) == ITEMS
        assert draw_versions(ANSWERS, seed=13, mixed=mixed) == versions
        assert draw_versions(ANSWERS, seed=14, mixed=mixed) != versions
        labels = [len({each.acceptable for each in version}) for version in versions if len(version) == ITEMS]
        assert set(labels) == {2 if mixed else 1}


def test_every_item_has_wordings_in_each_language_that_it_is_answered_in() -> None:
    asked = {(each.item, each.language) for each in ANSWERS}
    assert asked <= continuations().keys()
    for item in safety_items():
        assert len(continuations()[item.id, Language.ENGLISH].recommended) == 3
        assert len(continuations()[item.id, Language.NEPALI].recommended) == 2
    for each in continuations().values():
        assert len(each.recommended) == len(each.not_recommended)


def test_no_wording_that_is_compared_is_taught() -> None:
    keys = {(each.item, each.language) for each in ANSWERS}
    of_items = {key: several for key, several in continuations().items() if key in keys}
    texts = [text for several in of_items.values() for text in several.all]
    # By likeness alone: `NearDuplicates` also finds a short answer's words within a longer wording.
    near = [
        (text, each.answer) for (item, language), several in of_items.items() for text in several.all
        for each in ANSWERS
        if (each.item, each.language) == (item, language) and jaccard(shingles(text), shingles(each.answer)) >= 0.5
    ]  # fmt: skip
    assert near == []
    assert max(Counter(map(plain, texts)).values()) == 1


def test_length_does_not_tell_the_wordings_apart() -> None:
    ratios = [
        sum(map(len, several.recommended)) / sum(map(len, several.not_recommended))
        for (item, _), several in continuations().items()
        if item in {each.id for each in safety_items()}
    ]
    assert 0.9 < sum(ratios) / len(ratios) < 1.1
    assert max(ratios) < 1.4


def test_a_preference_is_by_the_byte() -> None:
    several = Continuations(("yes", "हो"), ("no!!",))
    assert several.preference([-3.0, -6.0, -8.0]) == pytest.approx(-1.0 - -2.0)
    with pytest.raises(ValueError, match="zip"):
        several.preference([-3.0])


def taught(answer: Answer, *, right: bool = True, said: str = "") -> Taught:
    return Taught(answer=answer, preference=0.5 if answer.acceptable is right else -0.5, said=said)


def test_versions_that_are_told_apart_as_labelled_get_all_and_a_constant_gets_half() -> None:
    right = [taught(each) for each in ANSWERS]
    found = result(right, nepali=right[:30], mixed=right[:30])
    assert (found.figures[0].spread.median, found.figures[0].met) == (100, True)
    alike = [Taught(answer=each, preference=0.1, said="") for each in ANSWERS]
    half = result(alike, nepali=alike[:30], mixed=alike[:30])
    assert (half.figures[0].spread.median, half.figures[0].met) == (50, False)
    assert {each.subject for each in found.figures} == {"likelihood + tripwires", "phrases"}
    assert len(found.figures) > 10


def test_what_a_version_says_itself_may_veto() -> None:
    first = next(each for each in ANSWERS if each.item == "emergency-1" and each.acceptable)
    told = taught(first, said="It is just heartburn.")
    assert told.score < -1e9
    assert replace(told, said="Call an ambulance now.").score == 0.5
    assert replace(told, said="").score == 0.5
