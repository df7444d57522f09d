"""Which runs share a trainer, and after it an examiner: who may come along, and who leads.

A leader writes into its status whom it would take along, each of these into its own that it comes, and the Job is made
once all have, or come no more and are struck off. So what was written decides, whoever is killed in between: a run is
in one Job only, since it comes along once and says with whom.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from bettertherapy_api.finetune_run import RunRef
from twin_operator.domain.judge import Judge
from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.queueing import place
from twin_operator.engine.conditions import Finding

PATIENCE: Final = timedelta(seconds=60)
"""So long one operator waits for a run that was asked along and says nothing, as one that a webhook holds up."""


class Coming(Enum):
    """What became of a run that was asked along."""

    READY = auto()
    """It has written down that it comes, and all that its part of the Job needs is there."""
    AWAITED = auto()
    GONE = auto()
    """It ended, is deleted, or went another way."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run that another one takes along."""

    ref: RunRef
    coming: Coming
    run: Run | None = None
    twin: Twin | None = None
    prompt: bool = False
    """Whether a system prompt is told it."""
    judge: Judge | Finding | None = None
    """Of the twin's gate, or why it may not be asked; None where the gate names none."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How a run shares a Job with others."""

    runs: int
    """Runs of the Job, as far as it is known."""
    members: tuple[Member, ...] = ()
    """Of a leader: whom it takes along."""
    follows: bool = False
    """Whether the Job is another run's."""
    lost: bool = False
    """Of one that follows: the leader is gone, or takes it along no more."""
    struck: bool = False
    """Of one that is lost: the leader's Job, if it has one, was made without it."""
    at_work: bool = False
    """Of one that is lost: something that may work on it has not ended yet."""
    others_began: bool = False
    """Once the Job has failed: it came to another run."""

    @property
    def awaits(self) -> bool:
        """Whether somebody who was asked along has not answered yet."""
        return any(each.coming is Coming.AWAITED for each in self.members)

    def remaining(self, *, late: bool) -> list[RunRef]:
        """Return who is taken along still; when it is `late`, only those that are ready."""
        gone = (Coming.GONE, Coming.AWAITED) if late else (Coming.GONE,)
        return [each.ref for each in self.members if each.coming not in gone]


@dataclass(frozen=True, kw_only=True)
class Lead:
    """It examines these too."""

    along: tuple[RunRef, ...]


@dataclass(frozen=True, kw_only=True)
class Join:
    """It is examined by this one's examiner."""

    leader: RunRef


@dataclass(frozen=True, kw_only=True)
class Await:
    """It is not known yet who leads."""

    why: str


def ref(run: Run) -> RunRef:
    """Return what names this very run."""
    return RunRef(name=run.name, uid=run.uid)


def is_named(refs: Iterable[RunRef] | None, run: Run) -> bool:
    """Tell whether this very run is among those named."""
    return any(each.uid == run.uid for each in refs or ())


def trainer_of(run: Run) -> str:
    """Return the UID of the run that leads the trainer which this one has, shared or not."""
    return run.status.trainer.uid if run.status.trainer is not None else run.uid


def is_shared(run: Run) -> bool:
    """Tell whether its trainer does other runs too."""
    return run.status.trainer is not None or bool(run.status.trains)


def take_along(leader: Run, line: Iterable[Run], *, most: int, fits: Callable[[Run], bool]) -> tuple[RunRef, ...]:
    """Return whom a run that starts takes along: of those in line, in their order, at most `most`.

    `fits` tells what the run itself does not: that it would be given to the same pool.
    """
    found: list[RunRef] = []
    if leader.spec.candidate is not None:
        return ()
    twins = {leader.spec.twin_ref.name}
    for run in line:
        if run.spec.candidate is not None:
            continue  # it trains nothing
        if len(found) >= most:
            break
        twin = run.spec.twin_ref.name
        if twin not in twins and _ask(run) == _ask(leader) and fits(run):
            twins.add(twin)
            found.append(ref(run))
    return tuple(found)


def _ask(run: Run) -> tuple[object, ...]:
    """Return what the runs of one Job must ask alike: it is the Job's, or the base model's in memory."""
    spec = run.spec
    quantization = spec.hyperparameters.quantization if spec.hyperparameters is not None else None
    return (
        spec.image, spec.resources, spec.queue_name, spec.priority_class_name, spec.deadline_seconds, spec.retries,
        quantization,
    )  # fmt: skip


def elect(run: Run, peers: Sequence[Run], *, late: bool, closed: Collection[str] = ()) -> Lead | Join | Await:
    """Return with whom a run is examined that has published; `peers` are the others of its trainer that live, `closed`
    the UIDs of those whose examiner is made already.

    The oldest that has published leads, once it is known of each whether it has. When it is `late`, nobody who says
    nothing is waited for.
    """
    for peer in peers:
        if is_named(peer.status.examines, run) and peer.uid not in closed:
            return Join(leader=ref(peer))
    # One whose examiner's leader is gone is about to look for another.
    leading = {each.uid for each in peers if each.status.examines is not None}
    undecided = [
        each
        for each in peers
        if each.uid not in leading and (each.status.examiner is None or each.status.examiner.uid not in leading)
    ]
    if not late and any(each.status.artifact is None for each in undecided):
        return Await(why="an examiner follows once it is known which runs of its trainer have published")
    published = sorted((each for each in undecided if each.status.artifact is not None), key=place)
    if not late and any(place(each) < place(run) for each in published):
        return Await(why=f"FineTuneRun {published[0].name} is about to name those that are examined with it")
    return Lead(along=tuple(ref(each) for each in published))
