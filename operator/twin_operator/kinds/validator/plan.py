"""What a validator should become and what its status should say: pure functions of what was gathered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from typing import Final

from bettertherapy_api import names
from twin_operator.domain.answering import Answering
from twin_operator.domain.objects import Validator
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import CRON_JOB, DEPLOYMENT, JOB, Manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.validator.checks import Situation, validator_conditions
from twin_operator.kinds.validator.children import build_children
from twin_operator.kinds.validator.facts import ValidatorFacts
from twin_operator.kinds.validator.labels import GATEWAY
from twin_operator.kinds.validator.ledger_job import build_ledger_job
from twin_operator.kinds.validator.made_once import Missing
from twin_operator.kinds.validator.rounds import RoundsSeen, weights_of
from twin_operator.kinds.validator.subnet import Sight
from twin_operator.settings import Images


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything a validator's plan depends on."""

    validator: Validator
    facts: ValidatorFacts
    seen: Sight
    """What its gateways say of the subnet."""
    answering: Answering
    """What its gateways are to be told."""
    told: int
    """How many twins they are told of, as it is stored."""
    unread: tuple[str, ...] = ()
    """Names of the twins that can't be read, and of which they were told nothing before."""
    missing: tuple[Missing, ...] = ()
    """What its pods can't start without."""
    out_of_bounds: Finding | None = None
    """What the spec names and tenants may not use: no pods are made of it, and those that run stay."""
    refused: Finding | None = None
    """Why children could not be applied."""
    twins_refused: Finding | None = None
    """Why that could not be which tells them of the twins."""
    datasets_refused: Finding | None = None
    """Why that could not be which brings conversations to the store."""
    rounds_refused: Finding | None = None
    """Why that could not be which makes rounds."""
    rounds: RoundsSeen = field(default_factory=RoundsSeen)
    """What is observed of the validator's rounds."""


PODS_OF: Final = frozenset({DEPLOYMENT.kind, JOB.kind, CRON_JOB.kind})
"""Kinds that make pods."""


def plan_children(gathered: Gathered, images: Images) -> tuple[Manifest, ...]:
    """Return the validator's children; nothing that makes pods of what it may not name."""
    children = build_children(gathered.validator, images, answering=gathered.answering)
    return tuple(each for each in children if gathered.out_of_bounds is None or each["kind"] not in PODS_OF)


def plan_status(gathered: Gathered, images: Images) -> tuple[Manifest, list[Condition]]:
    """Return the validator's status, without its conditions' dates, and the conditions."""
    validator, facts = gathered.validator, gathered.facts
    job = build_ledger_job(validator, images)
    conditions = validator_conditions(
        Situation(
            validator=validator, facts=facts, told=gathered.told, left_out=gathered.answering.left_out,
            unread=gathered.unread, missing=gathered.missing, out_of_bounds=gathered.out_of_bounds,
            refused=gathered.refused,
            twins_refused=gathered.twins_refused, datasets_refused=gathered.out_of_bounds or gathered.datasets_refused,
            ledger_job=job["metadata"]["name"] if job is not None else None,
            seen=gathered.seen, rounds=gathered.rounds,
            rounds_refused=gathered.out_of_bounds or gathered.rounds_refused,
        )
    )  # fmt: skip
    newest, rounds, weights = gathered.seen.newest, gathered.rounds, weights_of(gathered.rounds)
    status: Manifest = {
        "observedGeneration": validator.generation,
        "replicas": len(facts.gateways),
        "readyReplicas": facts.ready,
        "selector": f"{names.LABEL_COMPONENT}={GATEWAY},{names.LABEL_VALIDATOR}={validator.name}",
        "twins": gathered.told,
        "lastDatasetsTime": facts.datasets.written if validator.spec.fine_tune_tasks is not None else None,
        "miners": newest.miners if newest is not None else None,
        "lastRound": rounds.newest.name if rounds.newest is not None else None,
        "nextRoundTime": timestamp(rounds.next_at) if rounds.next_at is not None else None,
        "nextRound": rounds.next_at.astimezone(UTC).strftime("%m-%dT%H:%MZ") if rounds.next_at is not None else None,
        "weights": weights.to_dict() if weights is not None else None,
    }
    return status, conditions
