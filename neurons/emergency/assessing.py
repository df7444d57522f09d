"""Assess a conversation: what its newest message tells, by itself or with what was told before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from neurons.conversation import text_of
from neurons.emergency.classifier import NAME, classifier
from neurons.emergency.features import Seen
from neurons.emergency.kinds import Assessment, Kind
from neurons.emergency.lexicon import Combination, Lexicon, lexicon
from neurons.emergency.notices import language_of, notice
from neurons.emergency.telling import Told, told_in
from neurons.emergency.words import MAX_CHARACTERS, NOT_DONE, Sentence, sentences

REMEMBERED: Final = 5
"""So many messages of the patient's before the newest are looked at beside it."""
MOST_IN_A_ROW: Final = 4 * MAX_CHARACTERS
"""Characters of messages that the patient sent in a row, of which so many are looked at."""
_NEAR: Final = 14
"""Words between two concepts of one sentence, at most."""
_ORDER: Final = tuple(Kind)
_FEW_WORDS: Final = 6
"""In so few the classifier finds too little to overrule a rule by, and a patient says plainly what is wrong."""
_CRISES: Final = frozenset({Kind.SUICIDE, Kind.SELF_HARM})
CRISIS_SECONDED: Final = 1.5
"""A wish to die is taken back only by a score that is less by so much more: an alarm too many shows a helpline's
number, one too few is the last that was asked."""

PLAIN: Final = 2.0
"""A sentence says enough whose score by itself is so much more than the threshold, whatever else is told: "I had a
heart attack in 2015. Now my chest is tight". With all sentences' scores 2 in 100 more were missed across authors."""


def assess(messages: Sequence[Mapping[str, Any]], *, country: str | None = None) -> Assessment:
    """Assess what a patient says now, in the light of what was said before.

    `messages` is a conversation as OpenAI's API has it, the newest last; only what the user says counts, and the
    assistant's question before a "yes". `country` is an ISO 3166 code in two letters, for the numbers to call;
    without it, or where it isn't known, the notice names those of several countries.
    """
    known = lexicon()
    said = [(message.get("role"), text_of(dict(message))) for message in messages]
    while said and said[-1][0] != "user":
        said.pop()
    newest = len(said)
    while newest > 0 and said[newest - 1][0] == "user":  # sent in a row, it is one
        newest -= 1
    told = list(_read(_lately([text for _, text in said[newest:]]), known))
    now = [*told]
    if newest > 0 and _affirms(now, known):
        now += _asked_by(said[newest - 1][1], known)
    elif newest > 0 and _denies(said[newest][1]):
        now += _undone_by(said[newest - 1][1], known)
    before = [text for role, text in said[:newest] if role == "user"][-REMEMBERED:]
    rules = _matched(now, list(_read(before, known)), known)
    language = language_of(text for _, text in said[newest:])
    second = classifier()
    opinion = second.opinion(told)
    alone = opinion.score >= second.weights.threshold
    kinds_of = {name: rule.kind for name, rule in rules.items()}
    seconding, score = second.weights.seconding, opinion.score
    if kinds_of and score < seconding:
        best = max((second.opinion([read]).score for read in told if _matched([read], (), known)), default=score)
        score = best if best >= second.weights.threshold + PLAIN else score
    gone = overruled(kinds_of, score=score, seconding=seconding, words=words_in(told))
    if gone:
        # What only matches beside earlier messages or by a "yes" is none of the classifier's, which reads the newest.
        gone &= _matched(told, (), known).keys()
        rules = {name: rule for name, rule in rules.items() if name not in gone}
    if not rules and not alone:
        return Assessment(language=language)
    # A rule knows one sign, the classifier all words: a pregnant woman's fit is both.
    told_of = {rule.kind for rule in rules.values()} | (set(opinion.kinds) - {Kind.OTHER})
    kinds = tuple(kind for kind in _ORDER if kind in told_of) or (Kind.OTHER,)
    names = (*sorted(rules), *((NAME,) if alone else ()))
    return Assessment(kinds, names, language, notice(kinds, language=language, country=country))


def overruled(rules: Mapping[str, Kind], *, score: float, seconding: float, words: int) -> frozenset[str]:
    """Return which of the rules that match a message of so many words by itself the classifier's score takes back.

    `score`: the message's, or that of a sentence in which a rule matches, if it is PLAIN.
    Training asks it too: thresholds are set for what is decided here.
    """
    if score >= seconding or words <= _FEW_WORDS:
        return frozenset()
    certain, is_far = lexicon().certain, score < seconding - CRISIS_SECONDED
    return frozenset(name for name, kind in rules.items() if name not in certain and (is_far or kind not in _CRISES))


def rules_alone(text: str) -> dict[str, Kind]:
    """Return the rules that match a message by itself, whatever the classifier says: ids, and what they tell of."""
    known = lexicon()
    return {name: rule.kind for name, rule in _matched(list(_read((text,), known)), (), known).items()}


def sentences_with_rules(text: str) -> list[Seen]:
    """Return the sentences of a message in which a rule matches."""
    known = lexicon()
    return [read for read in _read((text,), known) if _matched([read], (), known)]


def seen_in(text: str) -> list[Seen]:
    """Return a message as the classifier reads it."""
    return list(_read((text,), lexicon()))


def words_in(seen: Iterable[Seen]) -> int:
    """Return how many words a message has as `overruled` counts them: pauses are none."""
    return sum(not word.is_pause for sentence in seen for word in sentence.words)


def _lately(texts: Sequence[str]) -> Sequence[str]:
    """Return what was sent in a row, of very much the newest: nobody else is answered while it is read."""
    left, first = MOST_IN_A_ROW, len(texts)
    while first > 0 and left > 0:
        first -= 1
        left -= 1 + min(len(texts[first]), 2 * MAX_CHARACTERS)
    return texts[first:]


@dataclass(frozen=True, slots=True)
class _Read(Seen):
    """A sentence, and what is told in it."""

    by_concept: Mapping[str, Sequence[Told]]

    @classmethod
    def of(cls, words: Sentence, told: tuple[Told, ...], *, is_question: bool = False) -> _Read:
        by_concept: dict[str, list[Told]] = {}
        for each in told:
            by_concept.setdefault(each.concept, []).append(each)
        return cls(words, told, is_question, by_concept)


def _read(texts: Any, known: Lexicon) -> Iterator[_Read]:
    for text in texts:
        for words, is_question in sentences(text):
            yield _Read.of(words, told_in(words, lexicon=known), is_question=is_question)


def _affirms(now: Sequence[_Read], known: Lexicon) -> bool:
    """Tell whether the newest message begins with a "yes"."""
    return bool(now) and any(told.concept == "yes" and told.start == 0 for told in now[0].told)


_NO: Final = re.compile(r"\s*(?:no|nope|nah|not really|cant|can't|cannot|hoina|chaina|sakdaina)\b", re.IGNORECASE)
_CAN: Final = re.compile(
    r"\b(?:(?:is|are) (?P<able>you|he|she|it|they|(?:your|the) \w+) able to|(?P<verb>can|could|is|are|does|do) "
    r"(?P<who>you|he|she|it|they|(?:your|the) \w+))\b(?P<what>[^?]*)[?]",
    re.IGNORECASE,
)
_NOT: Final = {"can": "cant", "could": "cant", "is": "isnt", "are": "arent", "does": "doesnt", "do": "dont"}


def _denies(text: str) -> bool:
    """Tell whether a message begins with a "no"."""
    return _NO.match(text) is not None


def _undone_by(text: str, known: Lexicon) -> list[_Read]:
    """Return what the assistant asked for and the patient said no to, where its not being done is itself the sign."""
    return [
        _Read.of(read.words, tuple(each for each in read.told if _is_undone(read.words[each.start : each.end])))
        for read in _read((_undone(text),), known)
    ]


def _is_undone(words: Sentence) -> bool:
    return any(NOT_DONE in word.keys for word in words)


def _undone(text: str) -> str:
    """Return the questions of a text that ask what somebody can or does as a "no" answers them: "he can't speak"."""
    return ". ".join(
        f"{each['able'] or each['who']} {'cant' if each['able'] else _NOT[each['verb'].lower()]}{each['what']}"
        for each in _CAN.finditer(text[:MAX_CHARACTERS])
    )


def _asked_by(text: str, known: Lexicon) -> list[_Read]:
    """Return the assistant's questions as what the patient said yes to."""
    found = []
    for words, is_question in sentences(text):
        if is_question:
            told = tuple(Told(each.concept, each.start, each.end) for each in told_in(words, lexicon=known))
            found.append(_Read.of(words, told))
    return found


def _matched(now: Sequence[_Read], before: Sequence[_Read], known: Lexicon) -> dict[str, Any]:
    """Return the rules that match, by id."""
    matched: dict[str, Any] = {}
    told_now = {concept for read in now for concept in read.by_concept}
    told = told_now | {concept for read in before for concept in read.by_concept}
    for concept in told:
        for combination in known.combinations.get(concept, ()):
            rule = combination.rule
            if rule.id in matched or not told.issuperset(combination.concepts):
                continue
            if told_now.isdisjoint(combination.concepts):
                continue
            if any(_in_sentence(read, combination) for read in now) or (
                rule.scope == "talk" and _in_talk(now, before, combination)
            ):
                matched[rule.id] = rule
    return matched


def _in_sentence(read: _Read, combination: Combination) -> bool:
    """Tell whether the concepts are told near one another in one sentence, each by words of its own."""
    rule = combination.rule
    places = []
    for concept in combination.concepts:
        live = [each for each in read.by_concept.get(concept, ()) if each.counts(rule)]
        if not live:
            return False
        places.append(live)
    if any(concept in read.by_concept for concept in rule.unless):
        return False
    if len(places) == 1:
        return True
    return any(_near(first, rest) for first in places[0] for rest in [places[1:]])


def _near(first: Told, rest: Sequence[Sequence[Told]]) -> bool:
    taken = [first]
    for places in rest:
        fitting = next(
            (
                each
                for each in places
                if all(not (each.start < other.end and other.start < each.end) for other in taken)
                and any(min(abs(each.start - other.end), abs(other.start - each.end)) <= _NEAR for other in taken)
            ),
            None,
        )
        if fitting is None:
            return False
        taken.append(fitting)
    return True


def _in_talk(now: Sequence[_Read], before: Sequence[_Read], combination: Combination) -> bool:
    rule = combination.rule

    def live(reads: Sequence[_Read]) -> set[str]:
        return {
            each.concept
            for read in reads
            if not any(concept in read.by_concept for concept in rule.unless)
            for each in read.told
            if each.counts(rule)
        }

    newest = live(now)
    return not newest.isdisjoint(combination.concepts) and (newest | live(before)).issuperset(combination.concepts)
