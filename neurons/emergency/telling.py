"""What is told in a sentence, and how: now, or denied, long ago, asked, supposed or made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neurons.emergency.lexicon import MARKERS, Lexicon, Node, Rule
from neurons.emergency.words import Sentence

_SKIPPED: Final = 2
"""Words without weight that may stand in the middle of a phrase."""
_REACH: Final = 5
"""Words before or after a concept from which a negation reaches it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A concept in a sentence: the words from `start` to `end`, and how it is told."""

    concept: str
    start: int
    end: int
    is_denied: bool = False
    is_past: bool = False
    is_asked: bool = False
    is_fiction: bool = False

    def counts(self, rule: Rule) -> bool:
        """Tell whether it is so now, for a rule."""
        if (self.is_denied and not rule.firm) or self.is_past or self.is_fiction:
            return False
        return rule.always or not self.is_asked


def told_in(sentence: Sentence, *, lexicon: Lexicon) -> tuple[Told, ...]:
    """Return the concepts of a sentence in the order of their beginnings."""
    known = [lexicon.known(word) for word in sentence]
    spans = [span for start in range(len(sentence)) for span in _phrases(sentence, known, start, lexicon.root)]
    masked = {place for name, start, end in spans if name == "idiom" for place in range(start, end)}
    spans = [span for span in spans if span[0] == "idiom" or not masked.intersection(range(span[1], span[2]))]
    markers = {name: [(start, end) for found, start, end in spans if found == name] for name in MARKERS}
    meant = {
        place
        for name, start, end in spans
        if name not in MARKERS or name == "no_negation"
        for place in range(start, end)
    }
    negations = [(start, end) for start, end in markers["negation"] if start not in meant]
    after = [(start, end) for start, end in markers["negation_after"] if start not in meant]
    # "I don't know how many" asks nothing.
    unknown = {end for _, end in markers["unknown"]}
    questions = [span for span in markers["asking"] if span[0] not in unknown]
    asked = (bool(questions) and not markers["own_now"]) or bool(markers["supposing"])
    found = []
    for name, start, end in sorted(spans, key=lambda span: (span[1], span[2], span[0])):
        if name in MARKERS and name not in _USABLE:
            continue
        denied = any(_reaches(sentence, negation[1], start, negation[0]) for negation in negations) or any(
            _follows(sentence, end, place[0]) for place in after
        )
        clause = _clause(sentence, start, end)
        is_now = any(clause[0] <= place[0] < clause[1] for place in markers["now"])
        past = (bool(markers["past"]) and not is_now) or (bool(markers["resolved"]) and not is_now)
        found.append(
            Told(name, start, end, is_denied=denied, is_past=past, is_asked=asked, is_fiction=bool(markers["fiction"]))
        )
    return tuple(found)


_USABLE: Final = frozenset({"now"})


def _phrases(sentence: Sentence, known: list[frozenset[str]], start: int, root: Node) -> list[tuple[str, int, int]]:
    """Return the longest phrase of each concept that begins at a word."""
    longest: dict[str, int] = {}
    stack = [(root, start, 0)]
    while stack:
        node, place, skipped = stack.pop()
        for concept in node.concepts:
            longest[concept] = max(longest.get(concept, 0), place)
        if place >= len(sentence) or not node.next:
            continue
        for spelling in known[place]:
            if (following := node.next.get(spelling)) is not None:
                stack.append((following, place + 1, skipped))
        if node is not root and skipped < _SKIPPED and _is_filler(known[place], root):
            stack.append((node, place + 1, skipped + 1))
    return [(concept, start, end) for concept, end in longest.items()]


def _is_filler(known: frozenset[str], root: Node) -> bool:
    return any((node := root.next.get(word)) is not None and "filler" in node.concepts for word in known)


def _reaches(sentence: Sentence, end: int, start: int, begin: int) -> bool:
    """Tell whether a negation that ends at `end` reaches a concept at `start`: a comma stops it, but in a list."""
    if not end <= start:
        return False
    between = sentence[end:start]
    pauses = sum(word.is_pause for word in between)
    words = len(between) - pauses
    if pauses == 0:
        return words <= _REACH and not any(_STOPS.intersection(word.keys) for word in between)
    # "no fever, cough or chest pain": short things in a row, and "or" before the last.
    if between[0].is_pause or any((_STOPS | _VERBS).intersection(word.keys) for word in between):
        return False
    return words <= 4 * (pauses + 1) and any(_OR.intersection(word.keys) for word in sentence[end:])


_STOPS: Final = frozenset({"but", "though", "however", "because", "and", "since", "except", "~tar"})
_VERBS: Final = frozenset(
    ["i", "im", "ive", "my", "he", "she", "his", "her", "hes", "shes", "we", "they", "it", "is", "has", "have", "now"]
)
_OR: Final = frozenset({"or", "nor", "no"})


def _follows(sentence: Sentence, end: int, start: int) -> bool:
    """Tell whether a Nepali negation, which follows what it denies, denies what ends at `end`."""
    if start < end:
        return False
    between = sentence[end:start]
    return len(between) <= 4 and not any(word.is_pause or _STOPS.intersection(word.keys) for word in between)


def _clause(sentence: Sentence, start: int, end: int) -> tuple[int, int]:
    """Return the words around a concept up to a comma, "but" or "and"."""
    first, last = start, end
    while first > 0 and not (sentence[first - 1].is_pause or _STOPS.intersection(sentence[first - 1].keys)):
        first -= 1
    while last < len(sentence) and not (sentence[last].is_pause or _STOPS.intersection(sentence[last].keys)):
        last += 1
    return first, last
