"""Condition WeightsSet, the newest round, and when the next one comes: what a validator says of its ValidatorRounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bettertherapy_api.validator import WeightsSet
from twin_operator.domain.objects import Round, Validator
from twin_operator.domain.pod_troubles import last_words
from twin_operator.domain.reasons import Reason, reason_of
from twin_operator.domain.schedule import next_time
from twin_operator.engine.conditions import Condition, Finding, truth
from twin_operator.kinds.validator.datasets import DatasetsFacts

CONDITION: Final = "WeightsSet"
_SET_ALREADY: Final = "SetThisEpoch"
"""As a round's Job says that weights were not set since another round had set them in the same epoch."""


@dataclass(frozen=True, kw_only=True)
class RoundsSeen:
    """What is observed of a validator's rounds."""

    rounds: tuple[Round, ...] = ()
    """Of this very validator, oldest first."""
    making: DatasetsFacts = field(default_factory=DatasetsFacts)
    """What became of the Jobs that make them."""
    next_at: datetime | None = None
    """When the next one is made; None: never, or the schedule means nothing."""

    @property
    def newest(self) -> Round | None:
        """The one that was made last."""
        return self.rounds[-1] if self.rounds else None

    @property
    def in_force(self) -> Round | None:
        """The newest whose weights are on the chain."""
        return next((each for each in reversed(self.rounds) if _state(each) == "Revealed"), None)


def next_round(validator: Validator, *, now: datetime) -> datetime | None:
    """Return when the schedule makes the next round."""
    rounds = validator.spec.rounds
    if rounds is None or rounds.suspend:
        return None
    return next_time(rounds.schedule, rounds.time_zone, after=now)


def too_many(validator: Validator, rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds of the schedule that are over, and more than the validator keeps; oldest first.

    The last one that is complete is not among them, however many failed since: what it named is known by it alone.
    """
    if validator.spec.rounds is None:
        return []
    over = [
        each for each in rounds
        if each.owner_uid == validator.uid and each.ended and _condition(each)[0] != "Unknown"
    ]  # fmt: skip
    last = next((each for each in reversed(over) if each.complete), None)
    return [each for each in over[: max(0, len(over) - validator.spec.rounds.history_limit)] if each is not last]


def weights_of(seen: RoundsSeen) -> WeightsSet | None:
    """Return the weights that are in force."""
    made = seen.in_force
    if made is None or (said := made.status.weights) is None:
        return None
    return WeightsSet(block=said.block, extrinsic=said.extrinsic, miners=said.miners, round=made.name)


def weights_set(validator: Validator, seen: RoundsSeen, *, refused: Finding | None) -> Condition:
    """Return the condition; `refused`: why the CronJob can't be as it should be."""
    rounds = validator.spec.rounds
    if rounds is not None and not rounds.suspend:
        found = refused or _not_made(seen) or _never(validator, seen)
        if found is not None:
            return found.followed_by(_so_far(seen)).condition(CONDITION, "False")
    elif rounds is not None:
        said = "spec.rounds.suspend is true: no new rounds are made"
        return Finding(Reason.ROUNDS_SUSPENDED, said + _so_far(seen)).condition(CONDITION, "False")
    last = next((each for each in reversed(seen.rounds) if each.ended), None)
    return _none_yet(validator, seen) if last is None else _of_round(last, seen)


def _of_round(made: Round, seen: RoundsSeen) -> Condition:
    """Return what the round says that ended last."""
    if (failure := made.status.failure) is not None:
        said = f"round {made.name} failed: {failure.failure_class}: {failure.message}"
        return Finding(Reason.ROUND_FAILED, said + _so_far(seen)).condition(CONDITION, "False")
    status, reason, message = _condition(made)
    already = made.status.weights is not None and made.status.weights.reason == _SET_ALREADY
    if (already or status == "Unknown") and seen.in_force is not None:
        said = f"round {made.name}: {message}{_so_far(seen)}"
        return Finding(Reason.WEIGHTS_REVEALED, said).condition(CONDITION, "True")
    known = reason_of(reason) or Reason.WEIGHTS_WAITING
    return Finding(known, f"round {made.name}: {message}").condition(CONDITION, truth(status))


def _none_yet(validator: Validator, seen: RoundsSeen) -> Condition:
    if validator.spec.rounds is None and seen.newest is None:
        said = (
            "spec.rounds is not set and no round was made by hand, so no miner is examined and no weights are set: the "
            "gateway works alone, and miners are ranked by what it sees of them"
        )
        return Finding(Reason.ROUNDS_OFF, said).condition(CONDITION, "False")
    newest = seen.newest
    said = f"round {newest.name} is not over yet" if newest is not None else "no round has been held yet"
    return Finding(Reason.ROUND_AWAITED, said).condition(CONDITION, "Unknown")


def _never(validator: Validator, seen: RoundsSeen) -> Finding | None:
    rounds = validator.spec.rounds
    if rounds is None or seen.next_at is not None:
        return None
    said = (
        f"spec.rounds.schedule {rounds.schedule!r} in time zone {rounds.time_zone!r} never comes: write a cron "
        "expression with five fields, and an IANA name such as Asia/Kathmandu"
    )
    return Finding(Reason.SCHEDULE_INVALID, said)


def _not_made(seen: RoundsSeen) -> Finding | None:
    """Return why the newest Job that was to make a round failed."""
    over = [each for each in seen.making.attempts if each.ended is not None]
    if not over or over[-1].ended == "Complete":
        return None
    last = over[-1]
    words = next((last_words(crash.message) for pod in last.pods for crash in pod.crashes), "")
    return Finding(Reason.ROUND_NOT_CREATED, f"Job {last.name} failed: {words or last.why}")


def _so_far(seen: RoundsSeen) -> str:
    made = seen.in_force
    if made is None or made.status.weights is None:
        return ""
    return f"; those of round {made.name} are in force, from block {made.status.weights.block}"


def _state(made: Round) -> str | None:
    return made.status.weights.state if made.status.weights is not None else None


def _condition(made: Round) -> tuple[str, str, str]:
    """Return status, reason and message of WeightsSubmitted, as the round says it last."""
    for each in made.status.conditions or []:
        if each.type == "WeightsSubmitted":
            return each.status, each.reason, each.message
    return ("False", Reason.WEIGHTS_NOT_ASKED.value, "it says nothing of weights")
