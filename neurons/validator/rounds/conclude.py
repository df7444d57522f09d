"""A round's results out of what the ledger has of it: the same rows, the same digest. Pure.

`worth` is the score of one answer; what else is taken for granted stands in the round's steps. Nothing here looks at a
patient's words, so that a round's digest outlives the erasure of a patient.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger.records import Miner, RoundAnswer, RoundFinished, Score, derived_id
from neurons.ledger.rounds import RoundRows
from neurons.receipts import canonical, sha256
from neurons.validator.rounds.duplicates import Group, Said, groups_of
from neurons.validator.rounds.marks import CLARITY, CORRECTNESS, Marks, marks_of
from neurons.validator.rounds.rewards import (
    WHOLE,
    Entrant,
    Parts,
    Rewards,
    Shares,
    Unpaid,
    filled,
    moving,
    reward,
    total_of,
    usual,
)
from neurons.validator.rounds.steps import (
    Attendance,
    Registered,
    Step,
    Taken,
    key,
    milli,
    miner_of,
    of_milli,
    read_steps,
    step_record,
)

FORMAT: Final = "bettertherapy-round/2"
"""Another one where the same rows come to other results."""
SPEED, SATISFACTION, PARTICIPATION, TOTAL, MOVING = "speed", "satisfaction", "participation", "total", "moving"
QUORUM_PERCENT: Final = 50
"""Of the miners that answered anything, so many have to be scored for weights to be set."""
_NONE: Final = Marks()
"""Of who was asked nothing that could be graded."""
_ALSO: Final[Mapping[Unpaid, str]] = {
    Unpaid.UNPROVEN: "a receipt did not prove its answer: it earns nothing",
    Unpaid.OTHER_WEIGHTS: "its answers did not come from the weights that it announced: it earns nothing",
    Unpaid.SAME_OWNER: "a better hotkey of its coldkey is paid",
    Unpaid.WITHHELD: "its coldkey is the subnet owner's: the chain withholds what it would get",
    Unpaid.GONE: "it is not registered any more, or was registered anew",
    Unpaid.BELOW_TOP: "others are better, and only so many are paid",
    Unpaid.NO_SCORE: "no round has given it a score above zero",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one miner."""

    miner: Miner
    uid: int
    coldkey: str
    parts: Parts
    clarity: float | None
    attendance: Attendance
    total: float | None
    moving: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured of one miner."""

    marks: Marks
    parts: Parts
    middle: Parts
    """Of all miners that answered."""


@dataclass(frozen=True, slots=True)
class _Found:
    """All that was concluded."""

    outcomes: list[Outcome]
    rewards: Rewards
    groups: tuple[Group, ...]
    quorum: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """A round's results."""

    document: Mapping[str, Any]
    digest: str
    outcomes: tuple[Outcome, ...]
    """The best first."""
    rewards: Rewards
    quorum: Mapping[str, Any]

    @property
    def scored(self) -> int:
        """Miners whose answers of this round were scored."""
        return sum(each.total is not None and each.attendance.answered > 0 for each in self.outcomes)


def conclude(rows: RoundRows) -> Results:
    """Return the results. Raises KeyError where a step is missing."""
    taken = read_steps(rows.steps)
    order = RoundOrder.model_validate(taken.plan["order"])
    asked = {uid: [miner_of(word) for word in words] for uid, words in taken.plan["asked"].items()}
    marks = marks_of(rows.scores, asked)
    groups = groups_of(_texts(rows))
    before = Registered.of(taken.plan["registered"]).entrants
    known = {each.miner: each for each in (*before, *taken.registered.entrants)}
    concerned = _concerned(taken)
    parts = {miner: _parts(miner, taken, marks.get(miner, _NONE)) for miner in concerned}
    middle = usual(each for miner, each in parts.items() if _attendance(miner, taken).answered)
    outcomes = [
        _outcome(miner, known.get(miner), taken, order, _Measured(marks.get(miner, _NONE), parts[miner], middle))
        for miner in concerned
    ]
    disqualified = {each.miner: Unpaid.UNPROVEN for each in outcomes if each.attendance.unproven}
    disqualified |= dict.fromkeys(sorted(taken.others_weights, key=key), Unpaid.OTHER_WEIGHTS)
    quorum = _quorum(outcomes)
    spec = order.rewards
    rewards = reward(
        {each.miner: each.moving for each in outcomes if each.moving is not None},
        taken.registered.entrants,
        top=spec.top_miners if spec is not None else WHOLE,
        owner_coldkey=taken.registered.owner_coldkey,
        disqualified=disqualified,
        groups=groups,
        burn_percent=spec.burn_percent if spec is not None else 0,
    )
    outcomes = sorted(
        (_with_notes(each, taken, rewards) for each in outcomes),
        key=lambda each: (
            -(rewards.of[each.miner].weight if each.miner in rewards.of else 0), -(each.moving or 0.0),
            -(each.total or 0.0), key(each.miner),
        ),
    )  # fmt: skip
    document = _document(taken, order, _Found(outcomes, rewards, groups, quorum))
    return Results(document, sha256(canonical(document)), tuple(outcomes), rewards, quorum)


def records_of(results: Results, *, round_id: str, at_ms: int) -> list[Any]:
    """Return what the ledger keeps of results: each part of each miner, the document, and that the round ended."""
    records: list[Any] = []
    for each in results.outcomes:
        parts = {
            CORRECTNESS: each.parts.correctness, CLARITY: each.clarity, SPEED: each.parts.speed,
            SATISFACTION: each.parts.satisfaction, PARTICIPATION: each.parts.participation, TOTAL: each.total,
            MOVING: each.moving,
        }  # fmt: skip
        weight = results.rewards.of.get(each.miner)
        for part, value in parts.items():
            evidence: dict[str, Any] = {}
            if part == MOVING:
                evidence = {"notes": list(each.notes), "weight": weight.weight if weight is not None else 0}
            if part == TOTAL:
                evidence = {
                    "uid": each.uid, "asked": each.attendance.asked, "answered": each.attendance.answered,
                    "coldkey": each.coldkey,
                }  # fmt: skip
            records.append(
                Score(
                    score_id=derived_id("score", round_id, part, key(each.miner)), round_id=round_id,
                    miner=each.miner, part=part, value_milli=milli(value), at_ms=at_ms, evidence=evidence,
                )
            )  # fmt: skip
    records.append(step_record(round_id, Step.RESULTS, results.document, at_ms=at_ms))
    records.append(
        RoundFinished(
            round_id=round_id, results_digest=results.digest, at_ms=at_ms, weights=results.document["weights"]
        )
    )
    return records


def _texts(rows: RoundRows) -> list[dict[Miner, Said]]:
    """Return what was answered to the questions that are no patient's, by question in their order."""
    answers: defaultdict[str, list[RoundAnswer]] = defaultdict(list)
    for each in rows.answers:
        if each.patient_id is None and each.text is not None:
            answers[each.item_id].append(each)
    return [
        {each.miner: Said(each.text.text, each.latency_ms) for each in answers[item.item_id] if each.text is not None}
        for item in sorted(rows.items, key=lambda item: item.item_id)
        if item.patient_id is None
    ]


def _concerned(taken: Taken) -> list[Miner]:
    """Return who was asked, and who is registered still and has an average of earlier rounds."""
    registered = {each.miner for each in taken.registered.entrants}
    return sorted({*taken.attendance, *(miner for miner in taken.prior if miner in registered)}, key=key)


def _attendance(miner: Miner, taken: Taken) -> Attendance:
    return taken.attendance.get(miner, Attendance(0, 0, 0, 0))


def _was_away(miner: Miner, taken: Taken, order: RoundOrder) -> bool:
    """Tell whether a miner could not be asked, in a round that asked of all twins and got answers of others.

    It announced no twin to a validator that others announced theirs to: else it would earn by what it did long ago.
    """
    there = any(each.answered for each in taken.attendance.values())
    return order.twins is None and there and miner not in taken.attendance


def _parts(miner: Miner, taken: Taken, marks: Marks) -> Parts:
    return Parts(
        correctness=marks.correctness,
        speed=of_milli(taken.speed.get(miner)),
        satisfaction=of_milli(taken.satisfaction.get(miner)),
        participation=of_milli(taken.participation.get(miner)),
    )


def _outcome(miner: Miner, known: Entrant | None, taken: Taken, order: RoundOrder, measured: _Measured) -> Outcome:
    attendance, away = _attendance(miner, taken), _was_away(miner, taken, order)
    marks, parts = measured.marks, measured.parts
    weights = order.scoring.weights_percent
    shares = Shares(
        correctness=weights.correctness, speed=weights.speed, satisfaction=weights.satisfaction,
        participation=weights.participation,
    )  # fmt: skip
    # Of what nobody can grade, answers are cheap: they make up for none that is left out where it counts.
    answered = [share for share in (attendance.share, marks.answered) if share is not None]
    total = total_of(
        filled(parts, measured.middle), shares, answered=min(answered) if attendance.share is not None else None
    )  # fmt: skip
    if attendance.unproven or miner in taken.others_weights or away:
        total = 0.0
    # What is kept is kept in thousandths of a percent: the next round reads the same that this one used.
    total = of_milli(milli(total))
    average = moving(of_milli(taken.prior.get(miner)), total, alpha=order.scoring.alpha_percent / 100)
    return Outcome(
        miner=miner,
        uid=known.uid if known is not None else -1,
        coldkey=known.coldkey if known is not None else "",
        parts=parts,
        clarity=marks.clarity,
        attendance=attendance,
        total=total,
        moving=of_milli(milli(average)),
        notes=tuple(_said_of(measured, away=away)),
    )


def _said_of(measured: _Measured, *, away: bool) -> Iterator[str]:
    """Yield what else went into a miner's total, as sentences."""
    marks, parts, middle = measured.marks, measured.parts, measured.middle
    if away:
        yield "it was not there to be asked, and others were"
        return
    if marks.withheld:
        yield (
            f"{marks.ungraded} of its answers could not be graded where others' could, {marks.withheld:.1f} more than "
            "theirs, which is no chance: so many are worth nothing"
        )
    if parts.correctness is None:
        return
    named = (
        (SPEED, parts.speed, middle.speed), (SATISFACTION, parts.satisfaction, middle.satisfaction),
        (PARTICIPATION, parts.participation, middle.participation),
    )  # fmt: skip
    taken = [f"{name} {100 * of_all:.0f}%" for name, own, of_all in named if own is None and of_all is not None]
    if taken:
        yield f"not known, and taken as the middle of all: {', '.join(taken)}"


def _with_notes(outcome: Outcome, taken: Taken, rewards: Rewards) -> Outcome:
    notes = []
    given = rewards.of.get(outcome.miner)
    if given is not None and given.unpaid is not None:
        notes.append(_ALSO[given.unpaid])
    if given is not None and given.shared_with:
        others = f"{given.shared_with} others" if given.shared_with > 1 else "another"
        notes.append(f"it says the same as {others}, and shares one reward with them")
    notes += outcome.notes
    if outcome.attendance.share == 0:
        notes.append("it answered nothing, and others did")
    elif outcome.total is None and outcome.attendance.share is None:
        notes.append("nothing can be concluded of it: nobody answered what it was asked, or it was asked nothing")
    elif outcome.total is None:
        notes.append("its answers could not be graded: its score stays as it was")
    if not taken.metrics_fresh:
        notes.append(f"its speed is not known: {taken.metrics_message}")
    return Outcome(
        outcome.miner, outcome.uid, outcome.coldkey, outcome.parts, outcome.clarity, outcome.attendance, outcome.total,
        outcome.moving, tuple(notes),
    )  # fmt: skip


def _quorum(outcomes: list[Outcome]) -> dict[str, Any]:
    answered = sum(each.attendance.answered > 0 for each in outcomes)
    scored = sum(each.total is not None and each.attendance.answered > 0 for each in outcomes)
    needed = max(1, math.ceil(answered * QUORUM_PERCENT / 100))
    message = f"{scored} of the {answered} miners that answered were scored, {needed} are needed"
    if not outcomes:
        message = (
            "no miner was asked: none announced a twin of this round to the validator; one without a validator permit "
            "is refused by all, and the round's log has what each miner said"
        )
    return {"reached": scored >= needed, "needed": needed, "message": message}


def _document(taken: Taken, order: RoundOrder, found: _Found) -> dict[str, Any]:
    rewards = found.rewards
    return {
        "format": FORMAT,
        "round": order.uid,
        "name": order.name,
        "seed": order.seed,
        "netuid": order.netuid,
        "validator": taken.plan["validator"],
        "challengeDigest": taken.plan["challengeDigest"],
        "items": taken.plan["items"],
        "asked": taken.plan["registered"]["block"],
        "scored": taken.registered.block,
        "scoring": order.scoring.model_dump(mode="json", by_alias=True),
        "rewards": order.rewards.model_dump(mode="json", by_alias=True) if order.rewards is not None else None,
        "metrics": {"fresh": taken.metrics_fresh, "message": taken.metrics_message},
        "quorum": dict(found.quorum),
        "measures": dict(taken.measures),
        "alike": [
            {key(miner): count for miner, count in sorted(g.first.items(), key=lambda e: key(e[0]))}
            for g in found.groups
        ],
        "miners": [
            {
                "miner": key(each.miner),
                "uid": each.uid,
                "coldkey": each.coldkey,
                "asked": each.attendance.asked,
                "answered": each.attendance.answered,
                "reachable": each.attendance.reachable,
                "unproven": each.attendance.unproven,
                "correctness": milli(each.parts.correctness),
                "clarity": milli(each.clarity),
                "speed": milli(each.parts.speed),
                "satisfaction": milli(each.parts.satisfaction),
                "participation": milli(each.parts.participation),
                "total": milli(each.total),
                "moving": milli(each.moving),
                "notes": list(each.notes),
            }
            for each in found.outcomes
        ],
        "weights": {
            "of": {key(miner): weight for miner, weight in sorted(rewards.weights.items(), key=lambda e: key(e[0]))},
            "burned": {key(miner): weight for miner, weight in rewards.burned.items()},
            "lostPercent": rewards.lost_percent,
            "note": rewards.note,
            "quorum": bool(found.quorum["reached"]),
        },
    }
