"""One twin: gather → plan → report. What makes it answer is its pools' routing (kinds.routing).

What is decided is said first. A run that is due is made beside it (fine_tune_start): no refusal of that, and no API
server that lets it wait, holds a rollback back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bettertherapy_api.doctor_twin import Baseline, DoctorTwinStatus
from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.canary_analysis import UNWATCHED, Analysis, assess
from twin_operator.domain.objects import Twin, Unreadable
from twin_operator.domain.rollout import Rollout, plan_rollout
from twin_operator.domain.twin_view import TwinView
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import Manifest
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.baseline_watch import BaselineWatch
from twin_operator.kinds.doctor_twin.canary_watch import CanaryWatch, trial_of
from twin_operator.kinds.doctor_twin.checks import twin_conditions
from twin_operator.kinds.doctor_twin.fine_tune_start import FineTuneStarter, planned_fine_tune
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan
from twin_operator.kinds.doctor_twin.gather import gather
from twin_operator.kinds.doctor_twin.notices import twin_notices
from twin_operator.kinds.doctor_twin.plan import plan_status
from twin_operator.kinds.resources import DOCTOR_TWIN
from twin_operator.kinds.world import World


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A twin with all that its plan depends on."""

    view: TwinView
    analysis: Analysis | None
    """How the canary does; None when none takes traffic."""
    not_started: Finding | None
    """Why a fine-tune that is due could not be made so far."""


@dataclass(frozen=True, kw_only=True)
class TwinPlan:
    """What was decided."""

    now: datetime
    fine_tunes: FineTunePlan
    rollout: Rollout


class DoctorTwinReconciler(Reconciler[Gathered, TwinPlan, None]):
    """Keeps the status of DoctorTwins true, and lets the runs that are due be made."""

    kind = DOCTOR_TWIN.kind
    fields = StatusFields.of(DoctorTwinStatus, conditions=conditions_said("DoctorTwin"))

    def __init__(
        self, tools: Tools, *, world: World, wake_route: Callable[[str, str, str], None], starter: FineTuneStarter,
        window_seconds: int, canaries: CanaryWatch | None, baselines: BaselineWatch | None = None,
    ) -> None:  # fmt: skip
        super().__init__(tools)
        self._world = world
        self._wake_route = wake_route
        self._starter = starter
        self._window_seconds = window_seconds
        self._canaries = canaries
        self._baselines = baselines

    def gone(self, entry: Entry) -> None:
        """Forget why its fine-tune could not be started."""
        self._starter.forget(entry.key)

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a twin that can't be read that what answers for it goes on."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def gather(self, entry: Entry) -> Gathered:
        """Collect pools, runs and the canary's last measurement."""
        twin: Twin = entry.value
        view = gather(self._world, twin)
        return Gathered(view=view, analysis=self._analyse(view), not_started=self._starter.obstacle(twin))

    def plan(self, gathered: Gathered, now: datetime) -> TwinPlan:
        """Decide on the next fine-tune and on the versions."""
        view = gathered.view
        fine_tunes = planned_fine_tune(view, now=now, window_seconds=self._window_seconds)
        return TwinPlan(now=now, fine_tunes=fine_tunes, rollout=plan_rollout(view, gathered.analysis, now=now))

    async def apply(self, entry: Entry, gathered: Gathered, plan: TwinPlan) -> None:
        """Let pools look again that answer with a last version until another has taken over: that may be now."""
        for pool in gathered.view.pools:
            if not pool.counts:
                self._wake_route(entry.key.namespace, pool.pool.name, gathered.view.twin.uid)

    def report(self, gathered: Gathered, plan: TwinPlan, outcome: None) -> Report:
        """Say what answers and what was decided; a run that is not made yet stays due."""
        view, fine_tunes, rollout = gathered.view, plan.fine_tunes, plan.rollout
        if fine_tunes.create is not None:
            fine_tunes = replace(
                fine_tunes, next_time=fine_tunes.due_time or fine_tunes.next_time,
                handled_token=view.twin.status.handled_fine_tune, obstacle=gathered.not_started,
            )  # fmt: skip
        status = plan_status(view, now=timestamp(plan.now), fine_tunes=fine_tunes, rollout=rollout)
        baseline = self._baseline(view.twin, status["activeVersion"])
        known = baseline.model_dump(mode="json", by_alias=True, exclude_none=True) if baseline is not None else None
        return Report(
            status={**status, "baseline": known},
            conditions=twin_conditions(view, fine_tunes, rollout, baseline),
            notices=twin_notices,
            wake_at=(fine_tunes.wake_at, rollout.wake_at),
        )

    async def after_report(self, entry: Entry, gathered: Gathered, plan: TwinPlan) -> None:
        """Let the run be made that is due; once it is there, it wakes the twin, whose status goes on."""
        if plan.fine_tunes.create is not None:
            self._starter.ask(gathered.view.twin)

    def _baseline(self, twin: Twin, active: Manifest | None) -> Baseline | None:
        """Return what is usual for the version that answers; None where none does, or nobody looks."""
        if self._baselines is None or active is None:
            return None
        return self._baselines.known(twin, active["servedName"])

    def _analyse(self, view: TwinView) -> Analysis | None:
        """Return how the canary did when it was last measured, if one takes traffic."""
        if trial_of(view.twin) is None:
            return None
        if self._canaries is None:
            return UNWATCHED
        miners = [pod for pool in view.counting for pod in pool.facts.miners]
        return assess(self._canaries.measured(view.twin), view.twin.spec.rollout or RolloutSpec(), miners=miners)
