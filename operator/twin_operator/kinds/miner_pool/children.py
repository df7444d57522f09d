"""All children of a pool, and whether the pods of its Deployments must stay as they are for now."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_update import Cause, Held, Pace, Rollout, unproven, update_held
from twin_operator.domain.sizing import Sizing
from twin_operator.domain.tuning import Decision, Engines, Needs, decide, memory_of
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.miner_pool.engine_deployment import build_engine_deployment, tuning_in
from twin_operator.kinds.miner_pool.engine_group import group_of
from twin_operator.kinds.miner_pool.engine_update import (
    EngineUpdate,
    engine_update,
    held_back,
    images_of,
    is_as_asked,
    is_coming_up,
    is_unready,
    stamp,
    with_images_told,
)
from twin_operator.kinds.miner_pool.miner_deployment import build_miner_deployment
from twin_operator.kinds.miner_pool.network_policy import build_engine_network_policy, build_miner_network_policy
from twin_operator.kinds.miner_pool.pod_disruption_budget import build_engine_budget, build_miner_budget
from twin_operator.kinds.miner_pool.role import build_engine_role, build_miner_role
from twin_operator.kinds.miner_pool.role_binding import build_engine_role_binding, build_miner_role_binding
from twin_operator.kinds.miner_pool.service import build_service
from twin_operator.kinds.miner_pool.service_account import build_engine_service_account, build_miner_service_account
from twin_operator.settings import Images

LEGACY_SECONDS: Final = 30
"""So long an engine pod that follows slices runs beside those that don't, for the new miners to find it."""
OtherRollouts = Callable[[], Collection[Rollout]]
"""Asked only when an update of the operator's waits: it costs a look at every pool."""


@dataclass(frozen=True, kw_only=True)
class Children:
    """What to apply."""

    manifests: tuple[Manifest, ...]
    """In the order in which they are applied: pods last, when all they need is there."""
    held: Held | None
    """Why the engines' update waits, if it does."""
    sizing: Sizing | None = None
    """What was decided on the number of engine pods, where the operator decides."""
    tuning: Decision | None = None
    """How engines are started for their adapters; None where they aren't ours to start."""


def build_children(
    pool: Pool,
    images: Images,
    *,
    needs: Needs,
    engine: Manifest | None,
    miner: Manifest | None,
    others: OtherRollouts,
    pace: Pace,
    now: datetime,
    legacy: bool,
    reported: bool = True,
    crashing: bool = False,
) -> Children:
    """Return the pool's children.

    `needs`: of the pod that holds most. `engine`, `miner`: the Deployments that run, if they do; of a pool whose
    engines are groups what `deployment_of` says of them. `others`: the other pools' `rollout_of`. `now` in UTC.
    `legacy`: pods of the release before are still there, which can't be told of changes any more, not even of a
    rollback: such an update waits for its turn, but for no window. `reported`: some engine pod has said in the new way
    that it is ready. `crashing`: some engine ends by itself, again and again.
    """
    planned, update, tuning = plan_engine(
        pool, images, needs=needs, engine=engine, now=now, legacy=legacy, crashing=crashing
    )
    held = None
    if engine is not None and update.pending:
        held = update_held(
            update.rollout,
            strategy=pool.spec.engine.update_strategy,
            cause=update.cause,
            others=others() if update.cause is Cause.OPERATOR else (),
            pace=pace,
            now=now,
            any_time=legacy or update.any_time,
        )
    # An update of the operator's stays one until it is proven: a change of the pool's own on top of it, or one that
    # brings another release's images along, would else let the others follow into what nobody has seen work.
    ours = update.brings_images or (update.pending and unproven(update.rollout, pace=pace, now=now))
    stamped = stamp(with_images_told(planned), pool, cause=Cause.OPERATOR if ours else update.cause)
    engine_deployment = held_back(stamped, engine) if held is not None and engine is not None else stamped
    miner_deployment = with_images_told(build_miner_deployment(pool, images))
    if legacy:
        # Miners of either release see only engine pods of their own: the old ones stay until there is one of the new,
        # and old engine pods a while longer, until the new miners are there.
        engine_deployment = with_pause(engine_deployment, LEGACY_SECONDS)
        if miner is not None and not reported:
            miner_deployment = held_back(miner_deployment, miner)
    elif miner is not None and miner_waits(miner_deployment, miner, update):
        miner_deployment = held_back(miner_deployment, miner)
    group = pool.spec.engine.group
    engines = engine_deployment if group is None else group_of(engine_deployment, nodes=group.nodes)
    manifests = (
        build_engine_service_account(pool),
        build_miner_service_account(pool),
        build_engine_role(pool, configmaps=legacy),
        build_miner_role(pool, configmaps=legacy),
        build_engine_role_binding(pool),
        build_miner_role_binding(pool),
        build_engine_network_policy(pool),
        build_miner_network_policy(pool),
        build_service(pool),
        build_engine_budget(pool),
        build_miner_budget(pool),
        engines,
        miner_deployment,
    )
    return Children(
        manifests=tuple(each for each in manifests if each is not None),
        held=held,
        tuning=None if pool.spec.engine.endpoint else _as_begun(tuning, engine, update, held=held is not None, now=now),
    )


def _as_begun(
    decision: Decision, engine: Manifest | None, update: EngineUpdate, *, held: bool, now: datetime
) -> Decision:
    """Return the decision with what becomes of it: nothing yet while it is held, or engines that now restart for it."""
    running = tuning_in(engine)
    if held and running is not None:
        return replace(decision, tuning=running)
    if decision.restarts and update.pending and not is_unready(engine):
        return replace(decision, memory=replace(decision.memory, restarted=now))
    return decision


def with_pause(deployment: Manifest, seconds: int) -> Manifest:
    """Return the Deployment with a pause between a new pod's readiness and the end of an old one."""
    return {**deployment, "spec": {**deployment["spec"], "minReadySeconds": seconds}}


def rollout_of(
    pool: Pool, images: Images, *, needs: Needs, engine: Manifest | None, now: datetime, legacy: bool = False,
    blocked: bool = False,
) -> Rollout:  # fmt: skip
    """Return how far a pool is with the operator's update, for the others that may have to wait for it.

    `blocked`: its Deployment can't be changed, so that it can't begin.
    """
    _, update, _ = plan_engine(pool, images, needs=needs, engine=engine, now=now, legacy=legacy, blocked=blocked)
    return update.rollout


def plan_engine(
    pool: Pool, images: Images, *, needs: Needs, engine: Manifest | None, now: datetime, legacy: bool = False,
    blocked: bool = False, crashing: bool = False,
) -> tuple[Manifest, EngineUpdate, Decision]:  # fmt: skip
    """Return the engine Deployment as it should become, what it takes to get there, and how engines are started."""
    seen = Engines(
        running=tuning_in(engine), unready=is_unready(engine), broken=crashing and is_coming_up(engine),
        as_asked=is_as_asked(engine, pool),
    )  # fmt: skip

    def planned_with(engines: Engines) -> tuple[Manifest, EngineUpdate, Decision]:
        tuning = decide(pool.spec.engine, needs, engines, memory_of(pool.tuning), generation=pool.generation, now=now)
        planned = build_engine_deployment(pool, images, tuning=tuning.tuning)
        return planned, engine_update(planned, engine, pool, now=now, legacy=legacy, blocked=blocked), tuning

    planned, update, tuning = planned_with(seen)
    if update.pending and not tuning.restarts:
        return planned_with(replace(seen, replaced=True))
    return planned, update, tuning


def miner_waits(planned: Manifest, live: Manifest, update: EngineUpdate) -> bool:
    """Tell whether the miners keep their pods as they are: another image of theirs comes after the engines'.

    Miner and agent speak with each other by what both know, and the agents are the ones that report; so a miner of a
    new release never meets agents of an old one.
    """
    miner = planned["spec"]["template"]["spec"]["containers"][0]["name"]
    return images_of(planned)[miner] != images_of(live).get(miner) and not update.complete
