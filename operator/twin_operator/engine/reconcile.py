"""The way every kind is reconciled: gather → plan → apply → report.

`plan` and `report` are pure: what is to be done, and what is to be said, follow from what was gathered and from the
time. `gather` reads the store (and now and then the API server), `apply` writes; a refusal that it meets goes into its
outcome, so that the report is written whatever happens. The report is written once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Generic, TypeVar

from twin_operator.engine.api import Api
from twin_operator.engine.apply import Applier, ApplyOutcome
from twin_operator.engine.conditions import Condition, dated
from twin_operator.engine.events import EventPoster, Notice
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.status import StatusFields, write_conditions_only, write_status
from twin_operator.engine.store import Entry, Store

Gathered = TypeVar("Gathered")
Plan = TypeVar("Plan")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a reconciler works with."""

    api: Api
    applier: Applier
    store: Store
    events: EventPoster
    wake: Callable[[Key], None]
    wake_at: Callable[[Key, datetime], None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to say of an object."""

    status: Manifest
    """The whole status but its conditions; None values are left out."""
    conditions: Sequence[Condition]
    notices: Callable[[Manifest, Manifest], Iterable[Notice]] = lambda before, now: ()
    """(status before, status now) → events, posted when the status was written."""
    wake_at: Sequence[datetime | None] = ()
    """When to look again though nothing changes."""
    outcome: ApplyOutcome | None = None
    """What became of the children: unless all is as planned, the object is reconciled again, with growing delays."""
    problem: Exception | None = None
    """Raised once everything is said, to the same end."""


class Reconciler(ABC, Generic[Gathered, Plan, Outcome]):
    """Brings the objects of one kind to what their specs ask."""

    kind: ClassVar[str]
    fields: ClassVar[StatusFields]
    """What this release knows of the kind's status."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.store = tools.store

    async def reconcile(self, key: Key) -> None:
        """Reconcile one object; raises ApiError, ChildConflictError or ConflictError to be called again."""
        entry = self.store.entry(key)
        if entry is None or "deletionTimestamp" in entry.manifest["metadata"]:
            return  # the garbage collector removes what it owned
        unreadable = self.unreadable(entry)
        if unreadable is not None:
            await self._say_unreadable(entry, unreadable)
            return
        try:
            await self.step(entry)
        finally:
            if not self.store.has(entry):
                self.gone(entry)  # it went meanwhile: what was noted of it since goes too

    async def step(self, entry: Entry) -> None:
        """Go through gather, plan, apply and report once."""
        gathered = await self.gather(entry)
        plan = self.plan(gathered, datetime.now(UTC))
        outcome = await self.apply(entry, gathered, plan)
        report = self.report(gathered, plan, outcome)
        if report is None:
            return
        await self._write(entry, report)
        await self.after_report(entry, gathered, plan)
        for moment in report.wake_at:
            if moment is not None:
                self.tools.wake_at(entry.key, moment)
        if report.outcome is not None:
            report.outcome.raise_incomplete()
        if report.problem is not None:
            raise report.problem

    def gone(self, entry: Entry) -> None:  # most kinds remember nothing
        """Drop what this process remembers of an object that is no more."""

    @abstractmethod
    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Return what to say of an object that this release can't read; None for one that it can."""

    @abstractmethod
    async def gather(self, entry: Entry) -> Gathered:
        """Collect everything that the plan depends on."""

    @abstractmethod
    def plan(self, gathered: Gathered, now: datetime) -> Plan:
        """Return what should be; pure."""

    @abstractmethod
    async def apply(self, entry: Entry, gathered: Gathered, plan: Plan) -> Outcome:
        """Bring it about as far as possible; raises only what leaves nothing to say."""

    @abstractmethod
    def report(self, gathered: Gathered, plan: Plan, outcome: Outcome) -> Report | None:
        """Return what to say; None when the object is gone."""

    async def after_report(self, entry: Entry, gathered: Gathered, plan: Plan) -> None:
        """Do what may only happen once everything was said and written down."""

    async def _write(self, entry: Entry, report: Report) -> None:
        thing = entry.manifest
        before = thing.get("status") or {}
        generation = thing["metadata"].get("generation", 0)
        conditions = dated(
            report.conditions, live=before.get("conditions") or [], generation=generation, now=datetime.now(UTC)
        )
        status = {**report.status, "conditions": conditions}
        if await write_status(self.tools.api, self.store, thing=thing, status=status, known=self.fields):
            for notice in report.notices(before, status):
                await self.tools.events.post(thing, notice)

    async def _say_unreadable(self, entry: Entry, conditions: Sequence[Condition]) -> None:
        """Say so in the conditions alone: the rest of the status is another release's, and stays."""
        thing = entry.manifest
        before = (thing.get("status") or {}).get("conditions")
        live = (
            [each for each in before if isinstance(each, dict) and "type" in each] if isinstance(before, list) else []
        )
        generation = thing["metadata"].get("generation", 0)
        said = dated(conditions, live=live, generation=generation, now=datetime.now(UTC))
        await write_conditions_only(self.tools.api, self.store, thing=thing, conditions=said)
