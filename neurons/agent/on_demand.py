"""Adapters that a pod loads when they are asked for, and lets go by least recent use: of twins with mode OnDemand.

How one comes in is its keeper's work, and the same as for any: fetched, checked, loaded and proven before it answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from bettertherapy_api.report import AdapterState
from bettertherapy_api.routing import TwinEntry
from neurons.agent.keeper import AdapterKeeper
from neurons.agent.traffic import Traffic
from neurons.agent.wanted import Wanted, WantedAdapter


class Loader(Protocol):
    """The roster, as far as it is needed here."""

    def start(self, adapter: WantedAdapter) -> None:
        """Begin to bring an adapter in."""

    def let_go(self, name: str) -> None:
        """Let no more requests in to it, and take it out when the last has ended."""

    def most(self) -> int:
        """Return how many adapters may be here, those that are held at all times among them."""


class OnDemand:
    """What may be loaded, in the order of its last use."""

    def __init__(
        self,
        wanted: Wanted,
        keepers: Mapping[str, AdapterKeeper],
        *,
        loader: Loader,
        traffic: Traffic,
        is_held: Callable[[str], bool],
        can_load: Callable[[], bool] = lambda: True,
        counted: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """`is_held` tells whether a name is held at all times, `can_load` whether the engine takes adapters now;
        `counted` is told what came of a wait, and evictions.
        """
        self._wanted, self._keepers, self._loader, self._traffic = wanted, keepers, loader, traffic
        self._is_held, self._can_load, self._counted = is_held, can_load, counted
        self._used: OrderedDict[str, None] = OrderedDict()
        """Names that were asked for, the latest last."""
        self._waiting: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._stopping = False

    def stop(self, stopping: bool) -> None:
        """Let nobody wait while the pod drains: another pod is to be asked at once."""
        if stopping != self._stopping:
            self._stopping = stopping
            self.changed()

    def update(self, twins: Mapping[str, TwinEntry], changed: Iterable[str]) -> set[str]:
        """Take the twins of these UIDs as they are now, or gone; return the served names whose adapter may differ."""
        return self._wanted.update(twins, changed)

    def adapter(self, name: str) -> WantedAdapter | None:
        """Return what may be loaded under a name; None where nothing may, or two twins disagree on it."""
        return self._wanted.adapter(name)

    def used(self, name: str) -> None:
        """Take down that a name was asked for now."""
        if self.adapter(name) is not None:
            self._used[name] = None
            self._used.move_to_end(name)

    def idle(self) -> None:
        """Let those that wait for room look again: a request has ended."""
        if self._waiting:
            self.changed()

    def changed(self) -> None:
        """Let those that wait look again: some keeper's state is another, or the engine's."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def bring(self, name: str, *, seconds: float) -> None:
        """Have an adapter loaded, and wait until it is verified, failed for good, or so many seconds have passed.

        Nobody waits for an engine that can't load: it is restarted, which takes longer than another pod.
        """
        adapter = self.adapter(name)
        if adapter is None:
            return
        self._waiting[name] += 1
        try:
            async with asyncio.timeout(seconds):
                outcome = await self._brought(name)
        except TimeoutError:
            outcome = "late"
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
        self._counted(outcome)

    async def _brought(self, name: str) -> str:
        while True:
            adapter, keeper = self.adapter(name), self._keepers.get(name)
            if adapter is None or (keeper is not None and keeper.adapter.digest != adapter.digest):
                return "gone"
            if self._stopping or not self._can_load():
                return "late"
            if keeper is None and self.make_room(1):
                self.used(name)
                self._loader.start(adapter)
            elif keeper is not None and keeper.verified:
                return "loaded"
            elif keeper is not None and keeper.state is AdapterState.FAILED and keeper.hopeless:
                return "failed"
            await self._news.wait()

    def make_room(self, count: int = 0) -> bool:
        """Let go of the least recently used that nobody uses until so many more fit; tell whether they do."""
        over = len(self._keepers) + count - self._loader.most()
        for name in [*self._used] if over > 0 else ():
            if over <= 0:
                break
            if name not in self._keepers:
                del self._used[name]
            elif not self._is_held(name) and not self._traffic.running(name) and not self._waiting[name]:
                del self._used[name]
                self._loader.let_go(name)
                self._counted("evicted")
                over -= 1
        return over <= 0
