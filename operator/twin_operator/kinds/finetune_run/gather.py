"""Collects what a run's plan depends on, from the store alone."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.examination import Outcomes
from bettertherapy_api.finetune_run import RunRef
from twin_operator.domain.batches import ref, take_along
from twin_operator.domain.objects import Pool, Run, Twin, Unreadable
from twin_operator.domain.queueing import in_line, may_not_start
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Entry
from twin_operator.kinds.finetune_run.facts import RunFacts, objects_of, read_facts
from twin_operator.kinds.finetune_run.judges import judge_for
from twin_operator.kinds.finetune_run.sharing import examining, has_failed_along, peers_of, training
from twin_operator.kinds.finetune_run.view import RunView
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN, MINER_POOL
from twin_operator.kinds.watched import RUN
from twin_operator.kinds.world import World


def gather(world: World, run: Run) -> RunView:
    """Return the run with its twin (the very one it was made for), its pool, and what is observed of it."""
    named = world.twin(run.namespace, run.spec.twin_ref.name)
    twin = named if named is not None and run.is_of(named) else None
    pool, problem = _pool(world, run, twin)
    if named is not None and twin is None:
        problem = _is_another(run, named)
    facts = facts_of_run(world, run)
    judge = judge_for(world, twin)
    if run.started or run.ended:
        peers = peers_of(world, run)
        closed = frozenset(each.uid for each in peers if world.has_job(each, names.examiner_name(each.name)))
        return RunView(
            run=run, twin=twin, pool=pool, obstacle=problem, facts=facts, unreadable_twin=_unreadable_twin(world, run),
            of_twin=tuple(world.runs_of(twin)) if twin is not None else (),
            unreadable_pool=_unreadable_pool(world, run, twin) if pool is None else None,
            training=training(world, run, facts.trainer), examining=examining(world, run, facts.examiner),
            peers=peers, closed=closed, others_failed=run.ended and has_failed_along(world, run), judge=judge,
        )  # fmt: skip
    if twin is None or pool is None:
        return RunView(
            run=run, twin=twin, pool=pool, obstacle=problem, facts=facts, unreadable_twin=_unreadable_twin(world, run),
            of_twin=tuple(world.runs_of(twin)) if twin is not None else (),
            unreadable_pool=_unreadable_pool(world, run, twin) if pool is None else None, judge=judge,
        )  # fmt: skip
    leader = world.asked_along(run)
    # Not started, so that no night is spent on a version that nobody could judge.
    unjudged = judge if isinstance(judge, Finding) else None
    if leader is not None and leader.status.pool == pool.name and unjudged is None and not _is_busy(world, run):
        return RunView(run=run, twin=twin, pool=pool, obstacle=problem, facts=facts, asked_by=ref(leader))
    waiting = may_not_start(
        run, pool=pool, under_way=world.under_way(pool), of_twin=_others(world, run),
        waiting=lambda: world.waiting(run.namespace, pool.name), is_busy=lambda other: _is_busy(world, other),
    )  # fmt: skip
    obstacle = problem or unjudged or _former(world, run) or waiting
    along = _along(world, run, pool) if obstacle is None else ()
    return RunView(run=run, twin=twin, pool=pool, obstacle=obstacle, facts=facts, along=along, judge=judge)


def facts_of_run(world: World, run: Run, *, outcomes: Outcomes | str | None = None) -> RunFacts:
    """Return what is observed of the run's own objects, and of Jobs that it shares: others may bear its label, as those
    of an earlier run do."""
    trainer, examiner = run.status.trainer, run.status.examiner
    labels = {run.name, *(each.name for each in (trainer, examiner) if each is not None)}
    things = [entry.manifest for name in sorted(labels) for entry in world.store.find(RUN, (run.namespace, name))]
    own = objects_of(run.name, run.uid, things, trainer=trainer, examiner=examiner)
    return read_facts(run.name, own, outcomes=outcomes, status=run.status)


def _along(world: World, run: Run, pool: Pool) -> tuple[RunRef, ...]:
    """Return whom a run that starts takes along; one that was made this moment was not given to its pool yet."""
    most = pool.fine_tune.runs_per_trainer - 1
    if most == 0:
        return ()

    def fits(other: Run) -> bool:
        entry = world.store.entry(Key(FINE_TUNE_RUN.kind, other.namespace, other.name))
        if entry is None or "deletionTimestamp" in entry.manifest["metadata"]:
            return False
        named = world.twin(other.namespace, other.spec.twin_ref.name)
        twin = named if named is not None and other.is_of(named) else None
        chosen, _ = _pool(world, other, twin)
        may = chosen is not None and chosen.uid == pool.uid and world.at_work_on_former(other) is None
        return may and not isinstance(judge_for(world, twin), Finding)

    waiting = [*world.waiting(run.namespace, pool.name), *world.waiting(run.namespace, None)]
    line = in_line(
        [other for other in waiting if other.uid != run.uid],
        lambda other: world.runs_naming(run.namespace, other.spec.twin_ref.name),
    )  # fmt: skip
    return take_along(run, line, most=most, fits=fits)


def _pool(world: World, run: Run, twin: Twin | None) -> tuple[Pool | None, Finding | None]:
    """Return the pool that the run was given to, else the one that it should be given to, or why there is none."""
    if run.started and run.status.pool is not None:
        return world.pool(run.namespace, run.status.pool), None
    if twin is None:
        return None, None
    chosen = choose_pool(twin, list(world.pool_refs(run.namespace)), image=run.spec.image)
    return (chosen, None) if isinstance(chosen, Pool) else (None, chosen)


def _is_another(run: Run, twin: Twin) -> Finding:
    """Return why a twin of the name that the run names is not the run's."""
    why = (
        f"DoctorTwin {twin.name} came after this run, which may be for a former one of that name"
        if run.status.twin_uid is None and run.owner_uid is None
        else f"the DoctorTwin {twin.name} that this run was made for is gone, and another bears its name"
    )
    return Finding(Reason.TWIN_IS_ANOTHER, f"{why}: create the run again if it is for this one, else delete it")


def _unreadable_twin(world: World, run: Run) -> Finding | None:
    """Return what to say where the very twin that the run is for is there, but can't be read by this release."""
    entry = world.store.entry(Key(DOCTOR_TWIN.kind, run.namespace, run.spec.twin_ref.name))
    if entry is None or not isinstance(entry.value, Unreadable):
        return None
    metadata = entry.manifest["metadata"]
    if not run.is_of_uid(metadata["uid"], created=metadata.get("creationTimestamp") or ""):
        return None
    return _can_not_be_read(entry)


def _unreadable_pool(world: World, run: Run, twin: Twin | None) -> Finding | None:
    """Return what to say where the run's pool, or one that it might be given to, can't be read by this release."""
    if run.started and run.status.pool is not None:
        entry = world.store.entry(Key(MINER_POOL.kind, run.namespace, run.status.pool))
        return _can_not_be_read(entry) if entry is not None and isinstance(entry.value, Unreadable) else None
    if twin is None:
        return None
    for entry in sorted(world.store.of_kind(MINER_POOL.kind, namespace=run.namespace), key=lambda each: each.key.name):
        labels = entry.manifest["metadata"].get("labels") or {}
        if isinstance(entry.value, Unreadable) and twin.spec.pool_selector.matches(labels):
            return _can_not_be_read(entry)
    return None


def _can_not_be_read(entry: Entry) -> Finding:
    # Without what is wrong with it: that may change while nobody wakes the run, and stands at the object itself.
    said = f"{entry.key.kind} {entry.key.name} can't be read by this operator: see its condition Ready"
    return Finding(Reason.OWNER_UNREADABLE, said)


def _others(world: World, run: Run) -> list[Run]:
    others = world.runs_naming(run.namespace, run.spec.twin_ref.name)
    return [other for other in others if other.uid != run.uid and not other.ended]


def _is_busy(world: World, run: Run) -> bool:
    return any(other.started for other in _others(world, run)) or world.at_work_on_former(run) is not None


def _former(world: World, run: Run) -> Finding | None:
    """Return why it waits whose name a run had that was deleted: two trainers would write the same checkpoints."""
    leader = world.at_work_on_former(run)
    if leader is None:
        return None
    return Finding(
        Reason.TWIN_BUSY,
        f"the Job of FineTuneRun {leader.name} may still work on a run of this name that was deleted",
    )
