"""Makes the runs of validators' tasks and publishes what becomes of them, beside the pools' own reconciliation: a run
that the API server lets wait, or refuses, delays nothing of what serves patients.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.task_states import tasks_name
from twin_operator.domain.objects import Pool
from twin_operator.engine.apply import Owner
from twin_operator.engine.events import Notice
from twin_operator.engine.reconcile import Tools
from twin_operator.engine.resources import CONFIG_MAP, Key, Manifest
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.miner_pool.tasks import TasksPlan, TasksView, plan_tasks
from twin_operator.kinds.miner_pool.tasks_configmap import build_tasks_configmap
from twin_operator.kinds.resources import FINE_TUNE_RUN, MINER_POOL
from twin_operator.kinds.world import World

_FOR_GOOD: Final = frozenset({400, 403, 409, 422})
"""What the API server or a policy will say again: the task is refused, in its words."""


class TaskKeeper:
    """Looks after the tasks of pools; its keys are named as the pools."""

    def __init__(self, tools: Tools, *, world: World) -> None:
        self._tools, self._world = tools, world
        self._refused: dict[tuple[str, str], dict[str, str]] = {}
        """By pool and task: why its run was refused. It is kept while a miner asks about it."""

    async def reconcile(self, key: Key) -> None:
        """Make what is to be made and say how all stand; raises ApiError or what the apply raises, to come again."""
        entry = self._world.store.entry(Key(MINER_POOL.kind, key.namespace, key.name))
        if entry is None or not isinstance(entry.value, Pool) or entry.value.deleted:
            self._refused.pop((key.namespace, key.name), None)
            return
        problem: ApiError | None = None
        plan = self._plan(entry.value)
        for manifest in plan.create:
            problem = await self._create(entry, manifest) or problem
        if plan.create:
            plan = self._plan(entry.value)  # with the runs that are there now: what is published was written down
        await self._publish(key, entry, plan)
        if problem is not None:
            raise problem

    def _plan(self, pool: Pool) -> TasksPlan:
        world, facts = self._world, self._world.facts(pool.namespace, pool.name)
        claims = facts.task_claims
        place = (pool.namespace, pool.name)
        asked = {claim.id for claim in claims}
        refused = self._refused[place] = {
            task: why for task, why in self._refused.get(place, {}).items() if task in asked
        }
        named = {claim.twin: world.twin(pool.namespace, claim.twin) for claim in claims}
        view = TasksView(
            pool=pool, claims=claims, runs=tuple(world.task_runs(pool)),
            twins={name: twin for name, twin in named.items() if twin is not None},
            pools=list(world.pools(pool.namespace)), refused=refused,
        )  # fmt: skip
        return plan_tasks(view, now=datetime.now(UTC))

    async def _create(self, entry: Entry, wanted: Manifest) -> ApiError | None:
        """Make one run; returns why it could not be made now, if another try may succeed."""
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        task = wanted["spec"]["task"]["id"]
        try:
            made = await self._tools.api.create(wanted)
        except ApiError as error:
            if error.status == 409:
                live = await self._tools.api.get(FINE_TUNE_RUN, namespace=namespace, name=name)
                if live is not None and ((live.get("spec") or {}).get("task") or {}).get("id") == task:
                    self._world.store.put({"apiVersion": FINE_TUNE_RUN.api_version, "kind": FINE_TUNE_RUN.kind, **live})
                    return None
            if error.status not in _FOR_GOOD:
                return error
            self._refused[entry.key.namespace, entry.key.name][task] = error.message[:300]
            return None
        self._world.store.put(made)
        await self._tools.events.post(
            entry.manifest, Notice(reason="TaskTaken", note=f"created FineTuneRun {name} for a validator's task")
        )
        return None

    async def _publish(self, key: Key, entry: Entry, plan: TasksPlan) -> None:
        pool: Pool = entry.value
        there = self._world.store.get(Key(CONFIG_MAP.kind, pool.namespace, tasks_name(pool.name)))
        if plan.published.tasks or there is not None:
            outcome = await self._tools.applier.apply(
                owner=Owner.of(entry.manifest), wanted=[build_tasks_configmap(pool, plan.published)], existing=()
            )
            outcome.raise_incomplete()
        if plan.wake_at is not None:
            self._tools.wake_at(key, plan.wake_at)
