"""Takes away what miners delivered once nobody needs it: their task is settled, and so is every task beside it.

A delivery is what a task is credited by, and what later reports from the same parent are held against, whether they are
its copies. So it stays until all tasks of its twin and parent are settled, or no round looks back at it any more. The
version that a doctor may choose is another copy: an examination has brought it to the twin's own folder. What the
ledger knows nothing of is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from neurons.ledger import Ledger, LedgerDown, Task, TaskState
from neurons.ledger.rounds import TaskStates, tasks, tasks_by_id
from neurons.store import StoreError
from neurons.validator.gateway.deliveries import Deliveries
from neurons.validator.rounds.examining import EXAMINE_MS, VERDICTS
from neurons.validator.rounds.tasks import TASK_DAYS

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 3600.0
SLACK_MS: Final = 3600 * 1000
"""A file that began to come before a task was settled may end after it, and clocks differ."""
_DAY_MS: Final = 24 * 3600 * 1000


def is_settled(states: TaskStates, *, now_ms: int) -> bool:
    """Tell whether nothing will be delivered for the task any more, and no examination of it is to come or under way.

    One that is withdrawn may be under examination still, for as long as that takes.
    """
    task, latest = states.task, max((event.at_ms for event in states.events), default=0)
    said = {event.state for event in states.events}
    if now_ms < latest + SLACK_MS:
        return False
    if said & VERDICTS:
        return True
    if TaskState.WITHDRAWN in said:
        return now_ms >= latest + EXAMINE_MS + SLACK_MS
    if TaskState.FINISHED in said:
        return _is_past(task, now_ms=now_ms)
    return now_ms >= task.deadline_ms + SLACK_MS


def settled(known: Iterable[TaskStates], delivered: Collection[str], *, now_ms: int) -> list[str]:
    """Return the tasks of which what was delivered may go; `known` are these, and all that may still be examined."""
    known = {each.task.task_id: each for each in known}.values()
    needed = {_from(each) for each in known if not is_settled(each, now_ms=now_ms)}
    return sorted(
        each.task.task_id
        for each in known
        if each.task.task_id in delivered
        and is_settled(each, now_ms=now_ms)
        and (_from(each) not in needed or _is_past(each.task, now_ms=now_ms))
    )


def _is_past(task: Task, *, now_ms: int) -> bool:
    """Tell whether no round examines it any more or holds others against it, and the last that did is over."""
    return now_ms >= task.at_ms + TASK_DAYS * _DAY_MS + EXAMINE_MS + SLACK_MS


def _from(states: TaskStates) -> tuple[str, str | None]:
    return states.task.twin.uid, states.task.parent_digest


class Tidying:
    """Looks again and again."""

    def __init__(
        self,
        deliveries: Deliveries,
        ledger: Ledger,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._deliveries, self._ledger, self._now_ms, self._sleep = deliveries, ledger, now_ms, sleep

    async def follow(self) -> None:
        """Tidy now, and then every hour; what can't be done now is tried again."""
        while True:
            try:
                await self.tidy()
            except (LedgerDown, StoreError) as error:
                log.warning("what miners delivered can't be tidied now: %s", error)
            await self._sleep(EVERY_SECONDS)

    async def tidy(self) -> list[str]:
        """Remove what may go; returns its tasks. Raises LedgerDown, StoreError."""
        delivered = await self._deliveries.tasks()
        if not delivered:
            return []
        now_ms, database = self._now_ms(), self._ledger.database
        own = await tasks_by_id(database, delivered)
        lately = await tasks(database, since_ms=now_ms - (TASK_DAYS + 2) * _DAY_MS, until_ms=now_ms + 1)
        gone = settled([*lately, *own], delivered, now_ms=now_ms)
        for task in gone:
            await self._deliveries.remove(task)
        if gone:
            log.info("what was delivered for settled tasks is removed", extra={"tasks": len(gone)})
        return gone
