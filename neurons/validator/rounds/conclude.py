"""A round's results out of what the ledger has of it: the same rows, the same digest. Pure.

`worth` is the score of one answer; what else is taken for granted stands in the round's steps. Nothing here looks at a
patient's words, so that a round's digest outlives the erasure of a patient.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger.records import Miner, RoundAnswer, RoundFinished, Score, derived_id
from neurons.ledger.rounds import RoundRows
from neurons.receipts import canonical, sha256
from neurons.validator.rounds.duplicates import Group, Said, groups_of
from neurons.validator.rounds.rewards import WHOLE, Entrant, Parts, Rewards, Shares, Unpaid, moving, reward, total_of
from neurons.validator.rounds.steps import (
    Attendance,
    Registered,
    Step,
    Taken,
    key,
    milli,
    of_milli,
    read_steps,
    step_record,
)

FORMAT: Final = "bettertherapy-round/1"
WORTH, CORRECTNESS, CLARITY = "worth", "correctness", "clarity"
"""Parts of single answers; `correctness` and `clarity` of miners too."""
SPEED, SATISFACTION, PARTICIPATION, TOTAL, MOVING = "speed", "satisfaction", "participation", "total", "moving"
LEAST_GRADED: Final = 0.5
"""Of a miner's answers, the share that has to be graded for its correctness to be told: else the judge failed, and a
few lucky grades say nothing."""
QUORUM_PERCENT: Final = 50
"""Of the miners that answered anything, so many have to be scored for weights to be set."""
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
class _Marks:
    """What the answers of each miner are worth, None where one is ungraded, and how clear they are, in thousandths."""

    worths: Mapping[Miner, list[int | None]]
    clarities: Mapping[Miner, list[int]]


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
    marks = _of_answers(rows.scores)
    groups = groups_of(_texts(rows))
    before = Registered.of(taken.plan["registered"]).entrants
    known = {each.miner: each for each in (*before, *taken.registered.entrants)}
    outcomes = [_outcome(miner, known.get(miner), taken, order, marks) for miner in _concerned(taken)]
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


def _of_answers(scores: tuple[Score, ...]) -> _Marks:
    """Return what each miner's answers are worth, and how clear they were where that is known.

    A question on which nobody's answer could be graded says nothing of anybody.
    """
    graded = {each.item_id for each in scores if each.part == WORTH and each.value_milli is not None}
    worths: defaultdict[Miner, list[int | None]] = defaultdict(list)
    clarities: defaultdict[Miner, list[int]] = defaultdict(list)
    for each in scores:
        if each.item_id is None:
            continue
        if each.part == WORTH and each.item_id in graded:
            worths[each.miner].append(each.value_milli)
        elif each.part == CLARITY and each.value_milli is not None:
            clarities[each.miner].append(each.value_milli)
    return _Marks(worths, clarities)


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


def _outcome(miner: Miner, known: Entrant | None, taken: Taken, order: RoundOrder, marks: _Marks) -> Outcome:
    attendance = taken.attendance.get(miner, Attendance(0, 0, 0, 0))
    parts = Parts(
        correctness=_mean(marks.worths.get(miner, [])),
        speed=of_milli(taken.speed.get(miner)),
        satisfaction=of_milli(taken.satisfaction.get(miner)),
        participation=of_milli(taken.participation.get(miner)),
    )
    weights = order.scoring.weights_percent
    shares = Shares(
        correctness=weights.correctness, speed=weights.speed, satisfaction=weights.satisfaction,
        participation=weights.participation,
    )  # fmt: skip
    total = total_of(parts, shares, answered=attendance.share)
    if attendance.unproven or miner in taken.others_weights:
        total = 0.0
    # What is kept is kept in thousandths of a percent: the next round reads the same that this one used.
    total = of_milli(milli(total))
    average = moving(of_milli(taken.prior.get(miner)), total, alpha=order.scoring.alpha_percent / 100)
    clear = marks.clarities.get(miner, [])
    return Outcome(
        miner=miner,
        uid=known.uid if known is not None else -1,
        coldkey=known.coldkey if known is not None else "",
        parts=parts,
        clarity=of_milli(round(math.fsum(clear) / len(clear))) if clear else None,
        attendance=attendance,
        total=total,
        moving=of_milli(milli(average)),
        notes=(),
    )


def _mean(worths: list[int | None]) -> float | None:
    graded = [each for each in worths if each is not None]
    if not graded or len(graded) < LEAST_GRADED * len(worths):
        return None
    return of_milli(round(sum(graded) / len(graded)))


def _with_notes(outcome: Outcome, taken: Taken, rewards: Rewards) -> Outcome:
    notes = []
    given = rewards.of.get(outcome.miner)
    if given is not None and given.unpaid is not None:
        notes.append(_ALSO[given.unpaid])
    if given is not None and given.shared_with:
        notes.append(f"it says the same as {given.shared_with} others, and shares one reward with them")
    if outcome.attendance.share == 0:
        notes.append("it answered nothing, and others did")
    elif outcome.attendance.share is None:
        notes.append("nothing can be concluded of it: nobody answered what it was asked, or it was asked nothing")
    elif outcome.parts.correctness is None:
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
