"""One pool: gather → plan → apply → report. What its agents and miners follow is published by kinds.routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from bettertherapy_api import names
from bettertherapy_api.miner_pool import MinerPoolStatus, SlowReplica
from bettertherapy_api.task_states import tasks_name
from twin_operator.domain.activity import Activity
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.bounds import Bounds, pool_out_of_bounds
from twin_operator.domain.engine_groups import deployment_of
from twin_operator.domain.objects import Pool, Unreadable
from twin_operator.domain.pool_checks import no_tokens
from twin_operator.domain.pool_update import Pace, Rollout
from twin_operator.domain.reasons import Reason
from twin_operator.domain.tuning import Needs
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.apply import ApplyOutcome, Owner
from twin_operator.engine.conditions import Condition, Finding, conditions_in
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import CONFIG_MAP, DEPLOYMENT, LEADER_WORKER_SET, Key, Manifest
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.errors import ApiError
from twin_operator.kinds.miner_pool.access import AccessSecrets, AccessState
from twin_operator.kinds.miner_pool.access_secret import POOL_TOKENS, access_secret_name, pool_tokens_name
from twin_operator.kinds.miner_pool.children import Children, rollout_of
from twin_operator.kinds.miner_pool.engine_needs import ReadAdapters, needs_of
from twin_operator.kinds.miner_pool.former_release import former_report, former_routing
from twin_operator.kinds.miner_pool.notices import pool_notices, restart_notices
from twin_operator.kinds.miner_pool.plan import RUNS_PODS, Gathered, plan_children, plan_status
from twin_operator.kinds.miner_pool.scaling_watch import ScalingWatch, is_measured
from twin_operator.kinds.resources import MINER_POOL, ROUTING_SLICE
from twin_operator.kinds.watched import OWNER
from twin_operator.kinds.world import World
from twin_operator.settings import Images

_RECENT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of the children."""

    gathered: Gathered
    """What is observed after they were applied: it is looked at again before anything is said."""
    outcome: ApplyOutcome
    look_again: float | None
    """Seconds after which the Secret with the clients' tokens may have come or gone."""


class MinerPoolReconciler(Reconciler[Gathered, Children, Applied]):
    """Brings MinerPools to what their specs ask."""

    kind = MINER_POOL.kind
    fields = StatusFields.of(MinerPoolStatus, conditions=conditions_said("MinerPool"))

    def __init__(
        self, tools: Tools, *, world: World, images: Images, pace: Pace, bounds: Bounds | None = None,
        load: ScalingWatch | None = None, busy: Callable[[Pool], Activity | None] = lambda pool: None,
        slow: Callable[[Pool], tuple[SlowReplica, ...] | None] = lambda pool: None,
    ) -> None:  # fmt: skip
        """Without `load`, no pool's load is known, without `busy` not which twins are in use; without `slow`, none of
        its pods is compared with the others.
        """
        super().__init__(tools)
        self._load = load
        self._busy = busy
        self._slow = slow
        self._world = world
        self._images = images
        self._pace = pace
        self._bounds = bounds or Bounds()
        self._access = AccessSecrets(tools.api)
        self._pool_tokens = AccessSecrets(tools.api, needed=POOL_TOKENS)
        self._read = ReadAdapters()
        self._blocked: set[Key] = set()
        """Engine Deployments that the API server would not let be as planned when that was last tried."""

    def gone(self, entry: Entry) -> None:
        """Forget its Secret, and whether its Deployment could be written."""
        namespace, name = entry.key.namespace, entry.key.name
        for secrets in (self._access, self._pool_tokens):
            secrets.forget(entry.manifest["metadata"]["uid"])
        self._read.forget(entry.manifest["metadata"]["uid"])
        for kind in RUNS_PODS:
            self._blocked.discard(Key(kind, namespace, names.engine_name(name)))
        self._world.access_missing.pop((namespace, name), None)

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a pool that can't be read that its children stay as they are."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def gather(self, entry: Entry) -> Gathered:
        """Collect what is observed of the pool and what it publishes."""
        return self._gather(entry.value)

    def _gather(self, pool: Pool) -> Gathered:
        load = self._load if is_measured(pool) else None
        return Gathered(
            pool=pool,
            facts=self._world.facts(pool.namespace, pool.name),
            published=self._world.published(pool),
            needs=self._needs(pool),
            unpublished=self._world.unpublished_trouble(pool),
            engine=self._engines(pool),
            no_groups=self._world.lacks_groups(pool),
            miner=self._deployment(pool, names.miner_name(pool.name)),
            others=lambda: self._rollouts_beside(pool),
            legacy=self._legacy(pool),
            out_of_bounds=self._out_of_bounds(pool),
            load=load.seen(pool) if load is not None else None,
            saturation=self._saturation(pool, load) if load is not None else None,
            slow=self._slow(pool),
            said=tuple(conditions_in(self._status(pool), ("ScalingActive", "MetricsAvailable"))),
        )

    def _saturation(self, pool: Pool, load: ScalingWatch) -> Manifest | None:
        """Return how loaded it is; as its status says while this process has only begun to look."""
        if load.has_begun(pool):
            return load.saturation(pool)
        found = self._status(pool).get("saturation")
        return found if isinstance(found, dict) else None

    def _status(self, pool: Pool) -> Manifest:
        """Return its status, as this or another process wrote it."""
        found = (self.store.get(Key(self.kind, pool.namespace, pool.name)) or {}).get("status")
        return found if isinstance(found, dict) else {}

    def _out_of_bounds(self, pool: Pool) -> Finding | None:
        return pool_out_of_bounds(pool, self._bounds, self._images)

    def plan(self, gathered: Gathered, now: datetime) -> Children:
        """Return the pool's children."""
        return plan_children(gathered, self._images, self._pace, now=now)

    async def apply(self, entry: Entry, gathered: Gathered, plan: Children) -> Applied:
        """Apply each child by itself; slices are not this plan's to keep or to delete."""

        def keep(key: Key) -> bool:
            # What was seen before the Deployments were applied counts: their next change, which takes the pause of this
            # update out of them, makes them look unfinished for a moment.
            told_of_tasks = key.kind == CONFIG_MAP.kind and key.name == tasks_name(gathered.pool.name)
            former = key.kind == CONFIG_MAP.kind and key.name in gathered.legacy
            as_it_runs = key.kind in RUNS_PODS and (gathered.out_of_bounds is not None or gathered.no_groups)
            return key.kind == ROUTING_SLICE.kind or told_of_tasks or former or as_it_runs

        owner = Owner.of(entry.manifest)
        existing = [each.manifest for each in self.store.find(OWNER, owner.uid)]
        outcome = await self.tools.applier.apply(owner=owner, wanted=plan.manifests, existing=existing, keep=keep)
        self._note_blocked(gathered.pool, outcome)
        missing, look_again = self._world.access_trouble(gathered.pool), None
        try:
            access = await self._access.ensure(gathered.pool, owner)
        except ApiError as error:  # what was known stays; the pool's status is owed all the same
            secret = Key("Secret", owner.namespace, access_secret_name(gathered.pool))
            outcome = replace(outcome, failures=(*outcome.failures, (secret, error)))
        else:
            missing = no_tokens(access.secret) if access.state is AccessState.MISSING else None
            look_again = access.look_again
            self._note_access(gathered.pool, missing)
        try:
            tokens = await self._pool_tokens.ensure(gathered.pool, owner)
        except ApiError as error:
            secret = Key("Secret", owner.namespace, pool_tokens_name(gathered.pool))
            outcome = replace(outcome, failures=(*outcome.failures, (secret, error)))
        else:
            look_again = min((each for each in (look_again, tokens.look_again) if each is not None), default=None)
        pool = gathered.pool if plan.sizing is None else replace(gathered.pool, decided=plan.sizing.replicas)
        again = replace(
            self._gather(pool), refused=refused_children(outcome), held=plan.held,
            access_missing=missing, sizing=plan.sizing, tuning=plan.tuning,
        )  # fmt: skip
        return Applied(gathered=again, outcome=outcome, look_again=look_again)

    def _note_blocked(self, pool: Pool, outcome: ApplyOutcome) -> None:
        """Remember whether the engines' Deployment could be written: nobody need wait for one that can't."""
        engine = engines_key(pool)
        failed = {refusal.key for refusal in outcome.refusals} | {key for key, _ in outcome.failures}
        if outcome.namespace_ends or engine in failed or engine in outcome.conflicts:
            self._blocked.add(engine)
        else:
            self._blocked.discard(engine)

    def _note_access(self, pool: Pool, missing: Finding | None) -> None:
        """Let the pool's twins know whether clients have tokens: without, they are not Ready either."""
        former = self._world.access_trouble(pool)
        self._world.access_missing[pool.namespace, pool.name] = missing
        if missing == former:
            return
        for twin in self._world.twins_selecting(pool):
            self.tools.wake(twin.key)

    def report(self, gathered: Gathered, plan: Children, outcome: Applied) -> Report:
        """Say how the pool is."""
        status, conditions = plan_status(outcome.gathered)
        again, tuning = outcome.look_again, plan.tuning
        due = tuning.due if tuning is not None and not tuning.restarts else None
        look_again = datetime.now(UTC) + timedelta(seconds=again) if again is not None else None
        return Report(
            status=status, conditions=conditions, notices=pool_notices, outcome=outcome.outcome,
            wake_at=(plan.held.look_again if plan.held else None, look_again, due),
        )  # fmt: skip

    async def after_report(self, entry: Entry, gathered: Gathered, plan: Children) -> None:
        """Tell of engines that restarted."""
        facts = self._world.facts(gathered.pool.namespace, gathered.pool.name)
        for notice in restart_notices(facts, since=datetime.now(UTC) - _RECENT):
            await self.tools.events.post(entry.manifest, notice)

    def _engines(self, pool: Pool) -> Manifest | None:
        """Return the engines' Deployment that runs; of groups, what their leaders would be as one."""
        found = self.store.get(engines_key(pool))
        return found if pool.spec.engine.group is None else deployment_of(found)

    def _deployment(self, pool: Pool, name: str) -> Manifest | None:
        return self.store.get(Key(DEPLOYMENT.kind, pool.namespace, name))

    def _rollouts_beside(self, pool: Pool) -> list[Rollout]:
        """Return how far all other pools are with the operator's update."""
        now = datetime.now(UTC)
        others = [each.value for each in self.store.of_kind(self.kind) if isinstance(each.value, Pool)]
        return [
            rollout_of(
                other, self._images, needs=self._needs(other),
                engine=self._engines(other), now=now,
                legacy=bool(self._legacy(other)),
                blocked=engines_key(other) in self._blocked
                or self._out_of_bounds(other) is not None,
            )
            for other in others
            if other.uid != pool.uid and not other.deleted
        ]  # fmt: skip

    def _needs(self, pool: Pool) -> Needs:
        """Return what the pool's engines must hold."""
        facts = self._world.facts(pool.namespace, pool.name)
        return needs_of(self._world.published(pool), facts, self._busy(pool), read=self._read, pool=pool.uid)

    def _legacy(self, pool: Pool) -> frozenset[str]:
        """Return the ConfigMaps of the release before that pods of that release may still follow.

        They are left as they are until no such pod is there any more.
        """
        there = frozenset(
            name
            for name in (former_routing(pool), former_report(pool))
            if self.store.entry(Key(CONFIG_MAP.kind, pool.namespace, name)) is not None
        )
        if not there:
            return there
        facts = self._world.facts(pool.namespace, pool.name)
        deployments = (facts.engine_deployment, facts.miner_deployment)
        rolled = all(each.follows_slices and each.rolled_out for each in deployments)
        return frozenset() if rolled else there


def engines_key(pool: Pool) -> Key:
    """Return which object makes the pool's engine pods."""
    kind = DEPLOYMENT.kind if pool.spec.engine.group is None else LEADER_WORKER_SET.kind
    return Key(kind, pool.namespace, names.engine_name(pool.name))


def refused_children(outcome: ApplyOutcome) -> Finding | None:
    """Return which of the pool's objects can't be as they should be; the others are."""
    if not outcome.refusals:
        return None
    first = outcome.refusals[0]
    others = f" (and {len(outcome.refusals) - 1} more objects)" if len(outcome.refusals) > 1 else ""
    return Finding(Reason.CHILD_CONFLICT if first.foreign else Reason.CHILDREN_REFUSED, first.message + others)
