"""Keys that wait to be reconciled: each at most once, never two workers on one key, failures delayed per key."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter, OrderedDict
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
_SHARE = 8
"""Of so many keys that are taken while others stand behind them, one is the oldest of those others."""
_ASKED = -math.inf
"""Priority of what people ask, whatever its kind."""


class Queue:
    """A deduplicating queue. It holds at most one entry per existing object, which bounds it.

    A key that is added while it is being worked on runs once more afterwards: no change is missed. Kinds have
    priorities, least first: what patients wait for must not stand behind 200 statuses, and what a person asks stands
    behind nothing. Every so often the oldest of those that others go before is taken all the same, so that none waits
    for ever. Of some kinds only so many keys are worked on `at_once`: those that make what others (a webhook) may hold
    up leave workers to the rest. Of some a key is taken at most every so many seconds (`spacing`): the first change
    after a pause waits for nothing, and what follows on its heels makes one reconciliation. A key that fails is tried
    again with a growing delay, which changes around it don't cut short: only success ends it, or an urgent change.

    Adding and taking cost the same however many keys wait.
    """

    def __init__(
        self, *, priorities: Mapping[str, int] | None = None, urgent: Collection[str] = (),
        at_once: Mapping[str, int] | None = None, spacing: Mapping[str, float] | None = None,
        random_source: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._priorities = {**dict.fromkeys(urgent, -1), **(priorities or {})}
        self._at_once = dict(at_once or {})
        self.spacing = dict(spacing or {})
        self._taken: dict[str, OrderedDict[Key, float]] = {kind: OrderedDict() for kind in self.spacing}
        """When keys were last taken, by the loop's clock, oldest first; only those that were taken just now."""
        self._lanes: dict[tuple[float, str], OrderedDict[Key, float]] = {}
        """By priority and kind, each in order of arrival; the value is when the key was added."""
        self._passed_over = 0
        """How many were taken in a row while others stood behind them."""
        self._waiting = 0
        self._active: set[Key] = set()
        self._under_way: Counter[str] = Counter()  # by kind
        self._asked: set[Key] = set()  # active, and first because a person asks
        self._again: dict[Key, tuple[bool, bool]] = {}  # added while active; whether urgently, whether first
        self._failures: dict[Key, int] = {}
        self._conflicts: dict[Key, int] = {}
        self._held_until: dict[Key, float] = {}  # failed keys, by the loop's clock
        self._timers: dict[Key, tuple[float, asyncio.Handle]] = {}  # when, by the loop's clock: a handle may not know
        self._ready = asyncio.Event()
        self._random = random_source or random.Random()  # noqa: S311  # spreads retries, guards nothing
        self.started_at: dict[Key, float] = {}
        """Monotonic time at which each key under way was begun."""

    def __len__(self) -> int:
        return self._waiting

    def _lane(self, key: Key, *, first: bool = False) -> OrderedDict[Key, float]:
        level = _ASKED if first else self._priorities.get(key.kind, _OTHERS)
        return self._lanes.setdefault((level, key.kind), OrderedDict())

    def _waits(self, key: Key) -> bool:
        return key in self._lane(key) or key in self._lane(key, first=True)

    def add(self, key: Key, *, urgent: bool = False, first: bool | None = None) -> None:
        """Let `key` be reconciled as soon as a worker is free; a key that failed keeps its delay unless `urgent`.

        Urgent is a change of what people ask of the object itself: it may be what mends the failure. It goes `first`,
        before all that follows from other changes, unless that is said to be of no hurry.
        """
        first = urgent if first is None else first
        if key in self._active:
            before = self._again.get(key, (False, False))
            self._again[key] = urgent or before[0], first or before[1]
            return
        if key in self._held_until and not urgent:
            return  # its timer brings it back
        if not urgent and (left := self._too_soon(key)) > 0:
            self.add_after(key, left)
            return
        self._held_until.pop(key, None)
        self._cancel(key)
        if key in self._lane(key, first=True):
            return
        since = self._lane(key).pop(key, None) if first else self._lane(key).get(key)
        if since is not None and not first:
            return
        self._lane(key, first=first)[key] = time.monotonic() if since is None else since
        if since is None:
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
        if self._waits(key) or (timer is not None and timer[0] <= when):
            return
        self._cancel(key)
        self._timers[key] = when, loop.call_at(when, self._due, key)

    def add_at(self, key: Key, moment: datetime) -> None:
        """Let `key` be reconciled at `moment`, unless that happens sooner anyway; the reconciliation asks again."""
        self.add_after(key, max(0.0, (moment - datetime.now(UTC)).total_seconds()))

    async def take(self) -> Key:
        """Wait for a key; the caller must call `done`, `conflicted` or `failed` for it."""
        while (found := self._next()) is None:
            self._ready.clear()
            await self._ready.wait()
        level, lane = found
        key, since = lane.popitem(last=False)
        metrics.QUEUE_WAIT_SECONDS.observe(time.monotonic() - since)
        self._waiting -= 1
        metrics.QUEUE_DEPTH.set(self._waiting)
        self._active.add(key)
        self._note_taken(key)
        self._under_way[key.kind] += 1
        if level == _ASKED:
            self._asked.add(key)
        self.started_at[key] = time.monotonic()
        return key

    def _too_soon(self, key: Key) -> float:
        """Return for how many seconds more a key is not to be taken again."""
        last = self._taken[key.kind].get(key) if key.kind in self.spacing else None
        return 0.0 if last is None else last + self.spacing[key.kind] - asyncio.get_running_loop().time()

    def _note_taken(self, key: Key) -> None:
        if key.kind not in self.spacing:
            return
        taken, now = self._taken[key.kind], asyncio.get_running_loop().time()
        taken.pop(key, None)
        taken[key] = now
        while now - next(iter(taken.values())) > self.spacing[key.kind]:
            taken.popitem(last=False)

    def _next(self) -> tuple[float, OrderedDict[Key, float]] | None:
        """Return the lane whose oldest key is next, with its priority; None when none may be taken now."""
        heads = [
            (level, next(iter(lane.values())), lane)
            for (level, kind), lane in self._lanes.items()
            if lane and self._under_way[kind] < self._at_once.get(kind, math.inf)
        ]
        if not heads:
            return None
        first = min(level for level, _, _ in heads)
        behind = [head for head in heads if head[0] > first]
        self._passed_over = self._passed_over + 1 if behind else 0
        if self._passed_over >= _SHARE:
            self._passed_over, heads = 0, behind
        else:
            heads = [head for head in heads if head[0] == first]
        level, _, lane = min(heads, key=lambda head: head[1])
        return level, lane

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
        asked = key in self._asked
        self._release(key)
        self.add(key, urgent=True, first=asked)
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
        self._timers[key] = self._held_until[key], loop.call_at(self._held_until[key], self._due, key)
        self._release(key)
        return delay

    def clear(self) -> None:
        """Forget everything that waits; keys under way go on."""
        for _, timer in self._timers.values():
            timer.cancel()
        for lane in self._lanes.values():
            lane.clear()
        for taken in self._taken.values():
            taken.clear()
        for kept in (self._timers, self._again, self._failures, self._conflicts, self._held_until):
            kept.clear()
        self._waiting = 0
        metrics.QUEUE_DEPTH.set(0)

    def _cancel(self, key: Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer[1].cancel()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._held_until.pop(key, None)
        self.add(key)

    def _release(self, key: Key) -> None:
        self._active.discard(key)
        self._asked.discard(key)
        self._under_way[key.kind] -= 1
        self.started_at.pop(key, None)
        if key.kind in self._at_once:
            self._ready.set()  # one of its kind may have waited for this
        if key in self._again:
            urgent, first = self._again.pop(key)
            self.add(key, urgent=urgent, first=first)


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
        # Where nothing is to be written nothing was awaited: ten thousand such keys would keep the Lease from renewal.
        await asyncio.sleep(0)
