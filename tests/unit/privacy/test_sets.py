"""Lines that were written to break de-identification, and lines of clinics that hold nothing to remove."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from neurons.privacy import MAX_CHARACTERS, Deidentifier, Identifier, TextRefused, find_identifiers, vocabulary
from neurons.privacy.gazetteer import gazetteer
from tests.unit.privacy.measuring import unmarked

pytestmark = pytest.mark.timeout(600)  # loading the models takes a busy machine long

_SETS = Path(__file__).parent / "sets"
ATTACKS = (_SETS / "attacks.txt").read_text(encoding="utf-8").splitlines()
CLINIC = (_SETS / "clinic.txt").read_text(encoding="utf-8").splitlines()
_FILLER = "The wound was cleaned and dressed, and the cough is better after the tablets. "


@pytest.fixture(scope="module")
def deidentifier() -> Deidentifier:
    return Deidentifier.load()


@pytest.mark.parametrize("line", ATTACKS)
def test_what_an_attacker_hides_is_removed_and_nothing_else(deidentifier: Deidentifier, line: str) -> None:
    _, text, spans = unmarked(line)
    covered = {place for each in deidentifier.find(text) for place in range(each.start, each.end)}
    marked = {place for _, start, end in spans for place in range(start, end)}
    left = [text[start:end] for _, start, end in spans if not _letters(text, start, end) <= covered]
    assert left == []
    assert "".join(text[place] for place in sorted(_letters(text, 0, len(text)) & (covered - marked))) == ""


@pytest.mark.parametrize("text", CLINIC)
def test_what_a_clinic_writes_about_nobody_passes(deidentifier: Deidentifier, text: str) -> None:
    assert deidentifier.scrub(text).text == text


def test_there_are_hundreds_of_lines() -> None:
    assert len(set(ATTACKS)) >= 100
    assert len(set(CLINIC)) >= 100


@pytest.mark.parametrize("name", ["Glycomet", "Asthalin", "Telma"])
@pytest.mark.parametrize(
    "sentence", ["My name is {}.", "my brother {} has a cough", "Mrs. {} has a cough", "Patient: {}", "Thanks,\n{}"]
)
def test_a_medicine_is_a_name_where_a_sentence_says_so(deidentifier: Deidentifier, name: str, sentence: str) -> None:
    assert name not in deidentifier.scrub(sentence.format(name)).text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_long_text_is_looked_through_to_its_end(deidentifier: Deidentifier, share: float) -> None:
    lines = [_FILLER] * (19_500 // len(_FILLER))
    lines.insert(int(len(lines) * share), "Yesterday suresh adhikari and Olumide Bakare rang me on 9851023344. ")
    begun = time.process_time()
    left = deidentifier.scrub("".join(lines)).text
    assert time.process_time() - begun < 30  # it takes 2 to 4 s
    assert [word for word in ("suresh", "adhikari", "Olumide", "Bakare", "9851023344") if word in left] == []
    with pytest.raises(TextRefused, match="Split it"):
        deidentifier.scrub("".join(lines) + "x" * MAX_CHARACTERS)


@pytest.mark.parametrize(
    "piece", [":", "0:", "म", "म ", "राम ", "a", "a'", "a-", "9", "1-", "@", "a ", "x at y ", "Aa ", "thanks, ", "this is ", "plate ", "ward no ", "New ", "my wife "]
)  # fmt: skip
def test_rules_take_no_text_longer_than_seconds(piece: str) -> None:
    """Of one word of 20,000 letters they took 20 s, and of colons alone 30."""
    begun = time.process_time()
    find_identifiers((piece * MAX_CHARACTERS)[:MAX_CHARACTERS])
    assert time.process_time() - begun < 6  # at most 0.9 s, on a machine that is busy with other things


@pytest.mark.parametrize(
    "piece",
    [
        ":",
        "म",
        "a-",
        "''",
        "राम,",
        "Aa ",
        "Ram ma Sita ko ",
        "go to Bir Hospital ",
        "vaccine is at A, ",
        "poison help line ",
    ],
)
def test_rules_and_models_take_no_text_longer_than_seconds(deidentifier: Deidentifier, piece: str) -> None:
    """The tokenizer took 31 s of colons, since it read what was left of a word anew after each mark."""
    begun = time.process_time()
    deidentifier.scrub((piece * MAX_CHARACTERS)[:MAX_CHARACTERS])
    assert time.process_time() - begun < 15  # at most 5.2 s, on a machine that is busy with other things


def _letters(text: str, start: int, end: int) -> set[int]:
    return {place for place in range(start, end) if text[place].isalnum()}


ADVICE = [
    "Call the Poison Information Centre 01-4412303.",
    "TUTH crisis line 9840021600.",
    "Go to Bir Hospital at once.",
    "Take her to Kanti Children's Hospital now.",
    "Refer to Bir Hospital.",
    "Rabies vaccine is free at Bir Hospital, Patan, Teku and Sukraraj.",
    "The vaccine is available at Sukraraj Hospital in Teku.",
    "Bir aspatal ma januhos.",
    "वीर अस्पताल जानुहोस्।",
    "एन्टिभेनम वीर अस्पतालमा पाइन्छ।",
]
OF_SOMEBODY = [
    ("I went to Bir Hospital yesterday.", "Bir"),
    ("My mother was admitted to Patan Hospital.", "Patan"),
    ("Should I go to Bir Hospital?", "Bir"),
    ("He was told to go to Bir Hospital.", "Bir"),
    ("Referred from Bir Hospital with fever.", "Bir"),
    ("Go to Patan.", "Patan"),
    ("Visit Grande Hospital, ask for Suresh Adhikari there.", "Adhikari"),
    ("Ambulance driver Ram 9841223344", "9841223344"),
    ("my helpline is my son 9841223344", "9841223344"),
    ("म वीर अस्पताल गएको थिएँ।", "वीर"),
    ("ma Bir aspatal ma bharna thiye", "Bir"),
]


@pytest.mark.parametrize("text", ADVICE)
def test_where_anybody_is_sent_for_help_stays(deidentifier: Deidentifier, text: str) -> None:
    assert deidentifier.scrub(text).text == text
    assert find_identifiers(text) == ()


@pytest.mark.parametrize(("text", "gone"), OF_SOMEBODY)
def test_where_somebody_was_is_taken_out(deidentifier: Deidentifier, text: str, gone: str) -> None:
    assert gone not in deidentifier.scrub(text).text


@pytest.mark.parametrize(
    "text",
    [
        "my esewa id 98412233",
        "citizenship number 27-01-70-04512",
        "nagarikta no 27-01-70-04512",
        "नागरिकता नं २७-०१-७०-०४५१२",
    ],
)
def test_a_number_is_called_what_is_said_before_it(deidentifier: Deidentifier, text: str) -> None:
    assert {each.kind for each in deidentifier.find(text)} == {Identifier.RECORD}


EPONYM_FORMS = ["{0} sign is present.", "{0}-Zandt reaction is negative.", "{0} splint for six weeks.", "the {0} chromosome was found", "Zandt {0} bodies are seen."]  # fmt: skip


@pytest.mark.parametrize("form", EPONYM_FORMS)
@pytest.mark.parametrize("name", ["Ottoway", "Jurgensen", "Mathiesen"])
def test_what_a_sign_is_called_by_stays_and_the_same_name_goes_elsewhere(
    deidentifier: Deidentifier, form: str, name: str
) -> None:
    text = form.format(name)
    assert deidentifier.scrub(text).text == text
    assert name not in deidentifier.scrub(f"I spoke to {name} about the tablets.").text


def test_lists_of_ordinary_words_hold_few_of_the_names_that_people_have() -> None:
    """Else a list would let through whom a model finds."""
    names = {name for name in gazetteer().names if name.isascii()}
    assert {name for name in names if vocabulary.is_medicine(name)} == set()
    assert {name for name in names if vocabulary.is_nepali_verb(name)} <= {"lepcha", "thathera"}
    ordinary = vocabulary.ORDINARY | vocabulary.ROMANISED_ORDINARY
    assert names & ordinary - vocabulary.NAME_WORDS - vocabulary.SURNAME_WORDS == set()
