"""One twin: gather → plan → report. What makes it answer is its pools' routing (kinds.routing).

What is decided is said first. Creating a run that is due comes beside it: a refusal of that holds back no rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bettertherapy_api.doctor_twin import DoctorTwinStatus
from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.canary_analysis import UNWATCHED, Analysis, assess
from twin_operator.domain.objects import Twin, Unreadable
from twin_operator.domain.rollout import Rollout, plan_rollout
from twin_operator.domain.training_pool import choose_pool
from twin_operator.domain.twin_view import TwinView
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.conditions import Condition
from twin_operator.engine.events import Notice
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.engine.times import timestamp
from twin_operator.errors import ApiError
from twin_operator.kinds.doctor_twin.canary_watch import CanaryWatch, trial_of
from twin_operator.kinds.doctor_twin.checks import creation_refused, twin_conditions
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, plan_fine_tune
from twin_operator.kinds.doctor_twin.gather import gather
from twin_operator.kinds.doctor_twin.notices import twin_notices
from twin_operator.kinds.doctor_twin.plan import plan_status
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN
from twin_operator.kinds.world import World


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A twin with all that its plan depends on."""

    view: TwinView
    analysis: Analysis | None
    """How the canary does; None when none takes traffic."""


@dataclass(frozen=True, kw_only=True)
class TwinPlan:
    """What was decided."""

    now: datetime
    fine_tunes: FineTunePlan
    rollout: Rollout


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of the run that was to be made."""

    notice: Notice | None = None
    problem: ApiError | None = None


class DoctorTwinReconciler(Reconciler[Gathered, TwinPlan, Made]):
    """Keeps the status of DoctorTwins true, and makes the runs that are due."""

    kind = DOCTOR_TWIN.kind
    fields = StatusFields.of(DoctorTwinStatus, conditions=conditions_said("DoctorTwin"))

    def __init__(
        self, tools: Tools, *, world: World, wake_route: Callable[[str, str, str], None], window_seconds: int,
        canaries: CanaryWatch | None,
    ) -> None:  # fmt: skip
        super().__init__(tools)
        self._world = world
        self._wake_route = wake_route
        self._window_seconds = window_seconds
        self._canaries = canaries

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a twin that can't be read that what answers for it goes on."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def gather(self, entry: Entry) -> Gathered:
        """Collect pools, runs and the canary's last measurement."""
        twin: Twin = entry.value
        view = gather(self._world, twin)
        return Gathered(view=view, analysis=self._analyse(view))

    def plan(self, gathered: Gathered, now: datetime) -> TwinPlan:
        """Decide on the next fine-tune and on the versions."""
        view = gathered.view
        pool = choose_pool(view.twin, [pool.pool for pool in view.pools])
        fine_tunes = plan_fine_tune(view.twin, view.runs, pool, now=now, window_seconds=self._window_seconds)
        return TwinPlan(now=now, fine_tunes=fine_tunes, rollout=plan_rollout(view, gathered.analysis, now=now))

    async def apply(self, entry: Entry, gathered: Gathered, plan: TwinPlan) -> Made:
        """Create the run that is due, before the status says so: killed in between, the next one finds it made."""
        for pool in gathered.view.pools:
            if not pool.counts:
                # It answers with a last version until another pool has taken over: that may be now.
                self._wake_route(entry.key.namespace, pool.pool.name, gathered.view.twin.uid)
        wanted = plan.fine_tunes.create
        if wanted is None:
            return Made()
        try:
            self.store.put(await self.tools.api.create(wanted))
        except ApiError as error:
            there = error.status == 409 and await self._is_there(gathered.view.twin, wanted["metadata"]["name"])
            return Made() if there else Made(problem=error)
        return Made(notice=Notice(reason="FineTuneStarted", note=f"created FineTuneRun {wanted['metadata']['name']}"))

    def report(self, gathered: Gathered, plan: TwinPlan, outcome: Made) -> Report:
        """Say what answers and what was decided; a run that could not be made stays due."""
        view, fine_tunes = gathered.view, plan.fine_tunes
        if outcome.problem is not None:
            status = view.twin.status
            due = fine_tunes.due_time
            fine_tunes = replace(
                fine_tunes, create=None, next_time=due or fine_tunes.next_time, handled_token=status.handled_fine_tune,
                obstacle=creation_refused(outcome.problem.message),
            )  # fmt: skip
        rollout = plan.rollout
        made = outcome.notice
        return Report(
            status=plan_status(view, now=timestamp(plan.now), fine_tunes=fine_tunes, rollout=rollout),
            conditions=twin_conditions(view, fine_tunes, rollout),
            notices=lambda before, now: [*twin_notices(before, now), *([made] if made else [])],
            wake_at=(fine_tunes.wake_at, rollout.wake_at),
            problem=outcome.problem,
        )

    async def _is_there(self, twin: Twin, name: str) -> bool:
        """Tell whether the run that could not be made exists and is this very twin's."""
        live = await self.tools.api.get(FINE_TUNE_RUN, namespace=twin.namespace, name=name)
        if live is not None:
            self.store.put({"apiVersion": FINE_TUNE_RUN.api_version, "kind": FINE_TUNE_RUN.kind, **live})
        return any(run.name == name for run in self._world.runs_of(twin))

    def _analyse(self, view: TwinView) -> Analysis | None:
        """Return how the canary did when it was last measured, if one takes traffic."""
        if trial_of(view.twin) is None:
            return None
        if self._canaries is None:
            return UNWATCHED
        miners = [pod for pool in view.counting for pod in pool.facts.miners]
        return assess(self._canaries.measured(view.twin), view.twin.spec.rollout or RolloutSpec(), miners=miners)
