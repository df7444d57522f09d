"""Who has a place at an engine pod, and who is next: each pod's places are shared fairly by the twins that want them.

An engine answers in the order in which it was asked. So it is asked for no more at once than it runs, and what waits,
waits here, where each pod has a fair queue (`fair_queue`) of twins. No place stands empty while somebody waits for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from neurons.fair_queue import FairQueue
from neurons.miner.tables import Pod

RECENT_SECONDS: Final = 60.0
"""So long a twin's last wait says how long the next may be."""
_MOST_WAITS: Final = 1024


class Turns:
    """The places of one miner's pods. Only the event loop's thread may call it."""

    def __init__(
        self, weights: Mapping[str, float] | None = None, *, waited: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """`weights`: shares by twin; 1 for who isn't there. `waited` is told how long each waited for its place."""
        self._weights, self._waited = weights or {}, waited
        self._queues: WeakKeyDictionary[Pod, FairQueue[Turn]] = WeakKeyDictionary()
        self._running: dict[str, int] = {}
        self._waits: dict[str, tuple[float, float]] = {}
        """By twin: how many seconds one waited for a place, and until when that says something."""

    def turn(self, twin: str) -> Turn:
        """Return what one request has or waits for: nothing yet."""
        return Turn(self, twin)

    def running(self, twin: str) -> int:
        """Return how many places a twin has."""
        return self._running.get(twin, 0)

    def last_wait(self, twin: str) -> float:
        """Return how many seconds a request of the twin lately waited for its place, 0 where none did."""
        seconds, until = self._waits.get(twin, (0.0, 0.0))
        return seconds if time.monotonic() < until else 0.0

    def take(self, pod: Pod, twin: str) -> None:
        """Count a place that a request has from now on."""
        pod.in_flight += 1
        self._running[twin] = self._running.get(twin, 0) + 1

    def give_back(self, pod: Pod, twin: str) -> None:
        """Count it no longer, and let the next have it."""
        pod.in_flight -= 1
        left = self._running[twin] - 1
        if left:
            self._running[twin] = left
        else:
            del self._running[twin]
        self.grant(pod)

    def queue(self, pod: Pod) -> FairQueue[Turn]:
        """Return what waits for a pod's places."""
        queue = self._queues.get(pod)
        if queue is None:
            queue = self._queues[pod] = FairQueue(lambda twin: self._weights.get(twin, 1.0))
        return queue

    def grant(self, pod: Pod) -> None:
        """Give the pod's free places to those whose turn it is."""
        queue = self._queues.get(pod)
        while queue and pod.has_room and (turn := queue.next()) is not None:
            turn.granted(pod)

    def note_wait(self, twin: str, seconds: float) -> None:
        """Take down how long one waited for its place."""
        now = time.monotonic()
        if len(self._waits) > _MOST_WAITS:
            self._waits = {name: kept for name, kept in self._waits.items() if kept[1] > now}
        self._waits[twin] = (seconds, now + RECENT_SECONDS)
        self._waited(seconds)


class Turn:
    """One request's place at a pod, or its waiting for one."""

    __slots__ = ("_granted", "_pods", "_since", "_turns", "twin")

    def __init__(self, turns: Turns, twin: str) -> None:
        self._turns, self.twin = turns, twin
        self._pods: frozenset[Pod] = frozenset()
        self._granted: asyncio.Future[Pod] | None = None
        self._since: float | None = None

    @property
    def waited(self) -> float | None:
        """Seconds since it began to wait; None where it doesn't."""
        return None if self._since is None else time.monotonic() - self._since

    def start(self, pod: Pod) -> None:
        """Take a free place at once; `give_back` it."""
        self.leave()
        self._turns.queue(pod).started(self.twin)
        self._turns.take(pod, self.twin)

    def wait_at(self, pods: Collection[Pod]) -> None:
        """Wait at these pods and no others, keeping its place in the line of those where it waits already."""
        wanted = frozenset(pods)
        for pod in self._pods - wanted:
            self._turns.queue(pod).leave(self.twin, self)
        joined, self._pods = wanted - self._pods, wanted
        if self._since is None:
            self._since = time.monotonic()
        if self._granted is None:
            self._granted = asyncio.get_running_loop().create_future()
        for pod in joined:
            self._turns.queue(pod).join(self.twin, self)
        for pod in wanted:
            if not self._granted.done():
                self._turns.grant(pod)  # it may take more than it did

    async def wait(self, seconds: float) -> None:
        """Wait until it has a place, at most so long."""
        if self._granted is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._granted)

    def granted(self, pod: Pod) -> None:
        """Have a place at this pod, and wait at no other."""
        self._turns.take(pod, self.twin)
        for other in self._pods:
            if other is not pod:
                self._turns.queue(other).leave(self.twin, self)
        self._pods = frozenset()
        if self._granted is None or self._since is None:
            raise RuntimeError("it didn't wait")
        self._turns.note_wait(self.twin, time.monotonic() - self._since)
        self._granted.set_result(pod)

    def claim(self, pods: Collection[Pod]) -> Pod | None:
        """Return the pod at which it was given a place, if that is one of these; `give_back` it."""
        if self._granted is None or not self._granted.done():
            return None
        pod = self._granted.result()
        self._granted = self._since = None
        if pod in pods:
            return pod
        self._turns.give_back(pod, self.twin)
        return None

    def leave(self) -> None:
        """Wait no longer, and take no place."""
        for pod in self._pods:
            self._turns.queue(pod).leave(self.twin, self)
        self._pods = frozenset()
        self.claim(())
        self._granted = self._since = None

    def give_back(self, pod: Pod) -> None:
        """Give the place back."""
        self._turns.give_back(pod, self.twin)


def in_whole_seconds(wait: float) -> int:
    """Return when to ask again, by how long the last one waited: from a second to a minute."""
    return min(60, max(1, math.ceil(wait)))
