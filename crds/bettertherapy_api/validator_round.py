"""ValidatorRound: one examination of a subnet's miners, from its questions to the weights that were set for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from bettertherapy_api.finetune_run import FailureStatus
from bettertherapy_api.schema import (
    ApiModel,
    Conditions,
    Digest,
    Percent,
    Str63,
    Time,
    cel,
    condition_path,
    rules,
)

KIND = "ValidatorRound"
PLURAL = "validatorrounds"

MAX_TWINS = 500
"""Twins that one round may name."""
TOP = 10
"""So many of the best miners are in the status; all are in the ledger."""

TwinName = Annotated[str, Field(min_length=1, max_length=54, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""Name of a DoctorTwin."""
Hotkey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[1-9A-HJ-NP-Za-km-z]+$")]
"""Its address (SS58)."""
Uid16 = Annotated[int, Field(ge=0, le=65535)]
"""A neuron's place on its subnet."""
WeightsState = Literal["Waiting", "Pending", "Revealed", "Missed", "Superseded", "Refused", "Withheld"]


class ValidatorRef(ApiModel):
    """The validator that examines, in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the Validator."""


class ValidatorRoundSpec(ApiModel):
    """Whom to ask what. Can't change: another round is another object."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("self == oldSelf", "spec can't change: a round is held once; create another ValidatorRound instead")
        )
    )
    validator_ref: ValidatorRef
    """The validator that examines; how it scores and rewards is taken from it when the round starts."""
    seed: Annotated[int | None, Field(ge=0, le=4294967295)] = None
    """Seed of everything random: which questions, in which order. Absent: one that nobody can know before the round is
    there; status.seed says which."""
    twins: Annotated[
        list[TwinName] | None,
        Field(min_length=1, max_length=MAX_TWINS, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = None
    """Whose miners are asked; absent means all twins that the validator's gateway answers for."""
    challenge_digest: Digest | None = None
    """sha256 of the set of questions: the round asks from exactly that set, or fails. Absent: status says which."""
    deadline_seconds: Annotated[int, Field(ge=60, le=86400)] = 1800
    """Longest time for asking and scoring, all attempts together. Setting weights has its own time: the chain's."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """How often it is started again after a failure that may pass. Preemptions and lost nodes don't count."""
    ttl_seconds: Annotated[int, Field(ge=60, le=31536000)] = 604800
    """How long the object is kept after its end; its results stay in the ledger. The last one that named tasks'
    versions to be examined is kept for 14 days at least: the next round learns from it what they came to."""


class MinersStatus(ApiModel):
    """How many miners took part."""

    queried: Annotated[int, Field(ge=0, le=65536)]
    """That were asked."""
    scored: Annotated[int, Field(ge=0, le=65536)] = 0
    """Of these, so many have a score."""
    failed: Annotated[int, Field(ge=0, le=65536)] = 0
    """Of these, so many gave nothing that could be scored."""


class MinerScore(ApiModel):
    """One miner's score, and its parts; a part that could not be measured is absent, and counted as the middle of
    the others'."""

    uid: Uid16
    """Its place on the subnet when it was asked."""
    hotkey: Hotkey
    """Who it was then."""
    score_percent: Percent
    """After the rounds before were taken into account."""
    correctness_percent: Percent | None = None
    """Correctness and clarity of its answers."""
    speed_percent: Percent | None = None
    """How soon they came, as the gateway measured."""
    satisfaction_percent: Percent | None = None
    """What patients rated."""
    participation_percent: Percent | None = None
    """Fine-tune tasks that it took and passed."""
    weight_percent: Percent | None = None
    """Its share of the weights, rounded; absent where none were made."""
    answered: Annotated[int | None, Field(ge=0)] = None
    """Questions that it answered."""


class RoundWeights(ApiModel):
    """What became of the weights."""

    state: WeightsState
    """Waiting: not sent yet; Pending: committed and not revealed; Revealed: in force; Missed: never revealed;
    Superseded: later ones took their place; Refused: by the chain; Withheld: none were to be set."""
    reason: Str63
    """Why, as one word."""
    message: Annotated[str | None, Field(max_length=4096)] = None
    """Why, as a sentence."""
    block: Annotated[int | None, Field(ge=0)] = None
    """Block that they are in."""
    extrinsic: Annotated[str | None, Field(max_length=128)] = None
    """Which extrinsic it was."""
    epoch: Annotated[int | None, Field(ge=0)] = None
    """The subnet's epoch that they were set in."""
    miners: Annotated[int | None, Field(ge=0, le=65536)] = None
    """Miners that got weight."""
    burn_percent: Percent | None = None
    """Share that went to hotkeys whose emission is withheld."""
    revealed_time: Time | None = None
    """When it was seen that the chain has them."""


class Measures(ApiModel):
    """How good the validator itself was; what was not measured is absent."""

    consensus_percent: Percent | None = None
    """Of its weights, so much agrees with the stake-weighted consensus (vtrust)."""
    gold_accuracy_percent: Percent | None = None
    """Of hidden questions with known answers, so many were scored right."""
    judges_agreement_percent: Percent | None = None
    """How often its judges agree."""
    reached_percent: Percent | None = None
    """Of the miners with an address, so many could be reached."""
    tasks_on_time_percent: Percent | None = None
    """Of the fine-tune tasks, so many were handed out on time."""


class TasksStatus(ApiModel):
    """Fine-tune tasks that this round handed out."""

    made: Annotated[int, Field(ge=0)] = 0
    """Tasks that were made, one a twin and miner; what an earlier round of the day made is not among them."""
    sent: Annotated[int, Field(ge=0)] = 0
    """Of those that were under way, so many were answered by their miners in this round."""
    accepted: Annotated[int, Field(ge=0)] = 0
    """Of these, so many took it."""
    examined: Annotated[int, Field(ge=0)] = 0
    """Tasks of earlier rounds on whose versions this round took in the validator's own verdict, whichever it is."""
    passed: Annotated[int, Field(ge=0)] = 0
    """Of these, so many versions are no worse than what they began from."""
    disallowed: Annotated[int, Field(ge=0)] = 0
    """Tasks of earlier rounds whose adapter this round found not to be their miner's own work: nearly another's by its
    examination, another's bytes, or what the task began from, which isn't examined."""


class Recomputed(ApiModel):
    """The scores, reckoned once more from the stored answers."""

    token: Annotated[str, Field(max_length=128)]
    """Value of the annotation that asked for it."""
    digest: Digest | None = None
    """What came out; absent where it could not be done."""
    same: bool
    """Whether that is status.resultsDigest."""
    time: Time
    """When."""
    message: Annotated[str | None, Field(max_length=4096)] = None
    """What differs, or why it could not be done."""


class ValidatorRoundStatus(ApiModel):
    """How far the round is, and what came out of it."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this status speaks of."""
    conditions: Conditions | None = None
    """Running, QuorumReached, MetricsFresh, Complete, Failed, WeightsSubmitted."""
    stage: Annotated[str | None, Field(max_length=32)] = None
    """What its Job is at: Prepare, Ask, Score, Reward, Tasks or Done. Programs read the conditions."""
    validator_uid: Annotated[str | None, Field(alias="validatorUID", max_length=64)] = None
    """UID of the Validator that the round is of: another of that name does not take it over."""
    seed: Annotated[int | None, Field(ge=0, le=4294967295)] = None
    """The seed that it used."""
    challenge_digest: Annotated[str | None, Field(max_length=71)] = None
    """sha256 of the set of questions that it asked from."""
    start_time: Time | None = None
    """When its Job was made."""
    completion_time: Time | None = None
    """When asking and scoring ended, whichever way; weights may still be under way."""
    miners: MinersStatus | None = None
    """How many took part."""
    items: Annotated[int | None, Field(ge=0)] = None
    """Questions that were asked, each of every miner of its twin."""
    top: Annotated[list[MinerScore] | None, Field(max_length=TOP)] = None
    """The best miners, best first; `kubectl twin round` shows all."""
    results_digest: Digest | None = None
    """sha256 of the results as they are in the ledger; the same answers give the same digest."""
    weights: RoundWeights | None = None
    """What became of the weights."""
    metrics_fresh: bool | None = None
    """Whether the metrics that speed is read from were fresh; absent where nobody looked."""
    measures: Measures | None = None
    """How good the validator itself was."""
    tasks: TasksStatus | None = None
    """Fine-tune tasks that this round handed out."""
    recomputed: Recomputed | None = None
    """The scores, reckoned once more from the stored answers, where somebody asked for it."""
    failure: FailureStatus | None = None
    """Why the last attempt failed; absent after a success."""
    scored: Annotated[str | None, Field(max_length=16)] = None
    """miners.scored of miners.queried as `kubectl get` shows it, for example 18/20."""
    best: Annotated[str | None, Field(max_length=32)] = None
    """The best miner as `kubectl get` shows it, for example `uid 7, 91%`."""
    duration: Annotated[str | None, Field(max_length=16)] = None
    """From startTime to completionTime as `kubectl get` shows it, for example 3m12s."""


class ValidatorRound(ApiModel):
    """One examination of a subnet's miners: questions, scores, ranking, weights."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "size(self.metadata.name) <= 54",
                "metadata.name must have at most 54 characters: the names of its Jobs are made from it",
            ),
            cel(
                "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name must not contain dots: use letters, digits and dashes",
            ),
        )
    )
    metadata: dict[str, Any]
    """Standard object metadata."""
    spec: ValidatorRoundSpec
    """Whom to ask what."""
    status: ValidatorRoundStatus | None = None
    """How far it is; written by the operator."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Validator", "type": "string", "jsonPath": ".spec.validatorRef.name"},
    {"name": "Complete", "type": "string", "jsonPath": condition_path("Complete")},
    {"name": "Scored", "type": "string", "jsonPath": ".status.scored"},
    {"name": "Best", "type": "string", "jsonPath": ".status.best"},
    {"name": "Weights", "type": "string", "jsonPath": ".status.weights.state"},
    {"name": "Duration", "type": "string", "jsonPath": ".status.duration"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage", "priority": 1},
    {"name": "Failure", "type": "string", "jsonPath": ".status.failure.class", "priority": 1},
    {"name": "Results", "type": "string", "jsonPath": ".status.resultsDigest", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["round", "rounds"]
CATEGORIES = ["bettertherapy"]
SCALE: dict[str, str] | None = None
SELECTABLE = [".spec.validatorRef.name"]
"""Fields by which the API server selects."""
