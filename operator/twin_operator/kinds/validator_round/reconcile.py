"""One round: gather → plan → apply → report."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.round_progress import progress_name
from bettertherapy_api.validator_round import ValidatorRoundStatus
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.bounds import validator_out_of_bounds
from twin_operator.domain.objects import Round, Unreadable
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.apply import ApplyOutcome, Owner
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.events import Notice
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import CONFIG_MAP, JOB, POD, Key
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import VALIDATOR_ROUND
from twin_operator.kinds.validator_round.facts import RoundFacts
from twin_operator.kinds.validator_round.gather import facts_of_round, gather
from twin_operator.kinds.validator_round.notices import round_notices
from twin_operator.kinds.validator_round.plan import RoundPlan, RoundView, plan_round, plan_without_job
from twin_operator.kinds.watched import OWNER
from twin_operator.kinds.world import World
from twin_operator.settings import Images

EXAMINATION_REFUSED: Final = "ExaminationRefused"
"""Reason of an event."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of the plan."""

    gone: bool = False
    outcome: ApplyOutcome | None = None
    problem: ApiError | None = None
    """Why a run that is to examine a task's version could not be made: the round is looked at again for it."""


class ValidatorRoundReconciler(Reconciler[RoundView, RoundPlan, Applied]):
    """Brings ValidatorRounds to their end."""

    kind = VALIDATOR_ROUND.kind
    fields = StatusFields.of(ValidatorRoundStatus, conditions=conditions_said("ValidatorRound"))

    def __init__(self, tools: Tools, *, world: World, images: Images, prometheus_url: str | None) -> None:
        super().__init__(tools)
        self._world = world
        self._images = images
        self._prometheus_url = prometheus_url
        # Two workers that look at the same validator would both find nobody before them.
        self._turnstiles: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a round that can't be read that nothing is done until it can."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def step(self, entry: Entry) -> None:
        """Go on once; a round that has just been let go is started in the same breath."""
        made: Round = entry.value
        if made.started:
            await super().step(entry)
            return
        async with self._turnstiles[made.namespace]:
            now = self.store.entry(entry.key)
            if now is None or not isinstance(now.value, Round):
                return
            await super().step(now)
        after = self.store.entry(entry.key)
        if after is not None and isinstance(after.value, Round) and after.value.started and not after.value.ended:
            await super().step(after)

    async def gather(self, entry: Entry) -> RoundView:
        """Collect the validator and the round's own objects."""
        made: Round = entry.value
        view = self._within_bounds(gather(self._world, made))
        job = view.facts.measure if not made.ended else view.facts.weights_job
        over = job is not None and job.finished is not None
        again = any(each.finished is not None for each in view.facts.recompute_jobs.values())
        unsaid = made.ended and not _settled(made)
        if made.started and ((over and (not made.ended or unsaid)) or (again and not _answered(made))):
            return replace(view, facts=await self._last_look(made))
        return view

    def _within_bounds(self, view: RoundView) -> RoundView:
        """Return the view with why a round may not be begun whose pods would be made of what tenants may not name."""
        made, validator = view.round, view.validator
        if made.started or validator is None:
            return view
        found = validator_out_of_bounds(validator, self._world.bounds, self._images)
        if found is None:
            return view
        there = Finding(found.reason, f"Validator {validator.name} may start nothing: {found.message}")
        return replace(view, obstacle=view.obstacle or there)

    def plan(self, gathered: RoundView, now: datetime) -> RoundPlan:
        """Decide what the round should have and say."""
        return plan_round(gathered, self._images, prometheus_url=self._prometheus_url, now=now)

    async def apply(self, entry: Entry, gathered: RoundView, plan: RoundPlan) -> Applied:
        """Make the Jobs' objects, or take away what nobody looks at any more."""
        made, api, owner = gathered.round, self.tools.api, Owner.of(entry.manifest)
        problem = await self._examine(entry, gathered) if made.complete else None
        if plan.expired:
            await api.delete(VALIDATOR_ROUND, namespace=made.namespace, name=made.name, uid=made.uid)
            return Applied(gone=True)
        return replace(await self._children(plan, owner), problem=problem)

    async def _children(self, plan: RoundPlan, owner: Owner) -> Applied:
        existing = [each.manifest for each in self.store.find(OWNER, owner.uid)]
        if plan.tidy:
            outcome = await self.tools.applier.delete(
                owner=owner, existing=existing, keep=lambda key: key.kind == CONFIG_MAP.kind
            )
            return Applied(outcome=outcome)
        if plan.children:
            outcome = await self.tools.applier.apply(
                owner=owner, wanted=plan.children, existing=existing, keep=lambda key: key.kind == JOB.kind
            )
            return Applied(outcome=outcome)
        return Applied()

    async def _examine(self, entry: Entry, gathered: RoundView) -> ApiError | None:
        """Make the runs that examine what the round named; return what is to be tried again, and holds up nothing."""
        problem = None
        for name in gathered.occupied:
            await self._say_not_examined(
                entry,
                f"FineTuneRun {name} examines something else than what was delivered for its task, so that is not "
                "examined: delete it",
            )  # fmt: skip
        for wanted in gathered.examinations:
            name = wanted["metadata"]["name"]
            try:
                made = await self.tools.api.create(wanted)
            except ApiError as error:
                if error.status == 409 and error.reason == "AlreadyExists":
                    continue
                if error.namespace_ends:
                    return None
                problem = error
                await self._say_not_examined(
                    entry,
                    f"FineTuneRun {name} can't be made, so a task's version isn't examined yet: {error.message[:300]}",
                )  # fmt: skip
                if error.status == 0:
                    break  # each further one would wait as long for no answer
                continue
            self.store.put(made)
        return problem

    async def _say_not_examined(self, entry: Entry, note: str) -> None:
        notice = Notice(reason=EXAMINATION_REFUSED, kind="Warning", note=note)
        await self.tools.events.post(entry.manifest, notice)

    def report(self, gathered: RoundView, plan: RoundPlan, outcome: Applied) -> Report | None:
        """Say how far it is."""
        if outcome.gone:
            return None
        if plan.overdue is not None and (why := self._no_job(gathered.round, outcome.outcome)) is not None:
            ending = plan_without_job(gathered, why, now=plan.overdue)
            return Report(status=ending.status, conditions=ending.conditions, notices=round_notices)
        return Report(
            status=plan.status, conditions=with_refusal(plan.conditions, outcome.outcome), notices=round_notices,
            wake_at=(plan.wake_at,), outcome=outcome.outcome, problem=outcome.problem,
        )  # fmt: skip

    def _no_job(self, made: Round, outcome: ApplyOutcome | None) -> str | None:
        """Return why the round still has no Job, if it has none because it can't be made."""
        if outcome is None or self.store.get(Key(JOB.kind, made.namespace, made.name)) is not None:
            return None
        refused = [
            *(refusal.message for refusal in outcome.refusals),
            *(f"{key.kind} {key.name} can't be made: {error.message}" for key, error in outcome.failures),
        ]
        return refused[0] if refused else None

    async def _last_look(self, made: Round) -> RoundFacts:
        """Ask the API server for report and pods: a Job's end may be seen before them, and it is final."""
        name = progress_name(made.name)
        configmap = await self.tools.api.get(CONFIG_MAP, namespace=made.namespace, name=name)
        pods, _ = await self.tools.api.list(POD, namespace=made.namespace, selector=f"{names.LABEL_ROUND}={made.name}")
        for fresh in ([{**configmap, "kind": CONFIG_MAP.kind}] if configmap is not None else []) + pods:
            self.store.put({"apiVersion": "v1", **fresh})
        return facts_of_round(self._world, made)


def _settled(made: Round) -> bool:
    """Tell whether what became of the weights is said already."""
    said = next((each for each in made.status.conditions or [] if each.type == "WeightsSubmitted"), None)
    return said is None or said.status != "Unknown"


def _answered(made: Round) -> bool:
    said, asked = made.status.recomputed, made.annotations.get(names.RECOMPUTE_ANNOTATION) or ""
    return said is not None and said.token == asked[: names.TOKEN_LENGTH]


def with_refusal(conditions: Sequence[Condition], outcome: ApplyOutcome | None) -> Sequence[Condition]:
    """Return the conditions with what keeps the round's objects from being made, instead of how it runs."""
    if outcome is None or not outcome.refusals:
        return conditions
    message = outcome.refusals[0].message
    said = {each.type: each for each in conditions}
    weights, running = said.get("WeightsSubmitted"), said.get("Running")
    if weights is not None and weights.status == "Unknown":
        refused = Finding(Reason.APPLY_REFUSED, message).condition("WeightsSubmitted", "Unknown")
    elif running is not None and running.reason == Reason.ENDED:
        return conditions  # what was asked for afterwards can't be made, and all else is as it was
    else:
        refused = Finding(Reason.APPLY_REFUSED, message).condition("Running", "False")
    return [*(each for each in conditions if each.type != refused.type), refused]
