"""Who has a place at an engine pod, and who is next: each pod's places are shared fairly by the twins that want them.

An engine answers in the order in which it was asked. So it is asked for no more at once than it runs, and what waits,
waits here, where each pod has a fair queue (`fair_queue`) of twins. While several twins ask, an eighth of its places is
for those that have less than their share: who comes beside a flood needn't wait until something of that ends. Besides,
no place stands empty while somebody waits for it. Of one twin the clients that wait have its places in rotation.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from neurons.fair_queue import FairQueue
from neurons.miner.tables import Pod

RESERVE_PART: Final = 8
"""So many times fewer than all are the places that are for twins below their share."""
ACTIVE_SECONDS: Final = 10.0
"""A twin that asked within this time is one of those that share."""
RECENT_SECONDS: Final = 60.0
"""So long a twin's last wait says how long the next may be."""
_MOST_WAITS: Final = 1024


class _Places:
    """One pod's."""

    __slots__ = ("queue", "running")

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self.queue: FairQueue[Turn] = FairQueue(weight_of)
        self.running: Counter[str] = Counter()
        """By twin."""


class Turns:
    """The places of one miner's pods. Only the event loop's thread may call it."""

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        waited: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`weights`: shares by twin; 1 for who isn't there. `waited` is told how long each waited for its place."""
        self._weights, self._waited, self._clock = weights or {}, waited, clock
        self._places: WeakKeyDictionary[Pod, _Places] = WeakKeyDictionary()
        self._waits: dict[str, tuple[float, float]] = {}
        """By twin: how many seconds one waited for a place, and until when that says something."""
        self._asked: dict[str, float] = {}
        """By twin: when it asked last."""
        self._looked_at = -math.inf

    def turn(self, twin: str, client: str = "") -> Turn:
        """Return what one request of a client has or waits for: nothing yet."""
        return Turn(self, twin, client)

    def running(self, twin: str) -> int:
        """Return how many places a twin has."""
        return sum(places.running[twin] for places in self._places.values())

    def last_wait(self, twin: str) -> float:
        """Return how many seconds a request of the twin lately waited for its place, 0 where none did."""
        seconds, until = self._waits.get(twin, (0.0, 0.0))
        return seconds if self.now() < until else 0.0

    def now(self) -> float:
        """Return the time by the clock that waits are told by."""
        return self._clock()

    def asks(self, twin: str) -> None:
        """Take down that the twin is one of those that share."""
        now = self.now()
        self._asked[twin] = now
        if now - self._looked_at > 1.0:
            self._looked_at = now
            self._asked = {name: at for name, at in self._asked.items() if now - at <= ACTIVE_SECONDS}

    def has_room(self, pod: Pod, twin: str) -> bool:
        """Tell whether the pod has a place for one more of this twin."""
        if pod.most is None:
            return True
        free = pod.most - pod.in_flight
        return free > pod.most // RESERVE_PART or (free > 0 and self._is_below_its_share(pod, pod.most, twin))

    def take(self, pod: Pod, twin: str) -> None:
        """Count a place that a request has from now on."""
        pod.in_flight += 1
        self._of(pod).running[twin] += 1

    def give_back(self, pod: Pod, twin: str) -> None:
        """Count it no longer, and let the next have it."""
        pod.in_flight -= 1
        running = self._of(pod).running
        running[twin] -= 1
        if not running[twin]:
            del running[twin]
        self.grant(pod)

    def queue(self, pod: Pod) -> FairQueue[Turn]:
        """Return what waits for a pod's places."""
        return self._of(pod).queue

    def grant(self, pod: Pod) -> None:
        """Give the pod's free places to those whose turn it is."""
        queue = self._of(pod).queue
        while queue and (turn := queue.next(lambda twin: self.has_room(pod, twin))) is not None:
            turn.granted(pod)

    def note_wait(self, twin: str, seconds: float) -> None:
        """Take down how long one waited for its place."""
        now = self.now()
        if len(self._waits) > _MOST_WAITS:
            self._waits = {name: kept for name, kept in self._waits.items() if kept[1] > now}
        self._waits[twin] = (seconds, now + RECENT_SECONDS)
        self._waited(seconds)

    def _of(self, pod: Pod) -> _Places:
        places = self._places.get(pod)
        if places is None:
            places = self._places[pod] = _Places(self._weight)
        return places

    def _weight(self, twin: str) -> float:
        return self._weights.get(twin, 1.0)

    def _is_below_its_share(self, pod: Pod, most: int, twin: str) -> bool:
        """Tell whether the twin has less of the pod than an equal part for each that has any, or than half of the most
        that one has: who asks little has seldom two at once, and several of those make an equal part small.
        """
        if len(self._asked) < 2:
            return True  # there is nobody to share with
        running, weight = self._of(pod).running, self._weight(twin)
        has = {name: count / self._weight(name) for name, count in running.items()} if self._weights else running
        weights = sum(map(self._weight, running)) if self._weights else float(len(running))
        if twin not in running:
            weights += weight
        share = most * weight / max(weights, weight + 1.0)  # beside one other at least: it may come back any time
        own = running[twin]
        return own < max(1, math.floor(share)) or own / weight < max(has.values(), default=0) / 2


class Turn:
    """One request's place at a pod, or its waiting for one."""

    __slots__ = ("_granted", "_pods", "_since", "_turns", "client", "twin")

    def __init__(self, turns: Turns, twin: str, client: str = "") -> None:
        self._turns, self.twin, self.client = turns, twin, client
        self._pods: frozenset[Pod] = frozenset()
        self._granted: asyncio.Future[Pod] | None = None
        self._since: float | None = None

    @property
    def waited(self) -> float | None:
        """Seconds since it began to wait; None where it doesn't."""
        return None if self._since is None else self._turns.now() - self._since

    def start(self, pod: Pod) -> None:
        """Take a free place at once; `give_back` it."""
        self.leave()
        self._turns.asks(self.twin)
        self._turns.queue(pod).started(self.twin)
        self._turns.take(pod, self.twin)

    def wait_at(self, pods: Collection[Pod]) -> None:
        """Wait at these pods and no others, keeping its place in the line of those where it waits already."""
        wanted = frozenset(pods)
        for pod in self._pods - wanted:
            self._turns.queue(pod).leave(self.twin, self)
        joined, self._pods = wanted - self._pods, wanted
        self._turns.asks(self.twin)
        if self._since is None:
            self._since = self._turns.now()
        if self._granted is None:
            self._granted = asyncio.get_running_loop().create_future()
        for pod in joined:
            self._turns.queue(pod).join(self.twin, self, owner=self.client)
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
        self._turns.note_wait(self.twin, self._turns.now() - self._since)
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
