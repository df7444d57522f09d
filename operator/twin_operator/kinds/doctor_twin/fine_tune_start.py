"""Makes the fine-tune runs that are due, beside the twins' own reconciliation: an API server that lets a run wait, or
refuses it, delays nothing of what patients hear.

A twin says what it has decided first, and asks for a start then. What is to be made is planned anew from what the store
has by then, and the status goes on once the run is there: killed at any moment, the next operator finds the run either
due or made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from bettertherapy_api.doctor_twin import MAX_OBSTACLE
from twin_operator.domain.objects import Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.domain.twin_view import TwinView
from twin_operator.engine.conditions import Finding, shortened
from twin_operator.engine.events import Notice
from twin_operator.engine.reconcile import Tools
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, plan_fine_tune
from twin_operator.kinds.doctor_twin.gather import gather
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN
from twin_operator.kinds.world import World

FINE_TUNE_START: Final = "FineTuneStart"
"""Kind of the keys by which starts are queued, each named as its twin; there is no such object."""


class Add(Protocol):
    """Puts a key into the queue."""

    def __call__(self, key: Key, *, urgent: bool = False, first: bool | None = None) -> None:
        """Let the key be looked at; `urgent` cuts the delay of one that failed short."""


@dataclass(frozen=True, kw_only=True)
class _Refused:
    uid: str
    asked: object
    """What people asked of the twin then."""
    message: str


def planned_fine_tune(view: TwinView, *, now: datetime, window_seconds: int) -> FineTunePlan:
    """Return what to do about the twin's fine-tunes."""
    pool = choose_pool(view.twin, [pool.pool for pool in view.pools])
    return plan_fine_tune(view.twin, view.runs, pool, now=now, window_seconds=window_seconds)


class FineTuneStarter:
    """Starts fine-tunes; its keys' queue sees to it that a twin has one start at a time and tries again."""

    def __init__(self, tools: Tools, *, world: World, add: Add, window_seconds: int) -> None:
        self._tools = tools
        self._world = world
        self._add = add
        self._window_seconds = window_seconds
        self._refused: dict[Key, _Refused] = {}

    def ask(self, twin: Twin) -> None:
        """Let the run that is due be made; at once, however often it was refused, when a person asks anew."""
        key = _key(twin)
        refused = self._refused.get(key)
        self._add(key, urgent=refused is not None and refused.asked != _asked(twin), first=False)

    def obstacle(self, twin: Twin) -> Finding | None:
        """Return why a run that is due was not made. What an operator before this one said holds until it is tried."""
        refused = self._refused.get(_key(twin))
        if refused is not None and refused.uid == twin.uid:
            return _refusal(refused.message)
        said = twin.status.fine_tune_obstacle
        return Finding(Reason.RUN_REFUSED, said.message) if said and said.reason == Reason.RUN_REFUSED else None

    def forget(self, twin: Key) -> None:
        """Drop what is known of a twin that is gone."""
        self._refused.pop(Key(FINE_TUNE_START, twin.namespace, twin.name), None)

    async def reconcile(self, key: Key) -> None:
        """Make the run that is due now, if one is; raises ApiError to be called again."""
        entry = self._world.store.entry(Key(DOCTOR_TWIN.kind, key.namespace, key.name))
        wanted = self._due(entry)
        if entry is None or wanted is None:
            self._refused.pop(key, None)
            return
        twin: Twin = entry.value
        name = wanted["metadata"]["name"]
        try:
            made = await self._tools.api.create(wanted)
        except ApiError as error:
            if error.status == 409 and await self._is_there(twin, name):
                self._refused.pop(key, None)
                return
            self._say_refused(key, entry, error)
            raise
        self._refused.pop(key, None)
        self._world.store.put(made)  # which wakes the twin, whose status goes on
        await self._tools.events.post(
            entry.manifest, Notice(reason="FineTuneStarted", note=f"created FineTuneRun {name}")
        )

    def _due(self, entry: Entry | None) -> Manifest | None:
        """Return the run to make for a twin that is there and can be read."""
        if entry is None or not isinstance(entry.value, Twin) or entry.value.deleted:
            return None
        view = gather(self._world, entry.value)
        return planned_fine_tune(view, now=datetime.now(UTC), window_seconds=self._window_seconds).create

    def _say_refused(self, key: Key, entry: Entry, error: ApiError) -> None:
        if not self._world.store.has(entry):
            return  # it went meanwhile, and nobody would forget this
        twin, before = entry.value, self._refused.get(key)
        now = self._refused[key] = _Refused(uid=twin.uid, asked=_asked(twin), message=error.message)
        if before is None or (before.uid, before.message) != (now.uid, now.message):
            self._tools.wake(entry.key)  # its status tells

    async def _is_there(self, twin: Twin, name: str) -> bool:
        """Tell whether the run that could not be made exists and is this very twin's."""
        live = await self._tools.api.get(FINE_TUNE_RUN, namespace=twin.namespace, name=name)
        if live is not None:
            self._world.store.put({"apiVersion": FINE_TUNE_RUN.api_version, "kind": FINE_TUNE_RUN.kind, **live})
        return any(run.name == name for run in self._world.runs_of(twin))


def _refusal(message: str) -> Finding:
    """Return what the API server said, no longer than the status holds: the next operator is to say the same."""
    said = f"the API server refuses to create the FineTuneRun that is due: {message}"
    return Finding(Reason.RUN_REFUSED, shortened(said, MAX_OBSTACLE))


def _key(twin: Twin) -> Key:
    return Key(FINE_TUNE_START, twin.namespace, twin.name)


def _asked(twin: Twin) -> object:
    return twin.generation, twin.annotations
