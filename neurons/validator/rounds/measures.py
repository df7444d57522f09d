"""How good the validator itself is, in numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from neurons.ledger.rounds import TaskStates
from neurons.validator.rounds.scoring import Canaries
from neurons.validator.rounds.steps import milli


def vtrust(weights: Mapping[int, float], consensus: Mapping[int, float]) -> float | None:
    """Return how far weights agree with the stake-weighted consensus, 0 to 1, as Yuma reckons validator trust.

    `weights` and `consensus` are by UID, of any scale of weights; what lies above the consensus is clipped. None
    without weights or consensus.
    """
    total = math.fsum(value for value in weights.values() if value > 0)
    if total <= 0 or not any(consensus.values()):
        return None
    return min(1.0, math.fsum(min(value / total, consensus.get(uid, 0.0)) for uid, value in weights.items()))


def on_time(tasks: Iterable[TaskStates], *, due_ms: int) -> float | None:
    """Return which share of tasks was offered by the time that they were due; None for no task."""
    offered = [each.task.at_ms for each in tasks]
    return sum(at_ms <= due_ms for at_ms in offered) / len(offered) if offered else None


def measures(
    *,
    canaries: Canaries,
    reached: int,
    addressed: int,
    trust: float | None,
    tasks_on_time: float | None,
) -> dict[str, Any]:
    """Return the numbers, in thousandths of a percent; one that wasn't measured is None."""
    return {
        "consensus": milli(trust),
        "goldAccuracy": milli(canaries.right / canaries.judged) if canaries.judged else None,
        "judgesAgreement": milli(canaries.agreed / canaries.votes) if canaries.votes else None,
        "reached": milli(reached / addressed) if addressed else None,
        "tasksOnTime": milli(tasks_on_time),
    }
