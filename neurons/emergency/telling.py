"""What is told in a sentence, and how: now, or denied, long ago, asked, supposed or made up."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from neurons.emergency.lexicon import MARKERS, Known, Lexicon, Rule, is_open
from neurons.emergency.words import Sentence

_SKIPPED: Final = 2
"""Words without weight that may stand in the middle of a phrase."""
_REACH: Final = 5
"""Words before or after a concept from which a negation reaches it."""
_NEGATIONS: Final = 8
"""Of one sentence, so many before or after a concept may reach it."""


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
    found_spans = [span for start, word in enumerate(known) if word.begins for span in _phrases(known, start)]
    open_at = {span[:3]: span[3] for span in found_spans}
    spans = [span[:3] for span in found_spans]
    masked = {place for name, start, end in spans if name == "idiom" for place in range(start, end)}
    if masked:
        spans = [span for span in spans if span[0] == "idiom" or not masked.intersection(range(span[1], span[2]))]
    markers: dict[str, list[tuple[int, int]]] = {name: [] for name in MARKERS}
    meant: set[int] = set()
    for name, start, end in spans:
        if name in MARKERS:
            markers[name].append((start, end))
    # "dukhdaina" is known by its beginning, "dukh*": its ending says that nothing hurts.
    denying = {start for start, end in markers["negation_after"] if end == start + 1}
    for name, start, end in spans:
        if name not in MARKERS or name == "no_negation":
            # "behos bhayena": what it ends is denied, and what else is known of its beginning.
            meant.update(place for place in range(start, end) if place == start or place != open_at[name, start, end])
    negations = sorted({end for start, end in markers["negation"] if start not in meant})
    after = sorted({start for start, _ in markers["negation_after"] if start not in meant})
    # "I don't know how many" asks nothing.
    unknown = {end for _, end in markers["unknown"]}
    questions = [span for span in markers["asking"] if span[0] not in unknown]
    asked = (bool(questions) and not markers["own_now"]) or bool(markers["supposing"])
    was = bool(markers["past"]) or bool(markers["resolved"])
    layout = _Layout(sentence) if negations or after or (was and markers["now"]) else None
    found = []
    for name, start, end in sorted(spans, key=lambda span: (span[1], span[2], span[0])):
        if name in MARKERS and name not in _USABLE:
            continue
        denied, past = open_at[name, start, end] in denying, was
        if layout is not None:
            # The nearest ones alone: else a message of nothing but negations would be looked at for seconds.
            before, behind = bisect_right(negations, start), bisect_left(after, end)
            denied = (
                denied
                or any(layout.reaches(place, start) for place in negations[max(0, before - _NEGATIONS) : before])
                or any(layout.follows(end, place) for place in after[behind : behind + _NEGATIONS])
            )
            if was and markers["now"]:
                first, last = layout.clause(start, end)
                past = not any(first <= place[0] < last for place in markers["now"])
        found.append(
            Told(name, start, end, is_denied=denied, is_past=past, is_asked=asked, is_fiction=bool(markers["fiction"]))
        )
    return tuple(found)


_USABLE: Final = frozenset({"now"})


def _phrases(known: Sequence[Known], start: int) -> list[tuple[str, int, int, int]]:
    """Return the longest phrase of each concept that begins at a word.

    Its last number is where the phrase's last word stands, if that is known by a beginning alone, which leaves open
    how the word ends; else -1.
    """
    longest: dict[str, tuple[int, int]] = {}
    end = len(known)
    stack = [(node, start + 1, 0, start if left_open else -1) for node, left_open in known[start].begins]
    while stack:
        node, place, skipped, open_at = stack.pop()
        for concept in node.concepts:
            last = longest.get(concept)
            if last is None or last[0] < place or (last[0] == place and open_at < 0):
                longest[concept] = place, open_at
        following = node.next
        if place == end or not following:
            continue
        word = known[place]
        for spelling in word.words:
            if (after := following.get(spelling)) is not None:
                stack.append((after, place + 1, skipped, place if is_open(spelling) else -1))
        if skipped < _SKIPPED and word.is_filler:
            stack.append((node, place + 1, skipped + 1, open_at))
    return [(concept, start, place, open_at) for concept, (place, open_at) in longest.items()]


_STOPS: Final = frozenset({"but", "though", "however", "because", "and", "since", "except", "~tar"})
_VERBS: Final = frozenset(
    ["i", "im", "ive", "my", "he", "she", "his", "her", "hes", "shes", "we", "they", "it", "is", "has", "have", "now"]
)
_OR: Final = frozenset({"or", "nor", "no"})


class _Layout:
    """Where a sentence has its pauses and the words that end a clause.

    Counted once, so that each question takes the same time however long the sentence is: of thousands of words
    without a full stop any two would otherwise be looked at with all that stands between them.
    """

    def __init__(self, sentence: Sentence) -> None:
        # Each list has at place n what is true of the first n words.
        self._pauses, self._stops, self._verbs = [0], [0], [0]
        self._last_or = -1
        for place, word in enumerate(sentence):
            self._pauses.append(self._pauses[-1] + word.is_pause)
            self._stops.append(self._stops[-1] + (not _STOPS.isdisjoint(word.keys)))
            self._verbs.append(self._verbs[-1] + (not _VERBS.isdisjoint(word.keys)))
            if not _OR.isdisjoint(word.keys):
                self._last_or = place
        self._sentence = sentence
        self._begins: list[int] | None = None
        self._ends: list[int] = []

    def reaches(self, end: int, start: int) -> bool:
        """Tell whether a negation that ends at `end` reaches a concept at `start`: a comma stops it, but in a list."""
        if not end <= start:
            return False
        pauses = self._pauses[start] - self._pauses[end]
        words = start - end - pauses
        stops = self._stops[start] - self._stops[end]
        if pauses == 0:
            return words <= _REACH and not stops
        # "no fever, cough or chest pain": short things in a row, and "or" before the last.
        if self._sentence[end].is_pause or stops or self._verbs[start] - self._verbs[end]:
            return False
        return words <= 4 * (pauses + 1) and self._last_or >= end

    def follows(self, end: int, start: int) -> bool:
        """Tell whether a Nepali negation, which follows what it denies, denies what ends at `end`."""
        if start < end:
            return False
        between = self._pauses[start] - self._pauses[end] + self._stops[start] - self._stops[end]
        return start - end <= 4 and not between

    def clause(self, start: int, end: int) -> tuple[int, int]:
        """Return the words around a concept up to a comma, "but" or "and"."""
        if self._begins is None:
            self._begins = [0]
            for place in range(len(self._sentence)):
                self._begins.append(place + 1 if self._is_edge(place) else self._begins[place])
            last = len(self._sentence)
            ends = [last]
            for place in reversed(range(last)):
                ends.append(place if self._is_edge(place) else ends[-1])
            self._ends = ends[::-1]
        return self._begins[start], self._ends[end]

    def _is_edge(self, place: int) -> bool:
        return self._pauses[place + 1] > self._pauses[place] or self._stops[place + 1] > self._stops[place]
