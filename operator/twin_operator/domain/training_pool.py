"""Which pool trains a twin: its nodes, its base model and its store are used, and its limit counts."""

from __future__ import annotations

from collections.abc import Sequence

from twin_operator.domain.objects import Pool, PoolRef, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import refusal
from twin_operator.engine.conditions import Finding


def choose_pool(twin: Twin, pools: Sequence[PoolRef], *, image: str | None = None) -> Pool | Finding:
    """Return the pool that trains this twin: the first by name that serves it and has base model and store.

    `image` is the trainer image that the run itself names.
    """
    refused: Finding | None = None
    for pool in sorted(pools, key=lambda each: each.name):
        if pool.deleted or not twin.spec.pool_selector.matches(dict(pool.labels)):
            continue
        problem = refusal(pool, twin)
        if not isinstance(pool, Pool):
            said = problem.message if problem is not None else ""
            refused = refused or Finding(Reason.NO_TRAINING_POOL, said)
            continue
        if problem is None and (pool.spec.engine.endpoint or pool.spec.base_model.uri is None):
            problem = Finding(
                Reason.NO_TRAINING_POOL, f"MinerPool {pool.name} has no base model of its own to train on"
            )
        problem = problem or model_out_of_reach(pool, image)
        if problem is None and pool.store_uri is None:
            problem = Finding(Reason.NO_STORE, f"MinerPool {pool.name} has no spec.store to publish to: set it")
        if problem is None:
            return pool
        refused = refused or problem
    return refused or Finding(
        Reason.NO_TRAINING_POOL,
        f"no MinerPool in namespace {twin.namespace} matches the twin's spec.poolSelector",
    )


def model_out_of_reach(pool: Pool, image: str | None) -> Finding | None:
    """Tell why the trainer can't read the base model: a file:// one is in the engine's image, which it doesn't run."""
    uri = pool.spec.base_model.uri or ""
    if not uri.startswith("file://") or image or pool.fine_tune.image:
        return None
    return Finding(
        Reason.NO_TRAINING_POOL,
        f"MinerPool {pool.name} has its base model in the engine's image ({uri}), where the trainer's image has none: "
        f"set the pool's spec.fineTune.image to a trainer image that holds it there too, or put the model on a volume "
        f"or in a store and name it by pvc://, s3://, gs://, az:// or hf://",
    )
