"""Keys that wait to be reconciled: each at most once, never two workers on one key, failures delayed per key."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime

from twin_operator.engine import metrics
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError, ApplyError, ChildConflictError, ConflictError, NotLeaderError

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LARGEST_DELAY = 60.0
RECONCILE_SECONDS = 60.0
DEBOUNCE = 0.05
_OTHERS = 0
"""Priority of kinds that the caller names none for."""
_CONFLICTS = 5
"""Conflicts of a key in a row after which it waits."""


class Queue:
    """A deduplicating queue. It holds at most one entry per existing object, which bounds it.

    A key that is added while it is being worked on runs once more afterwards: no change is missed. Kinds have
    priorities, least first: what patients wait for must not stand behind 200 statuses. A key that fails is tried again
    with a growing delay, which changes around it don't cut short: only success ends it, or an urgent change.

    Adding and taking cost the same however many keys wait.
    """

    def __init__(
        self, *, priorities: Mapping[str, int] | None = None, urgent: Collection[str] = (),
        random_source: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._priorities = {**dict.fromkeys(urgent, -1), **(priorities or {})}
        levels = sorted({_OTHERS, *self._priorities.values()})
        self._lanes: dict[int, dict[Key, float]] = {level: {} for level in levels}
        """By priority, each in order of arrival; the value is when the key was added."""
        self._waiting = 0
        self._active: set[Key] = set()
        self._again: dict[Key, bool] = {}  # added while active; whether urgently
        self._failures: dict[Key, int] = {}
        self._conflicts: dict[Key, int] = {}
        self._held_until: dict[Key, float] = {}  # failed keys, by the loop's clock
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()
        self._random = random_source or random.Random()  # noqa: S311  # spreads retries, guards nothing
        self.started_at: dict[Key, float] = {}
        """Monotonic time at which each key under way was begun."""

    def __len__(self) -> int:
        return self._waiting

    def _lane(self, key: Key) -> dict[Key, float]:
        return self._lanes[self._priorities.get(key.kind, _OTHERS)]

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Let `key` be reconciled as soon as a worker is free; a key that failed keeps its delay unless `urgent`.

        Urgent is a change of what people ask of the object itself: it may be what mends the failure.
        """
        if key in self._active:
            self._again[key] = urgent or self._again.get(key, False)
            return
        if key in self._held_until and not urgent:
            return  # its timer brings it back
        self._held_until.pop(key, None)
        self._cancel(key)
        if key not in (lane := self._lane(key)):
            lane[key] = time.monotonic()
            self._waiting += 1
            metrics.QUEUE_DEPTH.set(self._waiting)
            self._ready.set()

    def add_soon(self, key: Key) -> None:
        """Let `key` be reconciled within 50 ms: what else changes until then costs no further reconciliation."""
        self.add_after(key, DEBOUNCE)

    def add_after(self, key: Key, seconds: float) -> None:
        """Let `key` be reconciled in `seconds`, unless that happens sooner anyway; not before a failed key's delay."""
        loop = asyncio.get_running_loop()
        when = max(loop.time() + seconds, self._held_until.get(key, 0.0))
        timer = self._timers.get(key)
        if key in self._lane(key) or (timer is not None and timer.when() <= when):
            return
        self._cancel(key)
        self._timers[key] = loop.call_at(when, self._due, key)

    def add_at(self, key: Key, moment: datetime) -> None:
        """Let `key` be reconciled at `moment`, unless that happens sooner anyway; the reconciliation asks again."""
        self.add_after(key, max(0.0, (moment - datetime.now(UTC)).total_seconds()))

    async def take(self) -> Key:
        """Wait for a key; the caller must call `done`, `conflicted` or `failed` for it."""
        while self._waiting == 0:
            self._ready.clear()
            await self._ready.wait()
        lane = next(lane for lane in self._lanes.values() if lane)
        key = next(iter(lane))
        metrics.QUEUE_WAIT_SECONDS.observe(time.monotonic() - lane.pop(key))
        self._waiting -= 1
        metrics.QUEUE_DEPTH.set(self._waiting)
        self._active.add(key)
        self.started_at[key] = time.monotonic()
        return key

    def done(self, key: Key) -> None:
        """Say that `key` was reconciled."""
        self._failures.pop(key, None)
        self._conflicts.pop(key, None)
        self._release(key)

    def conflicted(self, key: Key) -> float:
        """Say that what `key` was decided on had changed; returns after how many seconds it is tried again: mostly 0.

        A key that meets nothing but conflicts counts as failed.
        """
        conflicts = self._conflicts[key] = self._conflicts.get(key, 0) + 1
        if conflicts > _CONFLICTS:
            return self.failed(key)
        self._release(key)
        self.add(key, urgent=True)
        return 0.0

    def failed(self, key: Key) -> float:
        """Say that `key` could not be reconciled; returns after how many seconds it is tried again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LARGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 16)) * self._random.uniform(0.75, 1.25)
        loop = asyncio.get_running_loop()
        self._held_until[key] = loop.time() + delay
        # What was to come later than the delay is asked for again by the reconciliation; sooner would be too soon.
        self._cancel(key)
        self._timers[key] = loop.call_at(self._held_until[key], self._due, key)
        self._release(key)
        return delay

    def clear(self) -> None:
        """Forget everything that waits; keys under way go on."""
        for timer in self._timers.values():
            timer.cancel()
        for lane in self._lanes.values():
            lane.clear()
        for kept in (self._timers, self._again, self._failures, self._conflicts, self._held_until):
            kept.clear()
        self._waiting = 0
        metrics.QUEUE_DEPTH.set(0)

    def _cancel(self, key: Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._held_until.pop(key, None)
        self.add(key)

    def _release(self, key: Key) -> None:
        self._active.discard(key)
        self.started_at.pop(key, None)
        if key in self._again:
            self.add(key, urgent=self._again.pop(key))


async def work(queue: Queue, reconcile: Callable[[Key], Awaitable[None]], *, may_work: asyncio.Event) -> None:
    """Reconcile keys one after the other while `may_work` is set; never ends and survives every error of a key."""
    while True:
        await may_work.wait()
        key = await queue.take()
        if not may_work.is_set():
            queue.done(key)  # whoever leads next starts with all keys
            continue
        begun = time.monotonic()
        result = "ok"
        try:
            async with asyncio.timeout(RECONCILE_SECONDS):
                await reconcile(key)
        except NotLeaderError:
            queue.done(key)
            result = "lost-leadership"
        except ConflictError as error:
            result = "conflict"
            delay = queue.conflicted(key)
            log.info("%s: %s; looking again%s", key, error, f" in {delay:.1f} s" if delay else "")
        except (ApiError, ApplyError, ChildConflictError) as error:
            result = "error"
            delay = queue.failed(key)
            log.warning("%s: %s; trying again in %.1f s", key, error, delay)
        except Exception:  # one key's defect must not stop the others
            result = "error"
            delay = queue.failed(key)
            log.exception("%s: reconciliation failed; trying again in %.1f s", key, delay)
        else:
            queue.done(key)
        metrics.RECONCILES.labels(kind=key.kind, result=result).inc()
        metrics.RECONCILE_SECONDS.labels(kind=key.kind).observe(time.monotonic() - begun)
