"""Keys that wait to be reconciled: each at most once, never two workers on one key, failures delayed per key."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from twin_operator.engine import metrics
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError, ChildConflictError, NotLeaderError

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LARGEST_DELAY = 60.0
RECONCILE_SECONDS = 60.0


class Queue:
    """A deduplicating queue. It holds at most one entry per existing object, which bounds it.

    A key that is added while it is being worked on runs once more afterwards: no change is missed. Keys of an urgent
    kind go first: what patients wait for must not stand behind 200 statuses.
    """

    def __init__(self, *, urgent: Collection[str] = (), random_source: random.Random | None = None) -> None:
        self._is_urgent = frozenset(urgent)
        self._urgent: dict[Key, float] = {}  # insertion order; the value is when it was added
        self._other: dict[Key, float] = {}
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()
        self._random = random_source or random.Random()  # noqa: S311  # spreads retries, guards nothing
        self.started_at: dict[Key, float] = {}
        """Monotonic time at which each key under way was begun."""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._other)

    def _line(self, key: Key) -> dict[Key, float]:
        return self._urgent if key.kind in self._is_urgent else self._other

    def add(self, key: Key) -> None:
        """Let `key` be reconciled as soon as a worker is free."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in (line := self._line(key)):
            line[key] = time.monotonic()
            metrics.QUEUE_DEPTH.set(len(self))
            self._ready.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Let `key` be reconciled in `seconds`, unless that happens sooner anyway."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._line(key) or (timer is not None and timer.when() <= loop.time() + seconds):
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def add_at(self, key: Key, moment: datetime) -> None:
        """Let `key` be reconciled at `moment`, unless that happens sooner anyway; the reconciliation asks again."""
        self.add_after(key, max(0.0, (moment - datetime.now(UTC)).total_seconds()))

    async def take(self) -> Key:
        """Wait for a key; the caller must call `done` or `failed` for it."""
        while len(self) == 0:
            self._ready.clear()
            await self._ready.wait()
        line = self._urgent or self._other
        key = next(iter(line))
        metrics.QUEUE_WAIT_SECONDS.observe(time.monotonic() - line.pop(key))
        metrics.QUEUE_DEPTH.set(len(self))
        self._active.add(key)
        self.started_at[key] = time.monotonic()
        return key

    def done(self, key: Key) -> None:
        """Say that `key` was reconciled."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Key) -> float:
        """Say that `key` could not be reconciled; returns after how many seconds it is tried again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LARGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 16)) * self._random.uniform(0.75, 1.25)
        self._release(key)
        self.add_after(key, delay)
        return delay

    def clear(self) -> None:
        """Forget everything that waits; keys under way go on."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._urgent.clear()
        self._other.clear()
        self._again.clear()
        self._failures.clear()
        metrics.QUEUE_DEPTH.set(0)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _release(self, key: Key) -> None:
        self._active.discard(key)
        self.started_at.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)


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
        except (ApiError, ChildConflictError) as error:
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
