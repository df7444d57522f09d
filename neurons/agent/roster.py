"""Which adapters this pod holds: the routing table turned into one keeper each, and a decent end for what left it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.report import AdapterReport, AdapterState
from bettertherapy_api.routing import Adapter, RoutingTable
from neurons.agent.engine import EngineClient, EngineDown, EngineError
from neurons.agent.keeper import AdapterKeeper, Fetch, Gates, PoolFacts
from neurons.agent.known_answers import KnownAnswers
from neurons.agent.measuring import Measuring
from neurons.agent.monitor import EngineMonitor
from neurons.agent.notes import NOTES_FILE, Notes
from neurons.agent.proof import Prover
from neurons.agent.settings import Settings
from neurons.agent.traffic import Traffic
from neurons.cluster import Backoff
from neurons.store import clean_leftovers

log = logging.getLogger(__name__)

_UNLOAD_ATTEMPTS: Final = 8


class Roster:
    """Holds the keepers. `apply` it a table; everything else happens in tasks of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: EngineClient,
        monitor: EngineMonitor,
        traffic: Traffic,
        fetch: Fetch,
        changed: Callable[[], None],
        loaded: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._monitor = monitor
        self._traffic = traffic
        self._fetch = fetch
        self._changed = changed
        self._loaded = loaded
        self._loadable = settings.endpoint is None
        self._gates = Gates(fetches=settings.fetches, loads=settings.loads)
        measuring = Measuring(engine, monitor, base_model=self._base_model)
        self.known_answers = KnownAnswers(measuring, monitor, traffic, can_restart=self._loadable)
        self._prover = Prover(
            measuring=measuring,
            known_answers=self.known_answers,
            monitor=monitor,
            notes=Notes(settings.adapters_dir / NOTES_FILE),
            local=self._loadable,
        )
        self._keepers: dict[str, AdapterKeeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lingering: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[str, tuple[AdapterKeeper, asyncio.Task[None]]] = {}
        self._strays: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.table: RoutingTable | None = None
        monitor.listeners.append(self._on_poll)

    # --- what others ask

    def verified(self, name: str) -> AdapterKeeper | None:
        """Return the keeper of a name that may be asked now."""
        keeper = self._keepers.get(name)
        return keeper if keeper is not None and keeper.verified else None

    def keepers(self) -> Iterable[AdapterKeeper]:
        """Return all adapters that are wanted."""
        return self._keepers.values()

    def all_verified(self) -> bool:
        """Tell whether nothing is on its way."""
        return self.table is not None and all(k.verified for k in self._keepers.values()) and not self._retiring

    def reports(self) -> dict[str, AdapterReport]:
        """Return every adapter's report, those on their way out included."""
        reports = {name: keeper.report() for name, (keeper, _) in self._retiring.items()}
        reports.update({name: keeper.report() for name, keeper in self._keepers.items()})
        return reports

    # --- what the table wants

    def prepare(self, table: RoutingTable) -> None:
        """Clear the disk of what no table wants any more; once, before the first `apply`. Blocks."""
        root = self._settings.adapters_dir
        root.mkdir(parents=True, exist_ok=True)
        clean_leftovers(root)
        wanted = {self._settings.adapter_path(a.twin, a.digest) for a in table.adapters}
        for twin in (p for p in root.iterdir() if p.is_dir()):
            for folder in (p for p in twin.iterdir() if p.is_dir() and p not in wanted):
                log.info("removing %s, which no twin wants", folder)
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                twin.rmdir()

    def apply(self, table: RoutingTable) -> None:
        """Begin to bring in what is new, and to let go of what is gone."""
        self.table = table
        pool = PoolFacts(table.base_model.name, table.max_lora_rank)
        wanted = {adapter.served_name: adapter for adapter in table.adapters}
        for name, adapter in wanted.items():
            if (lingering := self._lingering.pop(name, None)) is not None:
                lingering.cancel()
            if (keeper := self._keepers.get(name)) is not None:
                keeper.update(adapter, pool)
            else:
                self._start(adapter, pool)
        for name in self._keepers.keys() - wanted.keys() - self._lingering.keys():
            self._lingering[name] = asyncio.create_task(self._linger(name), name=f"linger {name}")
        self._changed()

    async def close(self) -> None:
        """Stop all tasks; the engine and the files stay as they are, so that the next agent finds them."""
        self._stopping = True
        tasks = [
            *self._tasks.values(),
            *self._lingering.values(),
            *self._strays.values(),
            *(task for _, task in self._retiring.values()),
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.load_seconds + 1)

    def _base_model(self) -> str | None:
        return self.table.base_model.name if self.table is not None else None

    def _start(self, adapter: Adapter, pool: PoolFacts) -> None:
        name = adapter.served_name
        keeper = AdapterKeeper(
            adapter,
            self._settings.adapter_path(adapter.twin, adapter.digest),
            pool=pool,
            fetch=self._fetch,
            engine=self._engine,
            monitor=self._monitor,
            prover=self._prover,
            gates=self._gates,
            loadable=self._loadable,
            backoff=Backoff(first=self._settings.retry_first, most=self._settings.retry_most),
            changed=self._changed,
            loaded=self._loaded,
        )
        self._keepers[name] = keeper
        retiring = self._retiring.get(name)
        self._tasks[name] = asyncio.create_task(
            self._keep(keeper, after=retiring[1] if retiring else None), name=f"adapter {name}"
        )

    async def _keep(self, keeper: AdapterKeeper, *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            # It was wanted again while it was on its way out: stop that, unless it has begun to unload and delete.
            after.cancel()
            await asyncio.wait({after})
        await keeper.run()

    async def _linger(self, name: str) -> None:
        if self._keepers[name].verified:
            await asyncio.sleep(self._settings.linger_seconds)
        del self._lingering[name]
        keeper, task = self._keepers.pop(name), self._tasks.pop(name)
        self._retiring[name] = (keeper, asyncio.create_task(self._retire(keeper, task), name=f"retire {name}"))

    async def _retire(self, keeper: AdapterKeeper, task: asyncio.Task[None]) -> None:
        """Take an adapter out once no request runs on it; cancelling this works until the unloading begins."""
        name = keeper.name
        try:
            task.cancel()
            await asyncio.wait({task})
            keeper.state = AdapterState.UNLOADING  # no request is let in from here on
            self._changed()
            await self._traffic.idle(name)
            await _uncancelled(self._take_out(keeper))
        finally:
            if self._retiring.get(name, (None,))[0] is keeper:
                del self._retiring[name]
            self._changed()

    async def _take_out(self, keeper: AdapterKeeper) -> None:
        if self._loadable and await self._unload(keeper.name):
            await asyncio.to_thread(_remove, keeper.path)
            log.info("adapter %s is out", keeper.name)

    async def _unload(self, name: str) -> bool:
        backoff = Backoff(first=self._settings.retry_first, most=5.0)
        for _ in range(_UNLOAD_ATTEMPTS):
            try:
                await self._engine.unload(name)
            except EngineDown:
                return True  # it holds nothing now
            except EngineError as error:
                log.warning("unloading %s: %s", name, error)
                if self._stopping:
                    return False
                await asyncio.sleep(backoff.next())
            else:
                return True
        log.error("adapter %s could not be unloaded; it is no longer let in, and tried again at the next look", name)
        return False

    def _on_poll(self) -> None:
        listing = self._monitor.listing
        for keeper in self._keepers.values():
            if not self._monitor.epoch or (not self._monitor.up and not listing.models):
                keeper.lose()  # nothing listens: that process is gone with all it held
            elif self._monitor.up:
                keeper.look_at(listing, epoch=self._monitor.epoch)
        if self.table is None or not self._loadable or not self._monitor.up:
            return
        for name, root in listing.adapters().items():
            if name in self._keepers or name in self._retiring or name in self._strays:
                continue
            # Only what an agent has loaded: modules given on vLLM's command line are none of our business.
            if Path(root).is_relative_to(self._settings.adapters_dir):
                self._strays[name] = asyncio.create_task(self._unload_stray(name), name=f"stray {name}")

    async def _unload_stray(self, name: str) -> None:
        try:
            await asyncio.sleep(self._settings.linger_seconds)
            if name not in self._keepers and name not in self._retiring:
                log.info("unloading %s, which no twin wants", name)
                await self._unload(name)
        finally:
            del self._strays[name]


async def _uncancelled(work: Coroutine[Any, Any, None]) -> None:
    """See `work` through; a cancellation is heeded only when it is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.parent.rmdir()
