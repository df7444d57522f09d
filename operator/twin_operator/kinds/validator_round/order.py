"""The order of a round: what its Jobs are to do, from the round and from its validator as it was at the start."""

from __future__ import annotations

import hashlib

from bettertherapy_api import names
from bettertherapy_api.round_progress import (
    ExaminedTask,
    OrderedJudge,
    OrderedRewards,
    OrderedScoring,
    OrderedTasks,
    OrderedWeights,
    RoundOrder,
)
from bettertherapy_api.validator import Rounds
from twin_operator.domain.objects import Round, Validator
from twin_operator.kinds.podspec.validators import network_of


def seed_of(made: Round) -> int:
    """Return the round's seed: its own, or one out of its UID, which nobody knows before the round is there."""
    if made.spec.seed is not None:
        return made.spec.seed
    return int.from_bytes(hashlib.sha256(made.uid.encode()).digest()[:4], "big")


def order_of(made: Round, validator: Validator, *, examined: tuple[ExaminedTask, ...] = ()) -> RoundOrder:
    """Return the order of a round that has started; `examined` are tasks' versions whose examination has ended."""
    spec, rounds = validator.spec, validator.spec.rounds or Rounds()
    own = rounds.challenges
    return RoundOrder(
        name=made.name, uid=made.uid, namespace=made.namespace, validator=validator.name,
        network=network_of(validator), netuid=spec.chain.netuid, started_at=made.status.start_time or made.created,
        seed=seed_of(made), twins=tuple(made.spec.twins) if made.spec.twins is not None else None,
        challenges=_path(own.uri) if own is not None else None,
        challenge_digest=made.spec.challenge_digest or (own.digest if own is not None else None),
        items_per_twin=rounds.items_per_twin, deadline_seconds=made.spec.deadline_seconds,
        scoring=_scoring(validator), rewards=_rewards(validator),
        tasks=_tasks(validator), examined=examined if _tasks(validator) is not None else (),
    )  # fmt: skip


def _path(uri: str) -> str:
    """Return where a pod finds what lies on a claim."""
    return f"file://{names.PVC_DIR}/{uri.removeprefix('pvc://')}"


def _scoring(validator: Validator) -> OrderedScoring:
    given = validator.spec.scoring
    if given is None:
        return OrderedScoring()
    return OrderedScoring(
        weights_percent=OrderedWeights.model_validate(given.weights_percent.model_dump()),
        judge=OrderedJudge(endpoint=given.judge.endpoint, model=given.judge.model) if given.judge else None,
        sources=tuple(given.sources or ()), alpha_percent=given.alpha_percent,
    )  # fmt: skip


def _tasks(validator: Validator) -> OrderedTasks | None:
    given = validator.spec.fine_tune_tasks
    if given is None or given.offers is None or given.suspend:
        return None
    offers = given.offers
    return OrderedTasks(
        url=offers.public_url, time_zone=given.time_zone, deadline_seconds=offers.deadline_seconds,
        min_interactions=offers.min_interactions, max_interactions=offers.max_interactions,
        examine=offers.deliveries is not None,
    )  # fmt: skip


def _rewards(validator: Validator) -> OrderedRewards | None:
    given = validator.spec.rewards
    if given is None:
        return None
    return OrderedRewards(
        top_miners=given.top_miners, burn_percent=given.burn_percent, commit_reveal=given.commit_reveal
    )
