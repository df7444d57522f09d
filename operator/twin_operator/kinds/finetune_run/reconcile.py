"""One run: gather → plan → apply → report."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name, read_outcomes
from bettertherapy_api.finetune_run import FineTuneRunStatus
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.objects import Run, Unreadable
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.apply import ApplyOutcome, Owner, controlled_by
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Key
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.finetune_run.facts import RunFacts
from twin_operator.kinds.finetune_run.gather import facts_of_run, gather
from twin_operator.kinds.finetune_run.notices import run_notices
from twin_operator.kinds.finetune_run.plan import Overdue, RunPlan, RunView, plan_run, plan_without_job
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

    def __init__(self, tools: Tools, *, world: World, images: Images) -> None:
        super().__init__(tools)
        self._world = world
        self._images = images
        # Two workers that look at the same queue would both find the last free place.
        self._turnstiles: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

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
        view = gather(self._world, run)
        awaited = view.facts.examiner.job or view.facts.trainer.job
        if run.started and not run.ended and awaited is not None and awaited.finished is not None:
            return replace(view, facts=await self._last_look(run))
        return view

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
        if plan.children:
            # What has begun goes on, also when twin or pool, from which its Job was made, are gone.
            outcome = await self.tools.applier.apply(
                owner=owner, wanted=plan.children, existing=existing, keep=lambda key: key.kind == JOB.kind
            )
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

    async def _last_look(self, run: Run) -> RunFacts:
        """Ask the API server for reports and pods: a Job's end may be seen before them, and it is final.

        What the examiner found is taken from here alone: the store does not hold it.
        """
        api, outcomes = self.tools.api, None
        for name in (progress_name(run.name), examination_name(run.name)):
            configmap = await api.get(CONFIG_MAP, namespace=run.namespace, name=name)
            if configmap is None:
                continue
            configmap = {"apiVersion": "v1", "kind": CONFIG_MAP.kind, **configmap}
            self.store.put(configmap)
            text = (configmap.get("data") or {}).get(OUTCOMES_KEY)
            if name == examination_name(run.name) and text is not None and controlled_by(configmap, run.uid):
                outcomes = read_outcomes(text)
        pods, _ = await api.list(POD, namespace=run.namespace, selector=f"{names.LABEL_RUN}={run.name}")
        for pod in pods:
            self.store.put({"apiVersion": "v1", **pod})
        return facts_of_run(self._world, run, outcomes=outcomes)


def with_refusal(conditions: Sequence[Condition], outcome: ApplyOutcome | None) -> Sequence[Condition]:
    """Return the conditions with what keeps a run's objects from being made, instead of how it runs."""
    if outcome is None or not outcome.refusals:
        return conditions
    refused = Finding(Reason.APPLY_REFUSED, outcome.refusals[0].message).condition("Running", "False")
    return [*(each for each in conditions if each.type != refused.type), refused]
