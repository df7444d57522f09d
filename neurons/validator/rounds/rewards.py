"""What miners' scores come to: one total, its average over rounds, and the weights. Pure.

All is kept by hotkey and registration block: who gets another's UID, or registers anew, inherits nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from neurons.ledger.records import Miner
from neurons.validator.rounds.duplicates import Group

WHOLE: Final = 1_000_000
"""Weights are millionths."""
SHARPNESS: Final = 3
"""A weight is the score to this power: of two miners the better one earns far more, so that quality pays best, and one
good miner earns more than the same effort spread over two that are half as good."""


class Unpaid(StrEnum):
    """Why a miner gets no weight."""

    UNPROVEN = "UnprovenReceipts"
    """An answer's receipt didn't prove it."""
    OTHER_WEIGHTS = "OtherWeights"
    """Its answers didn't come from the weights that it announced."""
    SAME_OWNER = "SameOwner"
    """A better hotkey of its coldkey is paid."""
    WITHHELD = "Withheld"
    """Its coldkey is the subnet owner's: what it would get is withheld by the chain."""
    GONE = "Gone"
    """It isn't registered any more, or anew."""
    BELOW_TOP = "BelowTop"
    NO_SCORE = "NoScore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A miner's parts, 0 to 1; None: nobody knows."""

    correctness: float | None = None
    """Of its answers that could be graded, clarity and length taken in."""
    speed: float | None = None
    satisfaction: float | None = None
    participation: float | None = None


def usual(known: Iterable[Parts]) -> Parts:
    """Return the middle of what is known of speed, satisfaction and participation; None of what nobody has."""
    known = list(known)

    def middle(values: Iterable[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return statistics.median(there) if there else None

    return Parts(
        speed=middle(each.speed for each in known), satisfaction=middle(each.satisfaction for each in known),
        participation=middle(each.participation for each in known),
    )  # fmt: skip


def filled(parts: Parts, middle: Parts) -> Parts:
    """Return a miner's parts, with the middle of all miners' in the place of what isn't known of it.

    Were such a part left out, the others would stand for it, and correctness mostly for the middle of something lower:
    whom nobody could measure would earn more than whom everybody did.
    """
    return Parts(
        correctness=parts.correctness,
        speed=parts.speed if parts.speed is not None else middle.speed,
        satisfaction=parts.satisfaction if parts.satisfaction is not None else middle.satisfaction,
        participation=parts.participation if parts.participation is not None else middle.participation,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much each part counts, in percent."""

    correctness: int = 50
    speed: int = 20
    satisfaction: int = 20
    participation: int = 10


def total_of(parts: Parts, shares: Shares, *, answered: float | None) -> float | None:
    """Return a miner's score of a round, 0 to 1; None where nothing can be concluded.

    A part that isn't known of anybody counts neither way (`filled`). The others count only as far as the answers are
    right: to be quick or obliging earns nothing with wrong ones. `answered`: of the questions that somebody answered,
    the share that this miner did; None where nobody answered any, which says nothing of it.
    """
    if answered is None:
        return None
    if answered == 0:
        return 0.0  # it was asked, others answered, and it didn't: that was measured
    if parts.correctness is None:
        return None
    right = parts.correctness
    known = [
        (share, value * right)
        for share, value in (
            (shares.speed, parts.speed), (shares.satisfaction, parts.satisfaction),
            (shares.participation, parts.participation),
        )
        if value is not None
    ]  # fmt: skip
    known.append((shares.correctness, right))
    counted = sum(share for share, _ in known)
    if counted == 0:
        return None
    return answered * math.fsum(share * value for share, value in known) / counted


def moving(before: float | None, total: float | None, *, alpha: float) -> float | None:
    """Return a miner's average over rounds, the newest counting `alpha`. Who is new begins at 0.

    A round that concluded nothing of it leaves it as it was.
    """
    if total is None:
        return before
    return alpha * total + (1 - alpha) * (before or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A neuron as the metagraph had it."""

    miner: Miner
    uid: int
    coldkey: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What a miner gets."""

    weight: int
    """Millionths."""
    unpaid: Unpaid | None = None
    shared_with: int = 0
    """Miners that say the same and share one reward with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """All weights. Together WHOLE, or nothing at all."""

    of: Mapping[Miner, Reward]
    burned: Mapping[Miner, int] = field(default_factory=dict)
    """Weights of hotkeys whose emission the chain withholds."""
    lost_percent: int = 0
    """Of the emission that the subnet gets, so much is lost by what is burned."""
    note: str = ""
    """What was asked for and couldn't be done."""

    @property
    def weights(self) -> dict[Miner, int]:
        """Return every weight above 0."""
        paid = {miner: each.weight for miner, each in self.of.items() if each.weight}
        return {**paid, **{miner: weight for miner, weight in self.burned.items() if weight}}


def reward(
    scores: Mapping[Miner, float],
    entrants: Sequence[Entrant],
    *,
    top: int,
    owner_coldkey: str,
    disqualified: Mapping[Miner, Unpaid] | None = None,
    groups: Collection[Group] = (),
    burn_percent: int = 0,
) -> Rewards:
    """Return the weights by the miners' averages (0 to 1) among who is registered now."""
    coldkeys = {each.miner: each.coldkey for each in entrants}
    unpaid = _unfit(scores, coldkeys, disqualified or {}, owner_coldkey)
    best, seconds = _one_an_owner([miner for miner in scores if miner not in unpaid], scores, coldkeys)
    unpaid |= dict.fromkeys(seconds, Unpaid.SAME_OWNER) | dict.fromkeys(best[top:], Unpaid.BELOW_TOP)
    worths, shared = _shared({miner: scores[miner] ** SHARPNESS for miner in best[:top]}, groups)
    burned, note = _burned(entrants, owner_coldkey, burn_percent)
    left = WHOLE - sum(burned.values())
    weights = apportion(worths, left)
    if not weights:
        burned = {}
    return Rewards(
        of={
            miner: Reward(weight=weights.get(miner, 0), unpaid=unpaid.get(miner), shared_with=shared.get(miner, 0))
            for miner in sorted(scores, key=_key)
        },
        burned=burned,
        lost_percent=burn_percent if burned else 0,
        note=note if weights else "nobody has a score above zero: no weights",
    )


def _unfit(
    scores: Mapping[Miner, float],
    coldkeys: Mapping[Miner, str],
    disqualified: Mapping[Miner, Unpaid],
    owner_coldkey: str,
) -> dict[Miner, Unpaid]:
    """Return who gets nothing whatever the others have."""
    found: dict[Miner, Unpaid] = {}
    for miner, score in scores.items():
        if miner not in coldkeys:
            found[miner] = Unpaid.GONE
        elif miner in disqualified:
            found[miner] = disqualified[miner]
        elif coldkeys[miner] == owner_coldkey:
            found[miner] = Unpaid.WITHHELD
        elif score <= 0:
            found[miner] = Unpaid.NO_SCORE
    return found


def _one_an_owner(
    miners: Sequence[Miner], scores: Mapping[Miner, float], coldkeys: Mapping[Miner, str]
) -> tuple[list[Miner], list[Miner]]:
    """Return each coldkey's best miner, the best first, and all the others."""
    owners: set[str] = set()
    best: list[Miner] = []
    others: list[Miner] = []
    for miner in sorted(miners, key=lambda each: _rank(each, scores)):
        (others if coldkeys[miner] in owners else best).append(miner)
        owners.add(coldkeys[miner])
    return best, others


def _shared(worths: Mapping[Miner, float], groups: Collection[Group]) -> tuple[dict[Miner, float], dict[Miner, int]]:
    """Return what each is worth where those who say the same share one reward, and with how many each does."""
    found, shared = dict(worths), dict[Miner, int]()
    for group in groups:
        inside = {miner: first for miner, first in group.first.items() if miner in found}
        if len(inside) < 2:
            continue
        one = max(found[miner] for miner in inside)
        for miner, share in Group(inside).shares().items():
            found[miner], shared[miner] = one * share, len(inside) - 1
    return found, shared


def apportion(worths: Mapping[Miner, float], whole: int) -> dict[Miner, int]:
    """Return whole numbers in the proportion of `worths` that add up to `whole`, by the largest remainders."""
    ordered = sorted((miner for miner, worth in worths.items() if worth > 0), key=_key)
    total = math.fsum(worths[miner] for miner in ordered)
    if not ordered or total <= 0:
        return {}
    exact = {miner: whole * worths[miner] / total for miner in ordered}
    found = {miner: math.floor(value) for miner, value in exact.items()}
    left = whole - sum(found.values())
    for miner in sorted(ordered, key=lambda each: (found[each] - exact[each], _key(each)))[:left]:
        found[miner] += 1
    return found


def _burned(entrants: Sequence[Entrant], owner_coldkey: str, percent: int) -> tuple[dict[Miner, int], str]:
    """Return the weights of hotkeys of the owner's coldkey, evenly; nobody else's emission is withheld."""
    if not percent:
        return {}, ""
    withheld = sorted((each.miner for each in entrants if each.coldkey == owner_coldkey), key=_key)
    if not withheld:
        return (
            {},
            "nothing is burned: no hotkey of the subnet owner's coldkey is registered, and any other would be paid",
        )
    return apportion(dict.fromkeys(withheld, 1.0), WHOLE * percent // 100), ""


def _rank(miner: Miner, scores: Mapping[Miner, float]) -> tuple[float, int, str]:
    """Return by what miners are ordered: of equals, who is registered longer comes first."""
    return -scores[miner], miner.registered_block, miner.hotkey


def _key(miner: Miner) -> tuple[str, int]:
    return miner.hotkey, miner.registered_block
