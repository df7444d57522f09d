"""Who is next where several want one of D places: start-time fair queueing with depth D, without clock or I/O.

SFQ (Goyal, Vin, Cheng 1996) for a server that works on D at once (SFQ(D): Jin, Chase, Kaur, SIGMETRICS 2004). Each flow
has a start tag in a virtual time: what it has been given, divided by its weight, and never less than where all are. The
lowest tag is next. A flow that rested takes nothing along, neither a claim nor a debt of more than one start.
Within a flow its owners have the starts in rotation.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_MOST_AT_REST: Final = 1024
"""Flows that are remembered though nothing of theirs waits: only for a debt, which ends with the next few starts."""


@dataclass(slots=True, eq=False)
class _Flow(Generic[T]):
    name: str
    weight: float
    owners: dict[T, str] = field(default_factory=dict)
    """Of what waits."""
    waiting: OrderedDict[str, dict[T, None]] = field(default_factory=OrderedDict)
    """What waits, by owner, whose turn comes first before the others; each one's in the order in which it came."""
    finish: float = 0.0
    """Virtual time at which its last start is paid for."""
    entry: int = 0
    """Number of its entry in the heap that counts."""

    def add(self, item: T, owner: str) -> None:
        self.owners[item] = owner
        self.waiting.setdefault(owner, {})[item] = None

    def remove(self, item: T) -> None:
        owner = self.owners.pop(item)
        left = self.waiting[owner]
        del left[item]
        if not left:
            del self.waiting[owner]

    def take(self) -> T:
        """Remove and return what is next; its owner's next one comes after one of each other owner."""
        owner, items = next(iter(self.waiting.items()))
        item = next(iter(items))
        self.remove(item)
        if items:
            self.waiting.move_to_end(owner)
        return item


class FairQueue(Generic[T]):
    """What waits for one server, by flow. A call takes O(log of the flows that wait), and as much for each passed over.

    Of what waits in a flow of weight w, what is next starts after at most floor(v / w) + 1 starts of each other flow
    of weight v, whatever those ask for, from when it may start. What is its owner's first is next after at most one of
    each other owner.
    """

    def __init__(self, weight_of: Callable[[str], float] = lambda flow: 1.0) -> None:
        """`weight_of` returns a flow's weight, above 0, by its name; it is asked when the flow is first seen."""
        self._weight_of = weight_of
        self._flows: dict[str, _Flow[T]] = {}
        self._heap: list[tuple[float, int, _Flow[T]]] = []
        self._entries = 0
        self._now = 0.0
        """Start tag of what started last."""
        self._waiting = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._waiting

    def join(self, name: str, item: T, *, owner: str = "") -> None:
        """Let one wait, behind those of its flow and owner."""
        flow = self._flow(name)
        if item in flow.owners:
            return
        first = not flow.waiting
        flow.add(item, owner)
        self._waiting += 1
        if first:
            self._push(flow, max(self._now, flow.finish))

    def leave(self, name: str, item: T) -> None:
        """Let one wait no longer, if it does."""
        flow = self._flows.get(name)
        if flow is None or item not in flow.owners:
            return
        flow.remove(item)
        self._waiting -= 1
        if not flow.waiting:
            flow.entry = 0  # what is in the heap of it counts no longer
            self._forget(flow)

    def next(self, may: Callable[[str], bool] = lambda flow: True) -> T | None:
        """Start the one whose turn it is, of flows that `may` start one now; None when none of those waits."""
        passed_over: list[tuple[float, int, _Flow[T]]] = []
        found: T | None = None
        while self._heap:
            entry = heapq.heappop(self._heap)
            start, number, flow = entry
            if number != flow.entry:
                continue
            if not may(flow.name):
                passed_over.append(entry)
                continue
            found = flow.take()
            self._waiting -= 1
            self._charge(flow, start)
            if flow.waiting:
                self._push(flow, flow.finish)
            else:
                flow.entry = 0
                self._forget(flow)
            break
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found

    def started(self, name: str) -> None:
        """Count one that started without waiting; only where none of its flow waits."""
        flow = self._flow(name)
        self._charge(flow, max(self._now, flow.finish))
        self._forget(flow)

    def _charge(self, flow: _Flow[T], start: float) -> None:
        self._now = max(self._now, start)
        flow.finish = start + 1.0 / flow.weight

    def _push(self, flow: _Flow[T], start: float) -> None:
        self._entries += 1
        flow.entry = self._entries
        heapq.heappush(self._heap, (start, flow.entry, flow))

    def _flow(self, name: str) -> _Flow[T]:
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = _Flow(name, self._weight_of(name))
        return flow

    def _forget(self, flow: _Flow[T]) -> None:
        """Forget a flow at rest that owes nothing; where many do, those too."""
        if flow.finish <= self._now:
            del self._flows[flow.name]
        elif len(self._flows) > _MOST_AT_REST:
            self._flows = {name: each for name, each in self._flows.items() if each.waiting}
        if len(self._heap) > _MOST_AT_REST + 2 * len(self._flows):
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].entry]
            heapq.heapify(self._heap)
