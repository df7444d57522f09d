"""Clarity: Flesch and Kincaid's formulas on published examples, and whatever can't be measured is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.scoring.clarity import Counts, Measure, Part, count, measure_clarity, syllables

PLAIN = (
    "Call for help now. Sit down and rest. Do not drive. If you have aspirin, chew one tablet. "
    "Tell somebody near you. Open the door so that the doctor can come in. Stay on the phone."
)
HARD = (
    "In such circumstances immediate emergency pharmacological intervention necessitates comprehensive cardiovascular evaluation, "
    "incorporating electrocardiographic monitoring, biochemical determination of myocardial injury, and consideration "
    "of interventional revascularisation, notwithstanding the possibility of alternative or additional gastrointestinal aetiologies."
)
WORDS = {
    1: "blood heart breathe breathed used chest nurse dose pain pulse bruise tongue cough rash test help stopped rest sleep ache",
    2: "patient doctor fever pressure asthma tablet kidney vaccine table doses liver headache muscle muscles cancer breathing swollen virus "
       "question movement nitrate rhythm safety sugar being seeing likely special diet fluid painful needed injured",
    3: "emergency-? ambulance hospital infection medicine condition oxygen allergy injury insulin "
       "vitamin cardiac nausea radio usual essential physician surgery bandages exercise serious contagious suicide",
    4: "emergency dehydration bacteria medication diarrhea diabetes hypertension ibuprofen anxiety operation thermometer "
       "respiration antiseptic epilepsy",
    5: "immediately paracetamol examination",
}  # fmt: skip


def part(parts: object, measure: Measure) -> Part:
    (found,) = [each for each in parts if each.measure is measure]  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(("text", "words", "said", "ease"), [
    # Wikipedia "Flesch–Kincaid readability tests" (2026)
    ("The cat sat on the mat.", 6, 6, 116),
    ("This sentence, taken as a reading passage unto itself, is being used to prove a point.", 16, 23, 69),
    ("The Australian platypus is seemingly a hybrid of a mammal and reptilian creature.", 13, 24, 37.5),
])  # fmt: skip
def test_published_examples_give_their_reading_ease(text: str, words: int, said: int, ease: float) -> None:
    found = count(text)

    assert found == Counts(1, words, said)
    assert found.ease == pytest.approx(ease, abs=0.6)


def test_the_grade_is_the_published_formula() -> None:
    # Kincaid et al. 1975: 0.39 words a sentence + 11.8 syllables a word - 15.59
    assert Counts(1, 6, 6).grade == pytest.approx(-1.45)
    assert Counts(5, 100, 150).grade == pytest.approx(9.91)
    for empty in (Counts(0, 0, 0), Counts(1, 0, 0)):
        with pytest.raises(ValueError, match="without words"):
            _ = empty.grade
        with pytest.raises(ValueError, match="without words"):
            _ = empty.ease


def test_syllables_are_right_for_nine_medical_words_of_ten() -> None:
    listed = {word: number for number, words in WORDS.items() for word in words.split()}
    wrong = {word: syllables(word) for word, number in listed.items() if syllables(word) != number}

    assert len(listed) > 90
    assert len(wrong) <= len(listed) / 10, wrong
    assert abs(sum(map(syllables, listed)) / sum(listed.values()) - 1) < 0.03


@pytest.mark.parametrize(("text", "sentences"), [
    ("Take 2.5 mg. Then rest.", 2), ("See Dr. Rai, e.g. today.", 1), ("- Rest\n- Drink\n- Sleep", 3), ("## Now\n\n1. Rest!\n2. Drink?!", 3), ("Really?! Yes...", 2),
    ("**Call** [a doctor](https://example.org/a.b?c=d). https://example.org", 1),
])  # fmt: skip
def test_sentences_are_counted_as_a_reader_would(text: str, sentences: int) -> None:
    assert count(text).sentences == sentences


def test_plain_words_are_clearer_than_hard_ones() -> None:
    plain, hard = (part(measure_clarity(each, language="en"), Measure.READABILITY) for each in (PLAIN, HARD))

    assert plain.value == 1.0
    assert plain.evidence["grade"] < 5
    assert hard.value == 0.0
    assert hard.evidence["grade"] > 20
    assert "Flesch-Kincaid grade" in hard.message


@pytest.mark.parametrize(("answer", "language", "told"), [
    ("यो हृदयाघात हुन सक्छ। अहिले नै एम्बुलेन्स बोलाउनुहोस्। " * 10, "ne", "valid for 'ne'"), ("Tapai lai jwaro aayo bhane aspatal januhos. " * 10, "ne", "valid for 'ne'"),
    ("यो हृदयाघात हुन सक्छ। अहिले नै एम्बुलेन्स बोलाउनुहोस्। " * 10, "en", "isn't written in English"), ("Call now.", "en", "under 30 words"), ("", "en", "under 30 words"),
])  # fmt: skip
def test_what_no_formula_is_valid_for_is_not_measured(answer: str, language: str, told: str) -> None:
    found = part(measure_clarity(answer, language=language), Measure.READABILITY)

    assert found.value is None
    assert found.message.startswith("not measured: ")
    assert told in found.message


@pytest.mark.parametrize(
    ("words", "needed", "value"),
    [(100, 100, 1.0), (40, 100, 1.0), (250, 100, 1.0), (20, 100, 0.5), (500, 100, 0.5), (0, 100, 0.0)],
)
def test_length_is_held_against_what_is_needed(words: int, needed: int, value: float) -> None:
    found = part(measure_clarity("word " * words, language="en", needed="word " * needed), Measure.LENGTH)

    assert found.value == pytest.approx(value)
    assert found.evidence["words"] == words
    assert str(needed) in found.message


@pytest.mark.parametrize("needed", [None, "", " \u200b"])
def test_a_length_that_nobody_has_set_is_not_measured(needed: str | None) -> None:
    found = part(measure_clarity(PLAIN, language="en", needed=needed), Measure.LENGTH)

    assert found.value is None
    assert found.evidence == {"words": 36}


def test_communication_is_healthbenchs_own_score_where_it_was_judged() -> None:
    judged = measure_clarity(PLAIN, language="ne", scores={"axis:communication_quality": 0.75, "overall_score": 0.1})
    below = measure_clarity(PLAIN, language="ne", scores={"axis:communication_quality": -0.5})

    assert part(judged, Measure.COMMUNICATION).value == 0.75
    assert (part(below, Measure.COMMUNICATION).value, part(below, Measure.COMMUNICATION).evidence["score"]) == (
        0.0,
        -0.5,
    )
    for scores in (None, {}, {"overall_score": 1.0}):
        assert part(measure_clarity(PLAIN, language="en", scores=scores), Measure.COMMUNICATION).value is None


@given(st.text(max_size=400), st.sampled_from(["en", "ne", "xx"]), st.none() | st.text(max_size=50))
def test_any_answer_is_measured_or_not_within_its_bounds(answer: str, language: str, needed: str | None) -> None:
    for each in measure_clarity(answer, language=language, needed=needed):
        assert each.value is None or 0 <= each.value <= 1
        assert each.message
