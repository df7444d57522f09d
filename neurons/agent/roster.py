"""Which adapters this pod holds: the pool's routing turned into one keeper each, and a decent end for what left it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.report import AdapterReport
from bettertherapy_api.routing import Adapter, PoolHeader, TwinEntry
from neurons.agent.engine import EngineClient, EngineDown, EngineError
from neurons.agent.gates import Gates
from neurons.agent.keeper import AdapterKeeper, Fetch, PoolFacts
from neurons.agent.known_answers import KnownAnswers
from neurons.agent.measuring import Measuring
from neurons.agent.monitor import EngineMonitor
from neurons.agent.notes import NOTES_FILE, Notes
from neurons.agent.on_demand import OnDemand
from neurons.agent.proof import Prover
from neurons.agent.settings import Settings
from neurons.agent.started import Started
from neurons.agent.traffic import Traffic
from neurons.agent.wanted import Wanted, WantedAdapter
from neurons.cluster import Backoff
from neurons.store import clean_leftovers

log = logging.getLogger(__name__)

_UNLOAD_ATTEMPTS: Final = 8


class Roster:
    """Holds the keepers. `apply` what the routing says; everything else happens in tasks of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: EngineClient,
        monitor: EngineMonitor,
        traffic: Traffic,
        fetch: Fetch,
        changed: Callable[[], None],
        moved: Callable[[], None],
        loaded: Callable[[float], None] = lambda seconds: None,
        demanded: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """`demanded` is told what came of each wait for an adapter that is loaded on demand, and of evictions."""
        self._settings = settings
        self._engine = engine
        self._monitor = monitor
        self._traffic = traffic
        self._fetch = fetch
        self._tell_changed, self._tell_moved = changed, moved
        self._loaded = loaded
        self._loadable = settings.endpoint is None
        self._gates = Gates(fetches=settings.fetches, loads=settings.loads)
        self.measuring = measuring = Measuring(engine, monitor, base_model=self._base_model)
        notes = Notes(settings.adapters_dir / NOTES_FILE, server=settings.endpoint or "")
        self.known_answers = KnownAnswers(measuring, monitor, traffic, notes, can_restart=self._loadable)
        self.known_answers.beside = self._any_verified
        monitor.history = self.known_answers.history
        self.prover = Prover(
            measuring=measuring,
            known_answers=self.known_answers,
            monitor=monitor,
            notes=notes,
            local=self._loadable,
        )
        self._keepers: dict[str, AdapterKeeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lingering: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[str, tuple[AdapterKeeper, asyncio.Task[None]]] = {}
        self._strays: dict[str, asyncio.Task[None]] = {}
        self._left: dict[str, Path] = {}
        """Folders of adapters that couldn't be unloaded; they go when the engine has let go of the name."""
        self._stopping = False
        self._wanted = Wanted(lambda twin: twin.held_by(settings.pod_uid))
        self.on_demand = OnDemand(
            Wanted(_on_demand), self._keepers, loader=self, traffic=traffic,
            is_held=lambda name: self._wanted.adapter(name) is not None, can_load=lambda: monitor.live,
            counted=demanded,
        )  # fmt: skip
        self.pool: PoolHeader | None = None
        """The pool as the newest routing has it; None until some was read."""
        monitor.listeners.append(self._on_poll)

    # --- what others ask

    def verified(self, name: str) -> AdapterKeeper | None:
        """Return the keeper of a name that may be asked now."""
        keeper = self._keepers.get(name)
        return keeper if keeper is not None and keeper.verified else None

    def keeper(self, name: str) -> AdapterKeeper | None:
        """Return the keeper of a name, in whatever state."""
        return self._keepers.get(name)

    def keepers(self) -> Iterable[AdapterKeeper]:
        """Return all adapters that are wanted."""
        return self._keepers.values()

    def most(self) -> int:
        """Return how many adapters may be here: those that are held at all times, and beside them some on demand."""
        if self.pool is None:
            return 0
        held = sum(self._wanted.adapter(name) is not None for name in self._keepers)
        return max(self.pool.max_at_hand or self.pool.max_loras, held + max(1, self.pool.max_loras))

    def start(self, adapter: WantedAdapter) -> None:
        """Begin to bring in an adapter that was asked for."""
        if (facts := self._facts()) is not None:
            self._start(adapter, facts)
            self._moved()

    def let_go(self, name: str) -> None:
        """Let no more requests in to an adapter, and take it out when the last has ended."""
        self._let_go(name)
        self._changed()

    def _changed(self) -> None:
        self.on_demand.changed()
        self._tell_changed()

    def _moved(self) -> None:
        self.on_demand.changed()
        self._tell_moved()

    def _any_verified(self) -> str | None:
        return next((keeper.name for keeper in self._keepers.values() if keeper.verified), None)

    def all_verified(self) -> bool:
        """Tell whether nothing is on its way."""
        return self.pool is not None and all(k.verified for k in self._keepers.values()) and not self._retiring

    def reports(self) -> dict[str, AdapterReport]:
        """Return every adapter's report, those on their way out included."""
        reports = {name: keeper.report() for name, (keeper, _) in self._retiring.items()}
        reports.update({name: keeper.report() for name, keeper in self._keepers.items()})
        return reports

    # --- what the routing wants

    def prepare(self, twins: Mapping[str, TwinEntry]) -> None:
        """Clear the disk of what no twin wants any more; once, before the first `apply`. Blocks."""
        root = self._settings.adapters_dir
        root.mkdir(parents=True, exist_ok=True)
        clean_leftovers(root)
        wanted = {
            self._settings.adapter_path(twin.name, adapter.digest)
            for twin in twins.values()
            for adapter in twin.held_by(self._settings.pod_uid)
        }
        for twin in (p for p in root.iterdir() if p.is_dir()):
            for folder in (p for p in twin.iterdir() if p.is_dir() and p not in wanted):
                log.info("removing %s, which no twin wants", folder)
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                twin.rmdir()

    def apply(self, pool: PoolHeader, twins: Mapping[str, TwinEntry], *, changed: Iterable[str]) -> None:
        """Begin to bring in what is new, and to let go of what is gone; `changed` are UIDs of twins, gone ones too."""
        before, self.pool = self._facts(), pool
        facts = PoolFacts(pool.base_model.name, pool.max_lora_rank)
        if facts != before:
            for held in self._keepers.values():
                held.update(held.adapter, facts)
        changed = list(changed)
        for name in self._wanted.update(twins, changed) | self.on_demand.update(twins, changed):
            adapter, keeper = self._wanted.adapter(name), self._keepers.get(name)
            if adapter is None and keeper is not None and (loadable := self.on_demand.adapter(name)) is not None:
                adapter = loadable  # what is here stays as long as there is room
                self.on_demand.used(name)
            if adapter is None:
                if keeper is not None and name not in self._lingering:
                    self._lingering[name] = asyncio.create_task(self._linger(name), name=f"linger {name}")
                continue
            if (lingering := self._lingering.pop(name, None)) is not None:
                lingering.cancel()
            if keeper is not None and keeper.adapter.digest != adapter.digest:
                self._let_go(name)  # a name may never stand for other bytes than it did
                keeper = None
            if keeper is not None:
                keeper.update(adapter, facts)
            else:
                self._start(adapter, facts)
        self.on_demand.make_room()
        self._moved()

    def _facts(self) -> PoolFacts | None:
        return None if self.pool is None else PoolFacts(self.pool.base_model.name, self.pool.max_lora_rank)

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
        return self.pool.base_model.name if self.pool is not None else None

    def _start(self, adapter: WantedAdapter, pool: PoolFacts) -> None:
        name = adapter.served_name
        keeper = AdapterKeeper(
            adapter,
            self._settings.adapter_path(adapter.twin, adapter.digest),
            pool=pool,
            fetch=self._fetch,
            engine=self._engine,
            monitor=self._monitor,
            prover=self.prover,
            gates=self._gates,
            loadable=self._loadable,
            started=Started(
                attention_only=self._settings.lora_targets == LoraTargets.ATTENTION,
                max_rank=self._settings.max_lora_rank,
                follows=self._settings.follows_adapters,
            ),
            backoff=Backoff(first=self._settings.retry_first, most=self._settings.retry_most),
            changed=self._changed,
            moved=self._moved,
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
        self._let_go(name)

    def _let_go(self, name: str) -> None:
        keeper, task = self._keepers.pop(name), self._tasks.pop(name)
        self._retiring[name] = (keeper, asyncio.create_task(self._retire(keeper, task), name=f"retire {name}"))

    async def _retire(self, keeper: AdapterKeeper, task: asyncio.Task[None]) -> None:
        """Take an adapter out once no request runs on it; cancelling this works until the unloading begins."""
        name = keeper.name
        try:
            task.cancel()
            await asyncio.wait({task})
            keeper.leave()  # no request is let in from here on
            await self._traffic.idle(name)
            await _uncancelled(self._take_out(keeper))
        finally:
            if self._retiring.get(name, (None,))[0] is keeper:
                del self._retiring[name]
            self._changed()

    async def _take_out(self, keeper: AdapterKeeper) -> None:
        if not self._loadable:
            return
        if await self._unload(keeper.name):
            await asyncio.to_thread(_remove, keeper.path)
            log.info("adapter %s is out", keeper.name)
        else:
            self._left[keeper.name] = keeper.path

    async def _unload(self, name: str) -> bool:
        backoff = Backoff(first=self._settings.retry_first, most=5.0)
        for _ in range(_UNLOAD_ATTEMPTS):
            try:
                async with self._gates.unloads:
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
        if not self._monitor.live:
            self.on_demand.changed()
        if self.pool is None or not self._loadable or not self._monitor.up:
            return
        for name in self._left.keys() - listing.adapters().keys() - self._retiring.keys() - self._strays.keys():
            path = self._left.pop(name)
            if name not in self._keepers and (aside := _put_aside(path)) is not None:
                log.info("removing %s, which no twin wants", path)
                self._strays[name] = asyncio.create_task(self._remove_left(name, aside), name=f"left {name}")
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

    async def _remove_left(self, name: str, path: Path) -> None:
        try:
            await asyncio.to_thread(_remove, path)
        finally:
            del self._strays[name]


def _on_demand(twin: TwinEntry) -> tuple[Adapter, ...]:
    return () if (adapter := twin.on_demand) is None else (adapter,)


async def _uncancelled(work: Coroutine[Any, Any, None]) -> None:
    """See `work` through; a cancellation is heeded only when it is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _put_aside(path: Path) -> Path | None:
    """Rename a folder at once, so that one that is fetched anew meanwhile isn't removed; None when it is gone."""
    aside = path.with_name(f".{path.name}.left.part")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.parent.rmdir()
