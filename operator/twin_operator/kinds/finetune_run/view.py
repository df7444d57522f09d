"""What a run's plan depends on, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from bettertherapy_api.finetune_run import RunRef
from twin_operator.domain.batches import PATIENCE, Await, Share, elect, is_shared
from twin_operator.domain.judge import Judge
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.finetune_run.facts import RunFacts


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run with all that its plan depends on."""

    run: Run
    twin: Twin | None
    pool: Pool | None
    """Where it runs: the one it was given to, else the one it would be given to."""
    obstacle: Finding | None
    """Why it can't run at the moment, or must wait; of no account once it has started."""
    out_of_bounds: Finding | None = None
    """What its spec, which can't change, names and tenants may not use; likewise."""
    facts: RunFacts = field(default_factory=RunFacts)
    of_twin: tuple[Run, ...] = ()
    """All runs of the twin."""
    unreadable_twin: Finding | None = None
    """What to say where the twin is there, but can't be read: what becomes of the run is decided once it can."""
    unreadable_pool: Finding | None = None
    """The same of the pool."""
    judge: Judge | Finding | None = None
    """Of the twin's gate, or why it may not be asked; None where the gate names none."""
    along: tuple[RunRef, ...] = ()
    """Of one that waits: whom its trainer would train too."""
    asked_by: RunRef | None = None
    """Of one that waits: the run whose trainer trains it too."""
    training: Share | None = None
    """With whom it shares a trainer; None: with nobody."""
    examining: Share | None = None
    """With whom it shares an examiner."""
    peers: tuple[Run, ...] = ()
    """The other runs of its trainer that live and have not ended."""
    closed: frozenset[str] = frozenset()
    """UIDs of those of them whose examiner is made."""
    others_failed: bool = False
    """Of one that has ended: a run failed that it took along."""
    since: datetime | None = None
    """Since when others are waited for."""

    @property
    def unreadable(self) -> Finding | None:
        """What keeps the run from being started, or given up, before it can be read."""
        return self.unreadable_twin or self.unreadable_pool

    @property
    def awaits(self) -> bool:
        """Whether it depends on what others say next."""
        if self.run.ended or not self.run.started:
            return False
        shares = ((self.training, self.facts.trainer), (self.examining, self.facts.examiner))
        return any(share is not None and share.awaits and work.job is None for share, work in shares) or (
            is_to_be_examined(self.run)
            and isinstance(elect(self.run, self.peers, late=False, closed=self.closed), Await)
        )

    def is_late(self, now: datetime) -> bool:
        """Tell whether others have been waited for long enough."""
        return self.since is not None and now - self.since >= PATIENCE


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """A Job that is still not there beyond the run's deadline: unless this attempt makes it, none will."""

    job: str
    who: str
    now: datetime


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What to apply and to report."""

    children: tuple[Manifest, ...]
    status: Manifest
    conditions: list[Condition]
    wake_at: datetime | None = None
    """When to look again though nothing changes."""
    expired: bool = False
    """Its time to live is over: delete it."""
    tidy: bool = False
    """Nobody looks at its Job and its pods any more: delete them, and what they ran as. The report stays."""
    give_up: str | None = None
    """Name of the Job of which another attempt would end as the last did: let it make none."""
    overdue: Overdue | None = None
    children_first: bool = False
    """The status counts on its children: unless they are there, it is not written."""
    forget: str | None = None
    """Name of the ConfigMap with a report that counts no more, deleted before the status is written."""


class Ending(Enum):
    """How one of its Jobs ended for a run that did not fail."""

    DONE = auto()
    AGAIN = auto()
    """Others had it first, and it was not begun: another Job does it."""


def is_to_be_examined(run: Run) -> bool:
    """Tell whether it has published, by a trainer that it shares, and is not known yet with whom it is examined."""
    return is_shared(run) and run.status.artifact is not None and (run.status.examines, run.status.examiner) == (
        None, None,
    )  # fmt: skip
