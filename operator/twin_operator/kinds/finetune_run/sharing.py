"""Collects with whom a run shares a trainer and an examiner, from the store alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bettertherapy_api import names
from bettertherapy_api.examination import PROMPT_KEY, examination_name
from bettertherapy_api.finetune_run import RunRef
from bettertherapy_api.run_progress import PROGRESS_KEY, RunProgress, progress_name, read_progress
from twin_operator.domain.batches import Coming, Member, Share, is_named, is_shared, ref
from twin_operator.domain.objects import Run, Unreadable
from twin_operator.engine.apply import controlled_by, reported_by
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Key
from twin_operator.kinds.finetune_run.facts import Work
from twin_operator.kinds.finetune_run.judges import judge_for
from twin_operator.kinds.resources import FINE_TUNE_RUN
from twin_operator.kinds.watched import RUN
from twin_operator.kinds.world import World


def training(world: World, run: Run, work: Work) -> Share | None:
    """Return with whom the run shares a trainer."""
    if run.status.trainer is not None:
        return _following(world, run, work, run.status.trainer, _trained_along)
    members = tuple(_trained(world, run, each) for each in run.status.trains or ())
    return Share(runs=1 + len(members), members=members) if members else None


def examining(world: World, run: Run, work: Work) -> Share | None:
    """Return with whom the run shares an examiner."""
    if run.status.examiner is not None:
        return _following(world, run, work, run.status.examiner, _examined_along)
    members = tuple(_examined(world, run, each) for each in run.status.examines or ())
    return Share(runs=1 + len(members), members=members) if members else None


def others_of(world: World, run: Run, work: Work) -> list[RunRef]:
    """Return the other runs of a Job that is another run's, as far as it is known."""
    leader, along = (
        (run.status.trainer, _trained_along) if work.who == "trainer" else (run.status.examiner, _examined_along)
    )  # fmt: skip
    found = world.run(run.namespace, leader) if leader is not None else None
    named = along(found) if isinstance(found, Run) else []
    return [each for each in (leader, *named) if each is not None and each.uid != run.uid]


def _trained_along(leader: Run) -> list[RunRef]:
    """Return whom it takes along: nobody where it comes along itself, or two that name each other would wait for
    ever."""
    return (leader.status.trains or []) if leader.status.trainer is None else []


def _examined_along(leader: Run) -> list[RunRef]:
    return (leader.status.examines or []) if leader.status.examiner is None else []


def _following(
    world: World, run: Run, work: Work, leader: RunRef, along: Callable[[Run], list[RunRef]]
) -> Share:  # fmt: skip
    """Return how a run shares a Job of another one, which says `along` whom it takes."""
    found, others = world.run(run.namespace, leader), others_of(world, run, work)
    # One that ends well and says nothing of a run is no trainer of ours: another of its kind would say no more.
    failed = work.job is not None and work.job.finished == "Failed"
    began = failed and any(_was_begun(world, run, each, work) for each in others)
    share = Share(runs=1 + len(others), follows=True, others_began=began)
    if isinstance(found, Unreadable):
        return share
    struck = found is not None and not is_named(along(found), run)
    over = found is None or (found.ended and work.job is None)
    if not struck and not over:
        return share
    return replace(share, lost=True, struck=struck, at_work=_at_work(world, run, leader, work, over=over))


def _at_work(world: World, run: Run, leader: RunRef, work: Work, *, over: bool) -> bool:
    """Tell whether something may still work on a run whose leader is lost: its Job, or a pod that outlives its Job."""
    if over and work.job is not None and not work.has_ended:
        return True
    things = [entry.manifest for entry in world.store.find(RUN, (run.namespace, leader.name))]
    jobs = {thing["metadata"]["uid"] for thing in things if thing["kind"] == JOB.kind}
    return any(
        thing["kind"] == POD.kind
        and (thing["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT) == work.who
        and (thing.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and not any(controlled_by(thing, uid) for uid in jobs)
        for thing in things
    )


def report_of(work: Work, run: RunRef) -> str:
    """Return the name of the ConfigMap in which a trainer or an examiner tells of a run."""
    return progress_name(run.name) if work.who == "trainer" else examination_name(run.name)


def _was_begun(world: World, run: Run, other: RunRef, work: Work) -> bool:
    """Tell whether the Job came to that other run."""
    configmap = world.store.get(Key(CONFIG_MAP.kind, run.namespace, report_of(work, other)))
    if configmap is None or not reported_by(configmap, other.uid, kind=FINE_TUNE_RUN):
        return False
    said = (configmap.get("data") or {}).get(PROGRESS_KEY)
    progress = read_progress(said) if said is not None else None
    return isinstance(progress, RunProgress) and not progress.elsewhere


def _trained(world: World, leader: Run, wanted: RunRef) -> Member:
    """Return what became of a run that was asked to share the trainer."""
    run = world.run(leader.namespace, wanted)
    if not isinstance(run, Run):
        return Member(ref=wanted, coming=Coming.GONE if run is None else Coming.AWAITED)
    if run.ended or (run.started and run.status.trainer != ref(leader)):
        return Member(ref=wanted, coming=Coming.GONE, run=run)
    return _member(world, run, progress_name(run.name), joined=run.status.trainer == ref(leader))


def _examined(world: World, leader: Run, wanted: RunRef) -> Member:
    """Return what became of a run that was asked to share the examiner."""
    run = world.run(leader.namespace, wanted)
    if not isinstance(run, Run):
        return Member(ref=wanted, coming=Coming.GONE if run is None else Coming.AWAITED)
    if run.ended or not run.started or run.status.examines is not None:
        return Member(ref=wanted, coming=Coming.GONE, run=run)
    joined = run.status.examiner == ref(leader) and run.status.artifact is not None
    return _member(world, run, examination_name(run.name), joined=joined)


def _member(world: World, run: Run, reports: str, *, joined: bool) -> Member:
    """Return a run that comes, if it has said so and its Job can be told all of it."""
    named = world.twin(run.namespace, run.spec.twin_ref.name)
    twin = named if named is not None and run.is_of(named) else None
    configmap = world.store.get(Key(CONFIG_MAP.kind, run.namespace, reports))
    there = configmap is not None and reported_by(configmap, run.uid, kind=FINE_TUNE_RUN)
    ready = joined and twin is not None and there
    prompt = bool(((configmap or {}).get("data") or {}).get(PROMPT_KEY))
    coming = Coming.READY if ready else Coming.AWAITED
    return Member(ref=ref(run), coming=coming, run=run, twin=twin, prompt=prompt, judge=judge_for(world, twin))


def peers_of(world: World, run: Run) -> tuple[Run, ...]:
    """Return the other runs of its trainer that have not ended."""
    if not is_shared(run):
        return ()
    leader = run.status.trainer or ref(run)
    found = world.run(run.namespace, leader)
    others = [each for each in world.following(leader, run.namespace) if each.status.trainer == leader]
    return tuple(
        each
        for each in (*([found] if isinstance(found, Run) else []), *others)
        if each.uid != run.uid and each.started and not each.ended
    )


def has_failed_along(world: World, run: Run) -> bool:
    """Tell whether a run failed that it took along: its Job has the log."""
    refs = (*(run.status.trains or ()), *(run.status.examines or ()))
    others = [world.run(run.namespace, each) for each in refs]
    return any(isinstance(other, Run) and other.status.failure is not None for other in others)
