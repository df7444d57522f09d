"""The second look finds what no rule has, takes back what a rule took for an emergency, and can be learned again."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.emergency import Kind, assess
from neurons.emergency.assessing import CRISIS_SECONDED, overruled, rules_alone, seen_in, sentences_with_rules
from neurons.emergency.classifier import NAME, Weights, WeightsError, classifier
from neurons.emergency.features import WINDOW, Group, whole, windows
from neurons.emergency.notices import notice
from neurons.emergency.training import AFTER, AUTHORS, BESIDE, Scored, alarms, read, trained

SETS = Path(__file__).parent / "sets"


def said(text: str) -> Any:
    return assess([{"role": "user", "content": text}])


HARD = [
    ("he went the colour of putty and holds his breastbone", Kind.HEART),
    ("granny's spoon keeps falling and one side of her smile has slipped since breakfast", Kind.STROKE),
    ("ive counted the tablets and written to my sister, i feel calm now", Kind.SUICIDE),
    ("since the heater was lit all of us have a headache and the dog is limp", Kind.POISONING),
    ("ma mare sabai lai sajilo huncha, goli jamma gareko chu", Kind.SUICIDE),
    ("हजुरआमाको मुख एकातिर लत्रियो, चम्चा समात्न सक्नुहुन्न", Kind.STROKE),
]


@pytest.mark.parametrize(("text", "kind"), HARD)
def test_what_no_rule_has_is_found_and_named(text: str, kind: Kind) -> None:
    found = said(text)
    assert found.is_emergency
    assert kind in found.kinds
    assert found.notice


def test_an_alarm_says_that_it_is_the_classifiers() -> None:
    alone = [said(text) for text, _ in HARD if not rules_alone(text)]
    assert alone
    assert all(each.rules == (NAME,) for each in alone)
    assert said("I have crushing chest pain and my left arm is numb").rules[-1] == NAME


@pytest.mark.parametrize(
    "text",
    ["could you send the lab report please", "dandruff again, which shampoo", "Thanks, doctor!", "yes", "no", "", "...",
     "I'd like to change my address", "bholi appointment milcha?", "रिपोर्ट कहिले आउँछ",
     "I met my cousin at the station and then we walked to the temple",
     "didi bazar gayera tarkari kinera aunu bhayo", "what are the symptoms of asthma?"],
)  # fmt: skip
def test_everyday_messages_raise_no_alarm(text: str) -> None:
    assert not said(text).is_emergency


def test_what_a_rule_takes_for_an_emergency_is_looked_at_again() -> None:
    text = "naati ko janmadin ma pant ko belt kasiyera chhati sammai tight bhayo haha, diet plan pathaidinus"
    assert rules_alone(text)
    assert not said(text).is_emergency


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I cut my wrists", Kind.SELF_HARM),
        ("aafno hat kateko chu", Kind.SELF_HARM),
        ("well the thing about this whole long week with the report and the trains is I want to end my life",
         Kind.SUICIDE),
    ],
)  # fmt: skip
def test_plain_words_and_a_wish_to_die_are_not_taken_back(text: str, kind: Kind) -> None:
    assert rules_alone(text)
    assert kind in said(text).kinds


def test_a_wish_to_die_is_taken_back_by_a_score_far_below_alone() -> None:
    rules = {"suicide-said": Kind.SUICIDE, "seizure": Kind.SEIZURE}
    assert overruled(rules, score=0.0, seconding=0.0, words=20) == frozenset()
    assert overruled(rules, score=-0.1, seconding=0.0, words=20) == {"seizure"}
    assert overruled(rules, score=-CRISIS_SECONDED - 0.1, seconding=0.0, words=20) == set(rules)
    assert overruled(rules, score=-9.0, seconding=0.0, words=3) == frozenset()


def test_what_is_certain_is_never_taken_back() -> None:
    """A rule that never took other words for its own, whatever the classifier makes of them."""
    rules = {"after-birth": Kind.PREGNANCY, "pregnant-danger": Kind.PREGNANCY}
    assert overruled(rules, score=-9.0, seconding=0.0, words=20) == {"pregnant-danger"}


def test_what_is_told_beside_earlier_messages_isnt_taken_back() -> None:
    """The classifier reads the newest message alone: of a "yes" it knows nothing."""
    ask = {"role": "assistant", "content": "Are you thinking of killing yourself?"}
    found = assess([{"role": "user", "content": "hello"}, ask, {"role": "user", "content": "yes"}])
    assert found.kinds == (Kind.SUICIDE,)
    assert NAME not in found.rules


def test_both_scripts_of_nepali_have_nearly_the_same_features() -> None:
    one, other = (whole(seen_in(text)) for text in ("छाती दुखेको छ", "chhati dukheko chha"))
    assert np.array_equal(one[Group.LETTERS], other[Group.LETTERS])
    assert np.array_equal(one[Group.CONCEPTS], other[Group.CONCEPTS])


def test_a_long_message_is_looked_at_by_stretches() -> None:
    chatter = "Please send me the report of my thyroid test, and is there a free appointment on Monday morning? " * 12
    text = f"{chatter} {HARD[1][0]}. {chatter}"
    assert said(text).is_emergency
    assert not said(chatter).is_emergency
    assert 1 < len(list(windows(seen_in(text)))) < 4 * len(text.split()) / WINDOW + 2


def test_one_message_takes_little_time_and_a_very_long_one_is_bounded() -> None:
    seen = seen_in(HARD[0][0])
    classifier().opinion(seen)
    begun = time.thread_time()
    for _ in range(100):
        classifier().opinion(seen)
    assert time.thread_time() - begun < 1.0, "a hundred messages"
    long = seen_in("my chest hurts so badly, " * 2000)
    begun = time.thread_time()
    classifier().opinion(long)
    assert time.thread_time() - begun < 1.0


def test_the_classifiers_kinds_stand_beside_the_rules() -> None:
    found = said("8 mahina ko pregnant bahini lai kampan aayo, aankha palteko")
    assert {Kind.SEIZURE, Kind.PREGNANCY} <= set(found.kinds)


def test_where_no_kind_stands_out_the_notice_says_what_holds_for_any() -> None:
    for language in ("en", "ne", "ne-Latn"):
        assert len(notice((Kind.OTHER,), language=language, country="NP").splitlines()) == 2  # type: ignore[arg-type]


def test_weights_that_arent_ours_are_refused_in_words() -> None:
    with pytest.raises(WeightsError, match="can't be read"):
        Weights.read(io.BytesIO(b"nothing"))
    stream = io.BytesIO()
    np.savez(stream, row_words=np.array([{}], dtype=object))
    stream.seek(0)
    with pytest.raises(WeightsError, match="can't be read"):
        Weights.read(stream)


def test_a_word_that_floats_have_a_name_for_is_a_word() -> None:
    """Grandmothers are no numbers: "nan" is one for Python."""
    (sentence,) = seen_in("nan inf infinity 12")
    assert [word.number for word in sentence.words] == [None, None, None, 12]


def test_thresholds_are_set_for_what_is_decided() -> None:
    """Else the estimate would be of another decision: few words and a wish to die are never taken back."""
    shipped = classifier()
    messages = read(SETS, ("development",))
    texts = [
        row["messages"][0]["content"]
        for row in map(json.loads, (SETS / "development.jsonl").read_text(encoding="utf-8").splitlines())
        if len(row["messages"]) == 1
    ]
    whole_ones = [shipped.opinion(seen_in(text)).score for text in texts]
    best = [
        max([score, *(shipped.opinion([each]).score for each in sentences_with_rules(text))])
        for text, score in zip(texts, whole_ones, strict=True)
    ]
    decided = [said(text).is_emergency for text in texts]
    scores = Scored(np.array(whole_ones), np.array(best))
    assert alarms(messages, scores, shipped.weights.threshold).tolist() == decided


def test_a_sentence_that_says_enough_isnt_thinned_out_by_others() -> None:
    text = "I had a heart attack in 2015, and a stent was put in. Now my chest is tight"
    assert Kind.HEART in said(text).kinds


@pytest.mark.timeout(300)
def test_training_again_gives_the_same_decisions() -> None:
    """What is shipped is what the sets teach, but for roundings; a change of the list needs it learned anew."""
    shipped = classifier()
    messages = read(SETS, (*AUTHORS, *BESIDE, *AFTER))
    again = type(shipped)(trained(messages, shipped.weights.threshold))
    texts = [
        row["messages"][0]["content"]
        for name in (*AUTHORS, *BESIDE, *AFTER)
        for row in map(json.loads, (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        if len(row["messages"]) == 1
    ][::7]
    found = [(shipped.opinion(seen), again.opinion(seen)) for seen in map(seen_in, texts)]
    near = [abs(one.score - other.score) < 0.1 for one, other in found]
    assert all(near)
    least = shipped.weights.threshold
    assert sum((one.score >= least) != (other.score >= least) for one, other in found) <= len(found) // 200
