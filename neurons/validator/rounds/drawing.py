"""Which questions a round asks, in which order and when: by its seed alone, so that anybody can draw them again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from neurons.validator.rounds.challenges import Challenge

REPLAY_SHARE: Final = 0.5
"""Of a twin's questions, as many as there are to be replayed, and no more."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sending:
    """When an item is sent, in seconds from the first."""

    place: int
    at: float


def unit(*parts: object) -> float:
    """Return a number from 0 to 1, without 1, that follows from the parts."""
    said = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:7]) / 2**56


def shuffled(things: Iterable[T], *parts: object, key: str = "") -> list[T]:
    """Return things in an order that follows from the parts and from what each is called (by its field `key`)."""
    return sorted(things, key=lambda thing: (unit(*parts, getattr(thing, key) if key else thing), str(thing)))


def draw_challenges(
    challenges: Sequence[Challenge], *, seed: int, twin: str, count: int, lately: frozenset[str] = frozenset()
) -> list[Challenge]:
    """Return `count` of the questions for a twin's miners, as even over the topics as can be.

    `lately`: ids of those that were asked not long ago; they come last.
    """
    fit = [each for each in challenges if not each.twins or twin in each.twins]
    by_topic: dict[str, list[Challenge]] = {}
    for each in shuffled(fit, seed, twin, "challenge", key="id"):
        by_topic.setdefault(each.topic, []).append(each)
    for drawn in by_topic.values():
        drawn.sort(key=lambda each: each.id in lately)
    topics = shuffled(by_topic, seed, twin, "topic")
    found: list[Challenge] = []
    for turn in range(max((len(each) for each in by_topic.values()), default=0)):
        found += [by_topic[topic][turn] for topic in topics if turn < len(by_topic[topic])]
    found.sort(key=lambda each: each.id in lately)
    return found[:count]


def replays_of(count: int, available: int) -> int:
    """Return how many of a twin's `count` questions are replayed."""
    return min(available, math.floor(count * REPLAY_SHARE))


def draw_times(count: int, *, seed: int, twin: str, seconds: float) -> list[Sending]:
    """Return when each of a twin's items is sent, earliest first: a Poisson process, as patients come.

    Every item has the same chance of every place, whatever its kind: neither order nor gap says anything of it.
    """
    order = shuffled(range(count), seed, twin, "order")
    gaps = [-math.log(1 - unit(seed, twin, "gap", number)) for number in range(count + 1)]
    scale = seconds / sum(gaps) if count and sum(gaps) > 0 else 0.0
    at, sendings = 0.0, []
    for number, place in enumerate(order):
        at += gaps[number] * scale
        sendings.append(Sending(place=place, at=at))
    return sendings
