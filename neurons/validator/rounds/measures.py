"""How good the validator itself is, in numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from neurons.ledger.records import TaskState
from neurons.ledger.rounds import TaskStates
from neurons.validator.rounds.scoring import Canaries
from neurons.validator.rounds.steps import milli

SOON_MS: Final = 600_000
"""A task that reaches its miner later than that after it was made is late: its day is short enough."""
_HEARD: Final = frozenset({TaskState.ACCEPTED, TaskState.REFUSED})


def vtrust(weights: Mapping[int, float], consensus: Mapping[int, float]) -> float | None:
    """Return how far weights agree with the stake-weighted consensus, 0 to 1, as Yuma reckons validator trust.

    `weights` and `consensus` are by UID, of any scale of weights; what lies above the consensus is clipped. None
    without weights or consensus.
    """
    total = math.fsum(value for value in weights.values() if value > 0)
    if total <= 0 or not any(consensus.values()):
        return None
    return min(1.0, math.fsum(min(value / total, consensus.get(uid, 0.0)) for uid, value in weights.items()))


def on_time(tasks: Iterable[TaskStates]) -> float | None:
    """Return which share of the tasks that were made was in their miners' hands within `SOON_MS`; None for no task.

    An answer counts, whichever it is; one to an offer that was lost, and came as a report, counts by when it came. What
    was withdrawn before is left out.
    """
    answered = []
    for each in tasks:
        states = {event.state: event.at_ms for event in each.events}
        heard = min((at for state, at in states.items() if state in _HEARD), default=None)
        if heard is None and TaskState.WITHDRAWN in states:
            continue
        answered.append(heard is not None and heard - each.task.at_ms <= SOON_MS)
    return sum(answered) / len(answered) if answered else None


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
