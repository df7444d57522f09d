# ruff: noqa: RUF001 - some messages are in disguise
"""What is said of a message: emergencies in many guises, and what only looks like one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from neurons.emergency import Kind, Language, assess
from neurons.emergency.assessing import rules_alone
from neurons.emergency.notices import countries

SETS = Path(__file__).parent / "sets"


def said(text: str, *, country: str | None = None) -> Any:
    return assess([{"role": "user", "content": text}], country=country)


@pytest.mark.parametrize(
    "text",
    [
        "chest pain",
        "ch\u200best p\u00adain",
        "c h e s t  p a i n",
        "chst pian",
        "CHEST PAIN!!!",
        "ch3st p4in",
        "сhеst раin",
    ],
)
def test_a_guise_hides_nothing(text: str) -> None:
    assert Kind.HEART in said(text).kinds


@pytest.mark.parametrize(
    "text",
    ["no chest pain", "No fever, cough or chest pain", "What are the symptoms of a stroke?", "my feet are killing me",
     "My father had a stroke in 1999", "छाती दुखेको छैन", "chhati dukheko chaina", "", "\u200b", "?!"],
)  # fmt: skip
def test_what_is_denied_past_or_asked_is_none(text: str) -> None:
    found = said(text)
    assert not found.is_emergency
    assert found.notice is None


@pytest.mark.parametrize(
    "text",
    ["chhati dukhdaina", "छाती दुख्दैन अहिले", "mutu dukhena", "chhati ta dukhdaina hajur", "behos bhayena",
     "marna man lagdaina", "kampan aaudaina", "chhati dukhna chhodyo"],
)  # fmt: skip
def test_a_nepali_verb_that_denies_itself_matches_no_rule(text: str) -> None:
    """Known by its beginning, "dukh*" is a pain and "dukhdaina" is none."""
    assert not rules_alone(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("chhati dukhcha", "chest-pain"),
        ("chhati dukhcha tauko dukhdaina", "chest-pain"),
        ("chhati dukhdaina tara saas ferna garo", "breathless"),
        ("saas ferna sakdaina", "breathless"),
        ("bolaunda pani hos ma aayena", "unresponsive"),
        ("bachna man lagdaina", "suicide-hinted"),
        ("जिन्दगीमा कहिल्यै नभएको टाउको दुखाइ एक्कासि सुरु भयो", "thunderclap"),
    ],
)
def test_what_is_a_sign_because_it_isnt_done_stays_one(text: str, rule: str) -> None:
    assert rule in rules_alone(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("bandar le haat ma koparyo", "rabies"),
        ("gali ko kukur le dat lagayo", "rabies"),
        ("the stray dog licked my cut", "rabies"),
        ("a bat was in our tent when we woke up", "bat-in-room"),
        ("used my son's epipen and he is pink again", "adrenaline-given"),
        ("didi le 20 ota cetamol khanu bhako rahecha", "too-many-pills"),
        ("9 mahina bhayo, pani ko thaili phutyo, harro pani aayo", "waters"),
        ("ten days after my c section and I shiver so that the bed shakes", "after-birth"),
    ],
)
def test_what_patients_make_little_of_is_in_the_list(text: str, rule: str) -> None:
    assert rule in rules_alone(text)
    assert said(text).is_emergency


@pytest.mark.parametrize("answer", ["every night", "most days", "maybe", "sadhai", "दिनदिनै"])
def test_how_often_is_a_yes(answer: str) -> None:
    ask = {"role": "assistant", "content": "Do you have thoughts of ending your life?"}
    told = [{"role": "user", "content": "I lost my job"}, ask, {"role": "user", "content": answer}]
    assert Kind.SUICIDE in assess(told).kinds


def test_a_nepali_question_about_a_wish_to_die_can_be_said_yes_to() -> None:
    ask = {"role": "assistant", "content": "आफ्नो ज्यान लिने सोच आउँछ?"}
    told = [{"role": "user", "content": "मन भारी छ"}, ask, {"role": "user", "content": "आउँछ"}]
    assert Kind.SUICIDE in assess(told).kinds


@pytest.mark.parametrize(
    "text",
    [
        "No fever, but my chest hurts",
        "I don't know why, chest pain",
        "I had a heart attack in 2015. Now my chest is tight",
    ],
)
def test_a_negation_or_a_past_ends(text: str) -> None:
    assert Kind.HEART in said(text).kinds


@pytest.mark.parametrize("many", ["40", "forty", "a hundred", "thirty", "two dozen"])
def test_a_number_in_words_is_a_number(many: str) -> None:
    assert Kind.POISONING in said(f"I took {many} paracetamol tablets yesterday").kinds


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("he isnt waking up", Kind.UNCONSCIOUS),  # the list has "can't wake"
        ("a sweet is stuck in our boys throat and he isnt making any sound", Kind.BREATHING),
        ("my heart is at 190 and has been so for the whole of this long afternoon and i am about to faint", Kind.HEART),
        ("my toddler got into the tablets, i dont know how many", Kind.POISONING),
        ("oven cleaner splashed into my eye", Kind.EYE),
        ("काकीको आँखामा तेजाब पर्‍यो", Kind.EYE),
        ("मेरो छोरीले मट्टितेल खाई, ३ वर्षकी हो", Kind.POISONING),  # an age is no "years ago"
        ("bahini le musa marne ausadhi khai", Kind.POISONING),
        ("8 mahina ki garbhawati, bachha chalya chaina", Kind.PREGNANCY),
    ],
)
def test_a_sign_is_known_in_other_forms_of_its_words(text: str, kind: Kind) -> None:
    assert kind in said(text).kinds


@pytest.mark.parametrize(
    "text",
    ["he isnt making any plans these days", "i had a fit 10 yrs back", "bahini le bhat khai", "mero bhai thik cha"],
)
def test_other_forms_make_no_alarm_of_their_own(text: str) -> None:
    assert not rules_alone(text)


def test_a_no_to_what_somebody_can_do_tells_that_they_cant() -> None:
    def answered(question: str, answer: str) -> bool:
        return assess(
            [
                {"role": "user", "content": "my dad is not well"},
                {"role": "assistant", "content": question},
                {"role": "user", "content": answer},
            ]
        ).is_emergency

    assert answered("Is he breathing?", "no")
    assert answered("I see. Are you able to breathe?", "No I cant")
    assert not answered("Is he breathing?", "yes, fine")
    assert not answered("Does he have chest pain?", "no")
    assert not answered("Are you thinking of killing yourself?", "no")
    assert not answered("Can he come on Monday?", "no")


def test_two_turns_and_a_yes_count() -> None:
    ask = {"role": "assistant", "content": "Are you thinking of killing yourself?"}
    assert (
        Kind.SUICIDE
        in assess([{"role": "user", "content": "I feel low"}, ask, {"role": "user", "content": "yes"}]).kinds
    )
    assert not assess([{"role": "user", "content": "I feel low"}, ask, {"role": "user", "content": "no"}]).is_emergency
    told = [
        {"role": "user", "content": "my chest feels heavy"},
        {"role": "assistant", "content": "Anything else?"},
        {"role": "user", "content": "I'm sweating"},
    ]
    assert Kind.HEART in assess(told).kinds


def test_what_the_assistant_says_is_no_patients() -> None:
    assert not assess(
        [{"role": "assistant", "content": "You have chest pain"}, {"role": "user", "content": "hello"}]
    ).is_emergency


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I can breathe, but chest pain", Language.ENGLISH),
        ("मेरो छाती दुखेको छ", Language.NEPALI),
        ("mero chhati dukheko cha", Language.ROMANISED),
    ],
)
def test_the_notice_is_in_the_messages_language_and_has_the_countrys_number(text: str, language: Language) -> None:
    found = said(text, country="np")
    assert found.language is language
    assert ("१०२" if language is Language.NEPALI else "102") in found.notice
    assert said(text, country="ZZ").notice == said(text).notice


def test_a_crisis_names_the_line_of_each_country_that_has_one() -> None:
    assert "988" in said("I want to kill myself", country="US").notice
    assert all(said("I want to kill myself", country=each).notice for each in countries())


def test_who_is_beaten_gets_the_line_for_that_and_nobody_else_does() -> None:
    beaten = "my husband strangled me last night and says he will kill me"
    assert "1145" in said(beaten, country="NP").notice
    assert "1098" in said(beaten, country="NP").notice
    assert "1145" in said(beaten).notice
    assert "1-800" not in said(beaten, country="NP").notice
    assert "1145" not in said("I have chest pain", country="NP").notice
    assert all(said(beaten, country=each).notice for each in countries())


@pytest.mark.parametrize("text", ["chest pain", "छाती दुख्यो", "mero chhati dukhyo"])
def test_the_notice_says_that_it_holds_whatever_is_answered(text: str) -> None:
    """A twin's words stand right below it, and may play down what it says."""
    call = said(text).notice.splitlines()[0]
    assert any(words in call for words in ("Whatever it says", "जेसुकै भने पनि", "je sukai bhane pani"))


def test_nothing_of_the_message_is_kept() -> None:
    found = said("chest pain xylophone")
    assert "xylophone" not in repr(found)
    assert "call" not in repr(found)


def test_a_long_message_is_bounded() -> None:
    assert Kind.HEART in said("word " * 100_000 + "chest pain").kinds


@pytest.mark.parametrize(
    ("name", "least", "most"), [("development", 0.98, 0.05), ("test", 0.98, 0.05), ("second", 0.95, 0.06)]
)
def test_no_change_loses_what_was_found(name: str, least: float, most: float) -> None:
    rows = [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [(bool(row["kinds"]), assess(row["messages"]).is_emergency) for row in rows]
    assert found.count((True, True)) >= least * sum(is_one for is_one, _ in found)
    assert found.count((False, True)) <= most * sum(not is_one for is_one, _ in found)


def test_each_decision_is_as_reviewed() -> None:
    """decisions.json holds which rules matched, and the language; a change of the list writes it anew, to be read.

    Not of the blind set: who reads what became of its messages has no estimate left. Nor of what is learned from.
    """
    decided = json.loads((SETS / "decisions.json").read_text(encoding="utf-8"))
    found = {}
    for path in sorted(set(SETS.glob("*.jsonl")) - {*SETS.glob("blind*.jsonl"), *SETS.glob("training-*.jsonl")}):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            said = assess(row["messages"])
            found[f"{path.stem}:{row['id']}"] = [*said.rules, f"/{said.language}"]
    assert {name: what for name, what in found.items() if what != decided.get(name)} == {}
    assert found.keys() == decided.keys()


@pytest.mark.parametrize(
    "text", ["no chest pain and fever headache vomiting blood ", "no chest pain, fever, cough, ", "wordless "]
)
def test_no_message_takes_long(text: str) -> None:
    """The gateway reads it in its event loop: one patient's thousands of words must not hold up all others."""
    said("chest pain")  # the list is loaded
    begun = time.thread_time()
    said((text * 400)[:8000])
    assert time.thread_time() - begun < 3.0


def test_no_row_of_messages_takes_long_and_the_newest_count() -> None:
    """A body has room for a hundred long ones: whoever sends them must hold up nobody else."""
    long = [{"role": "user", "content": "I have no chest pain, " * 730}] * 60
    begun = time.thread_time()
    assert not assess(long).is_emergency
    assert time.thread_time() - begun < 1.0
    assert assess([*long, {"role": "user", "content": "I have chest pain and my left arm is numb"}]).is_emergency
    short = [{"role": "user", "content": said} for said in ("I have chest pain.", "My arm is numb.", *["Hello?"] * 40)]
    assert assess(short).is_emergency
