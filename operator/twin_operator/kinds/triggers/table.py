"""Which change wakes what: one table. A row says of which kind the change is, what must differ, and whom it concerns.

The table only saves work: a resync and a new leader look at everything, and come to the same state. With a thousand
twins on a pool, waking all of them at each report of one adapter would cost more than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bettertherapy_api import names
from twin_operator.engine.resources import CONFIG_MAP, DEPLOYMENT, JOB, LEADER_WORKER_SET, POD
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import (
    CHILDREN,
    DOCTOR_TWIN,
    FINE_TUNE_RUN,
    MINER_POOL,
    OPTIONAL_CHILDREN,
    POD_REPORT,
    PRIMARY,
    ROUTING_SLICE,
    VALIDATOR,
    VALIDATOR_ROUND,
)
from twin_operator.kinds.triggers.change import Change, Woken
from twin_operator.kinds.triggers.concerned import (
    everything_of_owner_pool,
    everything_of_pool,
    followers_of_owner_run,
    itself,
    itself_soon,
    leaders_of_owner_run,
    next_in_line,
    open_rounds_of_validator,
    open_runs_of_twin,
    owner_pool,
    owner_round,
    owner_run,
    owner_validator,
    pools_of_twin,
    rounds_beside,
    routing_of_owner_pool,
    runs_beside,
    runs_of_pool,
    tasks_of_owner_pool,
    tasks_of_pool,
    tasks_of_run,
    twin_of_run,
    twins_of_owner_pool,
    twins_of_pool,
    twins_published_differently,
    twins_reported_differently,
    validator_of_round,
    validators_beside,
)
from twin_operator.kinds.triggers.differences import (
    always,
    answers_differently,
    asks_differently,
    change_of_value,
    comes_or_goes,
    exists,
    exists_and_does_more_than_tell,
    has_other_trouble,
    hears_or_not,
    is_started_otherwise,
    is_taken_back,
    leaves_a_place,
    may_answer_differently,
    only_tells_differently,
    opens_or_closes,
    renews_its_pods,
    reports_of_its_pod,
    rounds_on,
    sees_differently,
    serves_differently,
    shares_differently,
    stands_differently,
    starts_or_ends,
    takes_others_along,
)
from twin_operator.kinds.world import World


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One row."""

    of: str
    """Kind of the object that changed."""
    when: Callable[[Change], bool]
    wakes: Callable[[Change], Iterable[Woken]]
    why: str


def woken(world: World, old: Entry | None, new: Entry | None) -> Iterator[Woken]:
    """Yield what a change concerns; the same thing may come more than once.

    An object that somebody gives to another pool or run is gone from the one and new to the other.
    """
    if old is not None and new is not None and _belongs_to(old) != _belongs_to(new):
        yield from _woken(Change(world, old, None))
        yield from _woken(Change(world, None, new))
    else:
        yield from _woken(Change(world, old, new))


def _woken(change: Change) -> Iterator[Woken]:
    for trigger in _BY_KIND.get(change.key.kind, ()):
        if trigger.when(change):
            yield from trigger.wakes(change)


def asks_anew(old: Entry | None, new: Entry | None) -> bool:
    """Tell whether a person asks something else of an object: its spec or its annotations are new."""
    if new is None or new.key.kind not in _PRIMARY:
        return False
    before = old.manifest["metadata"] if old is not None else {}
    after = new.manifest["metadata"]
    return any(before.get(each) != after.get(each) for each in ("uid", "generation", "annotations"))


TRIGGERS: Final = (
    Trigger(of=DOCTOR_TWIN.kind, when=exists_and_does_more_than_tell, wakes=itself, why="its status follows"),
    Trigger(of=DOCTOR_TWIN.kind, when=only_tells_differently, wakes=itself_soon, why="somebody else may have said it"),
    Trigger(of=DOCTOR_TWIN.kind, when=answers_differently, wakes=pools_of_twin, why="pools publish its versions"),
    Trigger(of=DOCTOR_TWIN.kind, when=is_taken_back, wakes=pools_of_twin, why="a rollback needs no spec"),
    Trigger(of=DOCTOR_TWIN.kind, when=answers_differently, wakes=open_runs_of_twin, why="runs tell of them"),
    Trigger(of=MINER_POOL.kind, when=exists, wakes=itself, why="its children follow from its spec"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=everything_of_pool, why="it may serve others"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=twins_of_pool, why="they may be served elsewhere now"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=runs_of_pool, why="its limit or its store may be another"),
    Trigger(of=MINER_POOL.kind, when=is_started_otherwise, wakes=everything_of_pool, why="slots are told and filled"),
    Trigger(of=FINE_TUNE_RUN.kind, when=exists, wakes=itself, why="its status follows from its spec"),
    Trigger(of=FINE_TUNE_RUN.kind, when=starts_or_ends, wakes=twin_of_run, why="a version may have come out of it"),
    Trigger(of=FINE_TUNE_RUN.kind, when=starts_or_ends, wakes=tasks_of_run, why="its validator is told of it"),
    Trigger(of=POD_REPORT.kind, when=stands_differently, wakes=tasks_of_owner_pool, why="it may be offered a task"),
    Trigger(of=POD.kind, when=comes_or_goes, wakes=tasks_of_owner_pool, why="what its miner said counts from now on"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=tasks_of_pool, why="it may take others"),
    Trigger(of=FINE_TUNE_RUN.kind, when=leaves_a_place, wakes=next_in_line, why="a place became free"),
    Trigger(of=FINE_TUNE_RUN.kind, when=takes_others_along, wakes=next_in_line, why="those behind them move up"),
    Trigger(of=FINE_TUNE_RUN.kind, when=shares_differently, wakes=runs_beside, why="they share a Job, or will"),
    Trigger(of=JOB.kind, when=always, wakes=followers_of_owner_run, why="it is theirs too"),
    Trigger(of=POD.kind, when=always, wakes=followers_of_owner_run, why="it works for them too"),
    Trigger(of=CONFIG_MAP.kind, when=comes_or_goes, wakes=leaders_of_owner_run, why="their Job waits for it"),
    Trigger(of=DOCTOR_TWIN.kind, when=may_answer_differently, wakes=validators_beside, why="gateways check digests"),
    Trigger(of=VALIDATOR.kind, when=exists, wakes=itself, why="its children follow from its spec"),
    Trigger(of=VALIDATOR.kind, when=asks_differently, wakes=open_rounds_of_validator, why="they may wait for it"),
    Trigger(of=VALIDATOR_ROUND.kind, when=exists, wakes=itself, why="its status follows from its spec"),
    Trigger(of=VALIDATOR_ROUND.kind, when=rounds_on, wakes=validator_of_round, why="its status tells of the newest"),
    Trigger(of=VALIDATOR_ROUND.kind, when=rounds_on, wakes=rounds_beside, why="one is held at a time"),
    Trigger(of=POD.kind, when=serves_differently, wakes=everything_of_owner_pool, why="every ready pod counts"),
    Trigger(of=POD.kind, when=has_other_trouble, wakes=twins_of_owner_pool, why="it says why nothing answers"),
    Trigger(of=DEPLOYMENT.kind, when=opens_or_closes, wakes=twins_of_owner_pool, why="patients ask them"),
    Trigger(of=DEPLOYMENT.kind, when=renews_its_pods, wakes=routing_of_owner_pool, why="agents may want tokens"),
    Trigger(of=DEPLOYMENT.kind, when=has_other_trouble, wakes=twins_of_owner_pool, why="it says why nothing answers"),
    Trigger(of=LEADER_WORKER_SET.kind, when=opens_or_closes, wakes=twins_of_owner_pool, why="patients ask its leaders"),
    Trigger(of=POD_REPORT.kind, when=reports_of_its_pod, wakes=everything_of_owner_pool, why="it may serve"),
    Trigger(of=POD_REPORT.kind, when=reports_of_its_pod, wakes=owner_pool, why="its conditions tell of its engines"),
    Trigger(of=POD_REPORT.kind, when=stands_differently, wakes=owner_pool, why="its condition tells of its miners"),
    Trigger(of=POD_REPORT.kind, when=sees_differently, wakes=owner_validator, why="its condition tells of the chain"),
    Trigger(of=POD_REPORT.kind, when=hears_or_not, wakes=twins_of_owner_pool, why="all patients may be turned away"),
    Trigger(of=POD_REPORT.kind, when=always, wakes=twins_reported_differently, why="a version may have been verified"),
    Trigger(of=ROUTING_SLICE.kind, when=always, wakes=twins_published_differently, why="another version answers"),
    Trigger(of=POD.kind, when=change_of_value, wakes=owner_pool, why="its conditions tell of it"),
    # Runs, validators and rounds have few pods, and read more of them than pools do: phase, disruption, exit codes.
    *(
        Trigger(of=POD.kind, when=always, wakes=wakes, why="it works for them")
        for wakes in (owner_run, owner_validator, owner_round)
    ),
    *(
        Trigger(of=resource.kind, when=always, wakes=wakes, why="a child")
        for resource in (*CHILDREN, *OPTIONAL_CHILDREN)
        for wakes in (owner_pool, owner_run, owner_validator, owner_round)
    ),
)  # fmt: skip
_BY_KIND: Final[Mapping[str, tuple[Trigger, ...]]] = {
    kind: tuple(trigger for trigger in TRIGGERS if trigger.of == kind) for kind in {trigger.of for trigger in TRIGGERS}
}
_PRIMARY: Final = frozenset(resource.kind for resource in PRIMARY)


def _belongs_to(entry: Entry) -> tuple[str | None, ...]:
    if entry.key.kind in _PRIMARY:
        return ()  # theirs are labels of a person's own
    labels = entry.manifest["metadata"].get("labels") or {}
    owners = (names.LABEL_POOL, names.LABEL_RUN, names.LABEL_VALIDATOR, names.LABEL_ROUND)
    return tuple(labels.get(label) for label in owners)
