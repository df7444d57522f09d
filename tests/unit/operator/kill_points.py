"""Sieve's way: one scenario through pool, twin and fine-tune, with the operator killed after any of its writes.

The operator is the whole one over an API server in memory, in time that jumps. However often it is killed, and whatever
its successor has seen, the scenario must end with the same objects, each made and deleted as often as undisturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import WATCHED_BY_KIND, Played
from tests.unit.operator.samples import digest
from tests.unit.operator.virtual_time import play
from twin_operator.engine.queue import work
from twin_operator.engine.resources import Key, Manifest, Resource

View = Literal["fresh", "stale", "still"]
"""What a successor has seen: all; its store was filled some writes ago, before it lists anew; or its watches stand
still for a while after it has listed."""
VIEWS: Final[tuple[View, ...]] = ("fresh", "stale", "still")
STALE_WRITES: Final = 6
STILL_SECONDS: Final = 20.0
QUIET_SECONDS: Final = 750.0
"""Longer than the operator's full resync takes to come round, and than any delay after which it tries again."""
_ROLLBACK_TO: Final = f"{digest('b')}@1"


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of the operator's catches it."""


@dataclass
class MortalApi(FakeApi):
    """Kills who writes, right after the write was done."""

    kill_after: Callable[[int], bool] = lambda number: False
    """Told how many writes were done in all."""
    changes: int = 0
    history: deque[dict[Key, Manifest]] = field(default_factory=lambda: deque(maxlen=STALE_WRITES))
    """What was there before each of the last writes."""
    made: Counter[Key] = field(default_factory=Counter)
    gone: Counter[Key] = field(default_factory=Counter)
    identities: dict[str, str] = field(default_factory=dict)
    """UID → the object and how many of its name came before."""
    _done: int = 0

    def __post_init__(self) -> None:
        self.listeners.append(self._count)

    async def create(self, manifest: Manifest) -> Manifest:
        return self._survived(await super().create(manifest))

    async def merge(self, resource: Resource, *, namespace: str, name: str, patch: Manifest, **more: Any) -> Manifest:
        return self._survived(await super().merge(resource, namespace=namespace, name=name, patch=patch, **more))

    async def apply(
        self, manifest: Manifest, *, subresource: str | None = None, manager: str = names.FIELD_MANAGER
    ) -> Manifest:
        return self._survived(await super().apply(manifest, subresource=subresource, manager=manager))

    async def delete(
        self, resource: Resource, *, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        await super().delete(resource, namespace=namespace, name=name, uid=uid, version=version)
        self._survived({})

    def _survived(self, answer: Manifest) -> Manifest:
        if len(self.writes) == self._done:
            return answer  # it changed nothing: that is the kill point before
        self._done = len(self.writes)
        self.history.append(dict(self.objects))
        if self.kill_after(self._done):
            raise KilledError
        return answer

    def _count(self, event: str, thing: Manifest) -> None:
        self.changes += 1
        metadata = thing["metadata"]
        key = Key(thing["kind"], metadata["namespace"], metadata["name"])
        if key.kind == "Event":
            return
        if event == "ADDED":
            self.identities[metadata["uid"]] = f"<{key.kind} {key.name} {self.made[key]}>"
            self.made[key] += 1
        elif event == "DELETED":
            self.gone[key] += 1


class Life:
    """One operator process from its taking over until it is killed."""

    def __init__(self, api: MortalApi, *, view: View) -> None:
        self._api = api
        self._view = view
        self._played = Played(api)
        self.process = self._played.process
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Take over as a new leader does."""
        if self._view == "stale" and self._api.history:
            for kind, watched in WATCHED_BY_KIND.items():
                self._played.hears = False
                things = [thing for key, thing in self._api.history[0].items() if key.kind == kind]
                if watched.selector is not None:
                    things = [each for each in things if watched.selector in (each["metadata"].get("labels") or {})]
                for thing in things:
                    self.process.store.put(thing)
        self._played.hears = True
        self.process.queue.clear()
        await self.process.relist()
        self.process._gained()
        worker = work(self.process.queue, self.process._reconcile, may_work=self.process._may_work)
        self._tasks += [asyncio.create_task(worker), asyncio.create_task(self.process._resync())]
        if self._view == "still":
            self._played.hears = False
            self._tasks.append(asyncio.create_task(self._hear_again()))

    async def _hear_again(self) -> None:
        await asyncio.sleep(STILL_SECONDS)
        self._played.hears = True
        await self.process.relist()

    async def killed(self) -> None:
        """Wait until it is killed; raises what else ends it."""
        with contextlib.suppress(KilledError):
            await self._tasks[0]

    async def end(self) -> None:
        """Leave nothing of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._api.listeners.remove(self._played._heard)
        self.process._lost()


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a scenario ended."""

    state: Mapping[str, Any]
    made: Mapping[str, int]
    gone: Mapping[str, int]
    writes: tuple[str, ...]
    lives: int

    def differs(self, other: Ending) -> list[str]:
        """Return in what another ending differs from this one."""
        found = []
        for what in ("made", "gone", "state"):
            mine, others = getattr(self, what), getattr(other, what)
            found += [
                f"{what} {name}: {mine.get(name)!r} undisturbed, {others.get(name)!r} now"
                for name in sorted(mine.keys() | others.keys())
                if mine.get(name) != others.get(name)
            ]
        return found


def run_scenario(kill_after: Callable[[int], bool] = lambda number: False, *, view: View = "fresh") -> Ending:
    """Play it; the operator is killed after each write for which `kill_after` says so."""
    runs = {names.asked_run_name("dr-a", token): letter for token, letter in (("1", "b"), ("2", "c"))}
    return play(_OneTwin(kill_after, view=view, trained=runs).run())


class Stage:
    """Operators one after the other, and everybody around them; `trained` is what the cast's runs make."""

    def __init__(self, kill_after: Callable[[int], bool], *, view: View, trained: Mapping[str, str]) -> None:
        self.api = MortalApi(kill_after=kill_after)
        self.changed = asyncio.Event()
        self.api.listeners.append(lambda event, thing: self.changed.set())
        self.view = view
        self.lives = 0
        self.life: Life | None = None
        self.cast = Cast(self.api, trained)

    async def run(self) -> Ending:
        around = asyncio.create_task(self._surroundings())
        operator = asyncio.create_task(self._operators())
        story = asyncio.create_task(self._story())
        try:
            await asyncio.wait({around, operator, story}, return_when=asyncio.FIRST_COMPLETED)
            for task in (around, operator):
                if task.done():
                    task.result()
            await story
        finally:
            for task in (around, operator, story):
                task.cancel()
            await asyncio.wait({around, operator, story})
            if self.life is not None:
                await self.life.end()
        return self._ending()

    async def _surroundings(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            await asyncio.sleep(0.5)
            self.cast.act()

    async def _operators(self) -> None:
        while True:
            self.life = Life(self.api, view=self.view if self.lives else "fresh")
            self.lives += 1
            await self.life.begin()
            await self.life.killed()
            await self.life.end()
            self.life = None
            await asyncio.sleep(1)  # until another takes the Lease

    async def _story(self) -> None:
        """What people do; each step awaits the outcome of the one before."""
        raise NotImplementedError

    async def _quiet(self) -> None:
        changes = -1
        while changes != self.api.changes:
            changes = self.api.changes
            await asyncio.sleep(QUIET_SECONDS)

    async def _until(self, what: str, check: Callable[[], bool], *, seconds: float = 300) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not check():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}; {sorted(map(str, self.api.objects))}")
            await asyncio.sleep(0.1)

    def _ending(self) -> Ending:
        return Ending(
            state={
                f"{key.kind} {key.name}": plain(
                    {**thing, "data": "drawn"} if key.kind == "Secret" else thing, self.api.identities
                )
                for key, thing in self.api.objects.items()
            },
            made={f"{key.kind} {key.name}": count for key, count in self.api.made.items()},
            gone={f"{key.kind} {key.name}": count for key, count in self.api.gone.items()},
            writes=tuple(f"{each.verb} {each.key.kind} {each.key.name}" for each in self.api.writes),
            lives=self.lives,
        )  # fmt: skip


class _OneTwin(Stage):
    async def _story(self) -> None:
        world = Played(self.api)
        world.hears = False  # only its eyes and hands are used
        world.start_pool(store={"uri": "pvc://adapters/store"}, replicas=1)
        await self._until("the pool is there", lambda: world.condition("EngineLive", world.pool())[0] == "True")
        rollout = {"steps": [{"weightPercent": 10, "seconds": 5}, {"weightPercent": 50, "seconds": 5}]}
        world.start_twin(rollout=rollout, systemPrompt="You are Dr. A.")
        await self._until("the twin is Ready", lambda: world.condition("Ready", world.twin())[0] == "True")
        world.annotate("dr-a", **{names.FINETUNE_NOW_ANNOTATION: "1"})
        await self._until("b is promoted", lambda: world.answering() == [(digest("b"), 100)])
        run = names.asked_run_name("dr-a", "1")
        await self._until(
            "its run says so", lambda: world.condition("Promoted", self.api.kinds("FineTuneRun")[run])[0] == "True"
        )
        world.annotate("dr-a", **{names.FINETUNE_NOW_ANNOTATION: "2"})
        await self._until("c is tried", lambda: (digest("c"), 10) in world.answering())
        world.annotate("dr-a", **{names.ROLLBACK_ANNOTATION: _ROLLBACK_TO})
        await self._until("b answers alone", lambda: world.answering() == [(digest("b"), 100)])
        run = names.asked_run_name("dr-a", "2")
        await self._until(
            "c's run is rejected", lambda: world.condition("Rejected", self.api.kinds("FineTuneRun")[run])[0] == "True"
        )
        world.drop_twin()
        world.start_twin(adapter="d", doctor={"name": "Dr. Another", "licence": "L2"}, systemPrompt="You are Dr. D.")
        await self._until("the new one answers", lambda: world.answering() == [(digest("d"), 100)])
        await self._until("the new twin is Ready", lambda: world.condition("Ready", world.twin())[0] == "True")
        await self._quiet()


def plain(value: Any, identities: Mapping[str, str]) -> Any:
    """Return what an object says without what differs from one time to another; UIDs are named by `identities`."""
    if isinstance(value, dict):
        return {
            identities.get(key, key): plain(item, identities)
            for key, item in value.items()
            if key not in ("resourceVersion", "creationTimestamp", f"{names.GROUP}/plan")
        }
    if isinstance(value, list):
        return [plain(item, identities) for item in value]
    if isinstance(value, str):
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", identities.get(value, value))
    return value
