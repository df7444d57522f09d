"""Collects what a twin's plan depends on, from the store alone."""

from __future__ import annotations

from twin_operator.domain.objects import Pool, PoolRef, Twin
from twin_operator.domain.pool_checks import TROUBLE, Situation
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import refusal, wanted_adapter
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.engine.conditions import Finding
from twin_operator.kinds.world import World


def gather(world: World, twin: Twin) -> TwinView:
    """Return the twin with the pools that match it, or that answer for it though they match no more, and its runs."""
    views = [view for pool in world.pool_refs(twin.namespace) if (view := _view(world, twin, pool)) is not None]
    views.sort(key=lambda view: view.pool.name)
    return TwinView(twin=twin, wanted=wanted_adapter(twin), pools=views, runs=world.runs_of(twin))


def _view(world: World, twin: Twin, pool: PoolRef) -> PoolView | None:
    if pool.deleted:
        return None
    published = world.published(pool)
    entry = published.entry(twin.uid)
    matches = twin.spec.pool_selector.matches(dict(pool.labels))
    # A pool whose slices were lost makes them anew from the twin's status, so the status has the word on who answers.
    unreadable = twin.uid in published.unreadable
    answers = entry is not None or unreadable or (not published.known and pool.name in (twin.status.pools or []))
    if not matches and not answers:
        return None
    facts = world.facts(pool.namespace, pool.name)
    return PoolView(
        pool=pool,
        facts=facts,
        entry=entry,
        entry_unreadable=unreadable,
        lora_twins=published.lora_twins,
        published=published.known,
        unpublished=world.unpublished_trouble(pool, twin),
        matches=matches,
        refused=refusal(pool, twin, world.bounds) if matches else None,
        trouble=_trouble(world, pool, facts),
    )


def _trouble(world: World, pool: PoolRef, facts: PoolFacts) -> Finding | None:
    """Return what keeps the pool from being ready; of one that can't be read, whether it turns all patients away."""
    access_missing = world.access_trouble(pool)
    if isinstance(pool, Pool):
        no_groups = world.lacks_groups(pool)
        return TROUBLE.evaluate(Situation(pool=pool, facts=facts, access_missing=access_missing, no_groups=no_groups))
    if access_missing is not None:
        return access_missing
    why = facts.template_refusal
    return Finding(Reason.CHAT_TEMPLATE_REFUSES, why) if why is not None else None
