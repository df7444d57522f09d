"""Which miners are asked: the better the likelier, now and then the least known, owners apart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from neurons.validator.gateway.standing import MinerId, Standings


class _Candidate(Protocol):
    @property
    def identity(self) -> MinerId: ...
    @property
    def coldkey(self) -> str: ...


C = TypeVar("C", bound=_Candidate)


def order(
    candidates: Sequence[C], standings: Standings, *, count: int, explore: float, now: float, rng: random.Random,
    whose: str = "",
) -> list[C]:  # fmt: skip
    """Return the candidates in the order in which they are to be asked, `count` of them at once.

    Drawn by weight, so that the second best are asked too; with the probability `explore` the last of the first
    `count` is the one that was asked least. Of miners with one owner only one is among the first, if there are others.
    Who rests comes last, and who has no room for a question of `whose` isn't there.
    """
    fit: list[C] = []
    resting: list[C] = []
    for candidate in candidates:
        standing = standings.get(candidate.identity)
        if standing.has_room(whose):
            (resting if standing.rests(now) else fit).append(candidate)
    # Drawing without replacement: the largest of u^(1/w).
    fit.sort(key=lambda each: rng.random() ** (1 / standings.get(each.identity).weight), reverse=True)
    fit = _owners_apart(fit)
    if len(fit) > count and rng.random() < explore:
        least = min(fit[count - 1 :], key=lambda each: standings.get(each.identity).asked)
        fit.remove(least)
        fit.insert(count - 1, least)
    resting.sort(key=lambda each: standings.get(each.identity).rests_until)
    return fit + resting


def _owners_apart(drawn: list[C]) -> list[C]:
    seen: set[str] = set()
    first: list[C] = []
    again: list[C] = []
    for candidate in drawn:
        (again if candidate.coldkey in seen else first).append(candidate)
        seen.add(candidate.coldkey)
    return first + again
