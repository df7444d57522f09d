"""One run: gather → plan → apply → report."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name, read_outcomes
from bettertherapy_api.finetune_run import FineTuneRunStatus, RunRef
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.bounds import Bounds, pool_out_of_bounds, run_out_of_bounds, twin_out_of_bounds
from twin_operator.domain.objects import Pool, Run, Unreadable, Validator
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.apply import ApplyOutcome, Owner, reported_by
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Key, Manifest
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.finetune_run.facts import RunFacts
from twin_operator.kinds.finetune_run.gather import facts_of_run, gather
from twin_operator.kinds.finetune_run.notices import run_notices
from twin_operator.kinds.finetune_run.plan import plan_run, plan_without_job
from twin_operator.kinds.finetune_run.sharing import examining, others_of, report_of, training
from twin_operator.kinds.finetune_run.view import Overdue, RunPlan, RunView
from twin_operator.kinds.resources import FINE_TUNE_RUN
from twin_operator.kinds.watched import OWNER
from twin_operator.kinds.world import World
from twin_operator.settings import Images


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of the plan."""

    gone: bool = False
    outcome: ApplyOutcome | None = None


class FineTuneRunReconciler(Reconciler[RunView, RunPlan, Applied]):
    """Brings FineTuneRuns to their end."""

    kind = FINE_TUNE_RUN.kind
    fields = StatusFields.of(FineTuneRunStatus, conditions=conditions_said("FineTuneRun"))

    def __init__(self, tools: Tools, *, world: World, images: Images, bounds: Bounds | None = None) -> None:
        super().__init__(tools)
        self._world = world
        self._images = images
        self._bounds = bounds or Bounds()
        # Two workers that look at the same queue would both find the last free place.
        self._turnstiles: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._since: dict[str, datetime] = {}
        """UID of a run → since when this process sees it wait for what others say next."""

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a run that can't be read that it waits until it can."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def step(self, entry: Entry) -> None:
        """Go on once; a run that has just been let go is started in the same breath."""
        run: Run = entry.value
        if run.started or run.ended:
            await super().step(entry)
            return
        async with self._turnstiles[run.namespace]:
            now = self.store.entry(entry.key)
            if now is None or not isinstance(now.value, Run):
                return
            await super().step(now)
        after = self.store.entry(entry.key)
        if after is not None and isinstance(after.value, Run) and after.value.started and not after.value.ended:
            await super().step(after)

    async def gather(self, entry: Entry) -> RunView:
        """Collect twin, pool, queue and the run's own objects."""
        run: Run = entry.value
        view = self._within_bounds(gather(self._world, run))
        if _is_to_be_looked_at(view):
            facts = await self._last_look(view)
            view = replace(
                view, facts=facts, training=training(self._world, run, facts.trainer),
                examining=examining(self._world, run, facts.examiner),
            )  # fmt: skip
        if view.awaits:
            return replace(view, since=self._since.setdefault(run.uid, datetime.now(UTC)))
        self._since.pop(run.uid, None)
        return view

    def _within_bounds(self, view: RunView) -> RunView:
        """Return the view with what may not be begun: of the run, its pool, and those that it would take along."""
        run, pool = view.run, view.pool
        if run.started or run.ended:
            return view
        candidate = run.spec.candidate
        named = self._world.validator(run.namespace, candidate.validator) if candidate is not None else None
        if candidate is not None and isinstance(named, Unreadable):
            why = f"Validator {candidate.validator} can't be read by this operator: see its condition Ready"
            return replace(view, obstacle=Finding(Reason.OWNER_UNREADABLE, why), along=(), asked_by=None)
        to = named if isinstance(named, Validator) else None
        if (found := run_out_of_bounds(run, pool, self._bounds, self._images, validator=to)) is not None:
            return replace(view, out_of_bounds=found)
        if view.twin is not None and (of_twin := twin_out_of_bounds(view.twin, self._bounds)) is not None:
            there = Finding(of_twin.reason, f"DoctorTwin {view.twin.name} may have nothing trained: {of_twin.message}")
            return replace(view, obstacle=view.obstacle or there, along=(), asked_by=None)
        of_pool = pool_out_of_bounds(pool, self._bounds, self._images) if pool is not None else None
        if pool is None or of_pool is None:
            return replace(view, along=tuple(each for each in view.along if self._may_come(each, run, pool)))
        there = Finding(of_pool.reason, f"MinerPool {pool.name} may start nothing: {of_pool.message}")
        return replace(view, obstacle=view.obstacle or there, along=(), asked_by=None)

    def _may_come(self, other: RunRef, run: Run, pool: Pool | None) -> bool:
        found = self._world.run(run.namespace, other)
        return isinstance(found, Run) and run_out_of_bounds(found, pool, self._bounds, self._images) is None

    def gone(self, entry: Entry) -> None:
        """Forget since when it waits for others."""
        self._since.pop(entry.manifest["metadata"]["uid"], None)

    def plan(self, gathered: RunView, now: datetime) -> RunPlan:
        """Decide what the run should have and say."""
        return plan_run(gathered, self._images, now=now)

    async def apply(self, entry: Entry, gathered: RunView, plan: RunPlan) -> Applied:
        """Make the objects of trainer or examiner, or take away what nobody looks at any more."""
        run, api, owner = gathered.run, self.tools.api, Owner.of(entry.manifest)
        if plan.expired:
            await api.delete(FINE_TUNE_RUN, namespace=run.namespace, name=run.name, uid=run.uid)
            return Applied(gone=True)
        existing = [each.manifest for each in self.store.find(OWNER, owner.uid)]
        if plan.tidy:
            outcome = await self.tools.applier.delete(
                owner=owner, existing=existing, keep=lambda key: key.kind == CONFIG_MAP.kind
            )
            return Applied(outcome=outcome)
        if plan.forget is not None:
            # Before the status that counts on it; whoever is killed in between finds the same to do.
            stale = [each for each in existing if each["kind"] == CONFIG_MAP.kind and _name(each) == plan.forget]
            outcome = await self.tools.applier.delete(owner=owner, existing=stale)
            outcome.raise_incomplete()
            for each in stale:
                self.store.remove(each)  # or what was deleted would be taken for there until the watch says so
            return Applied(outcome=outcome)
        if plan.children:
            # What has begun goes on, also when twin or pool, from which its Job was made, are gone.
            outcome = await self.tools.applier.apply(
                owner=owner, wanted=plan.children, existing=existing, keep=lambda key: key.kind == JOB.kind
            )
            if plan.children_first:
                outcome.raise_incomplete()
            return Applied(outcome=outcome)
        return Applied()

    def report(self, gathered: RunView, plan: RunPlan, outcome: Applied) -> Report | None:
        """Say how far it is."""
        if outcome.gone:
            return None
        if plan.overdue is not None and (why := self._no_job(gathered.run, plan.overdue, outcome.outcome)) is not None:
            ending = plan_without_job(gathered, why, plan.overdue)
            return Report(status=ending.status, conditions=ending.conditions, notices=run_notices)
        return Report(
            status=plan.status, conditions=with_refusal(plan.conditions, outcome.outcome), notices=run_notices,
            wake_at=(plan.wake_at,), outcome=outcome.outcome,
        )  # fmt: skip

    async def after_report(self, entry: Entry, gathered: RunView, plan: RunPlan) -> None:
        """Let the Job fail by the attempts it has made; it keeps its pods and their logs, and ends the run as ever."""
        if plan.give_up is None:
            return
        run, name = gathered.run, plan.give_up
        job = self.store.get(Key(JOB.kind, run.namespace, name))
        if job is None or (job.get("spec") or {}).get("backoffLimit") == 0:
            return
        patch = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": {"backoffLimit": 0}}
        try:
            self.store.put(await self.tools.api.merge(JOB, namespace=run.namespace, name=name, patch=patch))
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or another one of its name: its event brings us back
                raise

    def _no_job(self, run: Run, overdue: Overdue, outcome: ApplyOutcome | None) -> str | None:
        """Return why the run still has no Job, if it has none because it can't be made."""
        if outcome is None or self.store.get(Key(JOB.kind, run.namespace, overdue.job)) is not None:
            return None
        told = [
            *(refusal.message for refusal in outcome.refusals),
            *(f"{key.kind} {key.name} can't be made: {error.message}" for key, error in outcome.failures),
        ]
        return told[0] if told else None

    async def _last_look(self, view: RunView) -> RunFacts:
        """Ask the API server for reports and pods: a Job's end may be seen before them, and it is final.

        What the examiner found is taken from here alone: the store does not hold it.
        """
        run, api, outcomes = view.run, self.tools.api, None
        for name in (progress_name(run.name), examination_name(run.name)):
            configmap = await self._look_at(run.namespace, name)
            if name != examination_name(run.name) or configmap is None:
                continue
            if not reported_by(configmap, run.uid, kind=FINE_TUNE_RUN):
                continue
            text = (configmap.get("data") or {}).get(OUTCOMES_KEY)
            outcomes = read_outcomes(text) if text is not None else None
        shared = [each for each in (run.status.trainer, run.status.examiner) if each is not None]
        for name in dict.fromkeys((run.name, *(each.name for each in shared))):
            pods, _ = await api.list(POD, namespace=run.namespace, selector=f"{names.LABEL_RUN}={name}")
            for pod in pods:
                self.store.put({"apiVersion": "v1", **pod})
        facts = facts_of_run(self._world, run, outcomes=outcomes)
        for work in (facts.trainer, facts.examiner):
            if work.shared and work.has_ended and not work.said_last:
                # Whether the last attempt broke off within one of the others.
                for other in others_of(self._world, run, work):
                    await self._look_at(run.namespace, report_of(work, other))
        return facts

    async def _look_at(self, namespace: str, name: str) -> Manifest | None:
        configmap = await self.tools.api.get(CONFIG_MAP, namespace=namespace, name=name)
        if configmap is None:
            return None
        configmap = {"apiVersion": "v1", "kind": CONFIG_MAP.kind, **configmap}
        self.store.put(configmap)
        return configmap


def _name(thing: Manifest) -> str:
    return str(thing["metadata"]["name"])


def _is_to_be_looked_at(view: RunView) -> bool:
    """Tell whether the run may end by what it sees: a Job has ended, or one that others have too is through with it."""
    run, trainer, examiner = view.run, view.facts.trainer, view.facts.examiner
    if not run.started or run.ended:
        return False
    if run.status.examiner is not None and examiner.said_last:
        return True
    if examiner.job is not None:
        return examiner.has_ended
    if trainer.shared and run.status.artifact is not None:
        return False  # all is known of the trainer
    return trainer.has_ended


def with_refusal(conditions: Sequence[Condition], outcome: ApplyOutcome | None) -> Sequence[Condition]:
    """Return the conditions with what keeps a run's objects from being made, instead of how it runs."""
    if outcome is None or not outcome.refusals:
        return conditions
    refused = Finding(Reason.APPLY_REFUSED, outcome.refusals[0].message).condition("Running", "False")
    return [*(each for each in conditions if each.type != refused.type), refused]
