"""What a miner did with the fine-tune tasks that it was offered. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from neurons.ledger.records import Miner, TaskState
from neurons.ledger.rounds import TaskStates

ACCEPTED, FINISHED, PASSED = 0.2, 0.3, 0.5
"""What each step is worth: most of it is for a version that is shown to be no worse than its parent."""
_TOOK: Final = frozenset({TaskState.ACCEPTED, TaskState.FINISHED, TaskState.PASSED, TaskState.FAILED})
_BY_VALIDATOR: Final = frozenset({TaskState.PASSED, TaskState.FAILED, TaskState.DISALLOWED})
_OPEN: Final = frozenset({TaskState.EXPIRED, TaskState.ACCEPTED, TaskState.FINISHED})


@dataclass(frozen=True, slots=True)
class Participation:
    """One miner's, 0 to 1, and the counts that it is made of."""

    value: float
    offered: int
    """That have ended, or whose time is over."""
    accepted: int
    finished: int
    passed: int


def participation(tasks: Iterable[TaskStates], *, now_ms: int) -> Mapping[Miner, Participation]:
    """Return it for each miner that was offered a task which has come to its end; others have none.

    A task that nobody tried to hand over, or whose dataset was withdrawn, counts neither way.
    """
    by_miner: defaultdict[Miner, list[frozenset[TaskState]]] = defaultdict(list)
    for each in tasks:
        states = frozenset(event.state for event in each.events if event.at_ms < now_ms)
        if not states or TaskState.WITHDRAWN in states:
            continue
        latest = each.events[-1].state
        if latest in _OPEN and now_ms < each.task.deadline_ms:
            continue  # it may still be done
        in_time = frozenset(
            event.state for event in each.events if event.at_ms <= each.task.deadline_ms or event.state in _BY_VALIDATOR
        )
        by_miner[each.task.miner].append(in_time & states)
    found = {}
    for miner, all_states in by_miner.items():
        accepted = sum(bool(states & _TOOK) for states in all_states)
        # Whoever fails, by its own word or the validator's, has finished nothing: else any file would earn that much.
        own = [states for states in all_states if not states & {TaskState.DISALLOWED, TaskState.FAILED}]
        finished = sum(TaskState.FINISHED in states for states in own)
        passed = sum(TaskState.PASSED in states for states in own)
        offered = len(all_states)
        value = (ACCEPTED * accepted + FINISHED * finished + PASSED * passed) / offered
        found[miner] = Participation(value, offered, accepted, finished, passed)
    return found
