"""FineTuneRun: one fine-tune of one twin, from a dataset to a verdict on the version that came out of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from bettertherapy_api.addresses import ClaimFolder, DatasetPlace
from bettertherapy_api.doctor_twin import GateMetric, Hyperparameters
from bettertherapy_api.schema import (
    ApiModel,
    Conditions,
    Digest,
    DnsLabel,
    DnsName,
    Percent,
    Resources,
    Str63,
    Time,
    cel,
    rules,
)

KIND = "FineTuneRun"
PLURAL = "finetuneruns"

STAGES = (
    "Queued", "DataReady", "Running", "Trained", "Published", "Evaluated", "Promoted", "Rejected", "Failed",
)  # fmt: skip
"""Conditions in the order in which a run comes to them; the last that is True is its stage."""

MAX_EARLIER = 100
"""Versions that one candidate is held against."""

SKIPPED = "Skipped"
"""Stage of a run that ended because there was too little new data."""


class TwinRef(ApiModel):
    """The twin that is fine-tuned, in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=54, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the DoctorTwin."""


class DatasetSpec(ApiModel):
    """What the run trains on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.interactions) || has(self.digest)",
                "interactions counts the lines of one exact dataset: set digest too, or remove interactions",
            ),
            cel(
                "!self.uri.startsWith('http') || has(self.digest)",
                "what a validator's gateway gives must be what was offered: set digest too",
            ),
        )
    )
    uri: DatasetPlace
    """The dataset; without a digest a folder of datasets, of which the run takes what is new. That of a validator's
    task is an address that opens it until its time is over: who may read the run may read the dataset."""
    digest: Digest | None = None
    """sha256 of the dataset: the run trains on exactly that, or fails. Absent: status.dataset says what was taken."""
    interactions: Annotated[int | None, Field(ge=0, le=100000000)] = None
    """Interactions in the dataset, where they were counted before."""


class TaskSpec(ApiModel):
    """The validator's task that the run does; made by the operator from what a miner was offered."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length=36)]
    """Its UUID, by which the validator keeps it."""
    validator: Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$", max_length=64)]
    """Hotkey of who offered it."""
    pool: Str63
    """MinerPool whose miner was offered it, and reports what came of it."""
    deadline: Time
    """What is reported later counts for nothing: a run that hasn't started by then is given up."""


class HeldOutSpec(ApiModel):
    """Conversations that no miner was given."""

    uri: DatasetPlace
    """An address of the validator's gateway that opens them until the run's time is over."""
    digest: Digest
    """sha256 of them."""


class CandidateSpec(ApiModel):
    """A version that a miner made for a validator's task."""

    task: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length=36)]
    """The task's UUID."""
    validator: Str63
    """Validator of this namespace that has it examined, and credits it in its next round."""
    miner: Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$", max_length=64)]
    """Hotkey of who made it."""
    digest: Digest
    """Of the version, as the miner reported it."""
    delivered: ClaimFolder
    """Where it was delivered."""
    held_out: HeldOutSpec | None = None
    """What it is asked beside the twin's own items; absent: there is nothing."""
    earlier: Annotated[list[Digest] | None, Field(max_length=MAX_EARLIER)] = None
    """Versions that miners reported for tasks from the same parent before this one was: what is nearly one of these is
    no work of its miner's."""
    deadline: Time
    """An examination that has not started by then is given up: the task counts neither way."""


class Anchor(ApiModel):
    """The version that a person last chose; {} is the base model itself."""

    digest: Digest | None = None
    """Its digest; absent for the base model itself."""


class FineTuneRunSpec(ApiModel):
    """What to train, from what, and with what. Can't change: another run is another object."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("self == oldSelf", "spec can't change: a run is done once; create another FineTuneRun instead"),
            cel(
                "!has(self.candidate) || (has(self.dataset.digest) && !has(self.task))",
                "a candidate was made by somebody else from one exact dataset: set dataset.digest, and no task",
            ),
        )
    )
    twin_ref: TwinRef
    """The twin that is fine-tuned."""
    parent_digest: Digest | None = None
    """Version from which training starts and against which the gate compares; absent: the base model itself."""
    anchor: Anchor | None = None
    """Version against which the gate compares too, so that small losses of many nights don't add up; absent: the parent
    alone."""
    dataset: DatasetSpec
    """What it trains on."""
    task: TaskSpec | None = None
    """The validator's task that it does; absent: none. Its version is examined like any other, and rolled out only
    where the doctor chooses it."""
    candidate: CandidateSpec | None = None
    """A version that is only examined, since a miner made it for a validator's task; dataset is what it was given.
    Absent: the run trains. Its version is rolled out only where the doctor chooses it."""
    hyperparameters: Hyperparameters | None = None
    """How it trains."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 0
    """Seed of everything random: the same run gives the same adapter."""
    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """Trainer image; absent means the pool's spec.fineTune.image, then the operator's for its device. The examiner's is
    always the operator's."""
    resources: Resources | None = None
    """Resources of trainer and examiner; absent means the pool's spec.fineTune.resources, then those of its engines."""
    queue_name: DnsLabel | None = None
    """Kueue LocalQueue that decides when trainer and examiner may start; absent means none."""
    priority_class_name: DnsName | None = None
    """PriorityClass of the pods of trainer and examiner."""
    deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 21600
    """Longest time that the trainer may take, all attempts together; and the examiner after it. Runs that share a
    trainer have the sum of theirs."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """How often trainer and examiner are each started again after a failure that may pass. Preemptions and lost nodes
    don't count."""
    ttl_seconds: Annotated[int, Field(ge=60, le=31536000)] = 604800
    """How long the object is kept after its end; the twin's history keeps the lineage longer."""


class RefusedLines(ApiModel):
    """Lines that were refused or repaired, for one reason."""

    reason: Str63
    """Why."""
    count: Annotated[int, Field(ge=0)]
    """How many."""


class DatasetStatus(ApiModel):
    """What was trained on."""

    uri: Annotated[str, Field(max_length=1024)]
    """Where it is."""
    digest: Annotated[str | None, Field(max_length=71)] = None
    """Its sha256; absent for a run that was skipped."""
    interactions: Annotated[int, Field(ge=0)]
    """Lines that are trained on."""
    pairs: Annotated[int | None, Field(ge=0)] = None
    """Preference pairs among them."""
    refused: Annotated[list[RefusedLines] | None, Field(max_length=32)] = None
    """Lines that were refused, by reason."""
    repaired: Annotated[list[RefusedLines] | None, Field(max_length=32)] = None
    """Lines that are trained on after a repair, by reason."""
    waiting: Annotated[int | None, Field(ge=0)] = None
    """New lines that no step of this run sees: they are left to the next one."""
    rehearsed: Annotated[int | None, Field(ge=0)] = None
    """Lines that were learned before and are learned again, so that they are not forgotten."""
    validation: Annotated[int | None, Field(ge=0)] = None
    """New lines that are held back to tell when to stop; the next run learns them."""
    passed_over: Annotated[list[Annotated[str, Field(max_length=256)]] | None, Field(max_length=20)] = None
    """Files and folders in the dataset's folder that are not read, since only *.jsonl in the folder itself are, and
    last lines that were not written to their end."""


class ArtifactStatus(ApiModel):
    """The adapter that came out of it."""

    uri: Annotated[str, Field(max_length=1024)]
    """Folder in the store."""
    digest: Annotated[str, Field(max_length=71)]
    """sha256 of its manifest.json."""
    rank: Annotated[int, Field(ge=1, le=512)]
    """LoRA rank."""
    bytes: Annotated[int, Field(ge=0)]
    """Size of its files."""


Verdict = Literal["Promote", "Reject", "Inconclusive"]


class ScoredBy(ApiModel):
    """How many items were scored in which way."""

    exact: Annotated[int, Field(ge=0)] = 0
    """By the option that was chosen."""
    words: Annotated[int, Field(ge=0)] = 0
    """By phrases, and by the words of a gold answer."""
    judge: Annotated[int, Field(ge=0)] = 0
    """By a judge (gate.judgeRef)."""
    likelihood: Annotated[int, Field(ge=0)] = 0
    """Safety items, by which continuations are likelier."""


class GraderStatus(ApiModel):
    """One of a judge's graders, and how it did on answers whose truth is known."""

    model: Annotated[str, Field(max_length=128)]
    """Its model."""
    wording: Annotated[str, Field(max_length=20)]
    """The prompt it was asked by."""
    kappa_percent: Annotated[int, Field(ge=-100, le=100)]
    """Cohen's kappa with the truth: 0 is guessing, 100 without error."""
    low_percent: Annotated[int, Field(ge=-100, le=100)]
    """The lower end of its 95% interval; above 60 it may count."""
    known_answers: Annotated[int, Field(ge=0)]
    """How many they were."""


class ClarityStatus(ApiModel):
    """One part of how clear the answers are; it counts for nothing."""

    part: Annotated[str, Field(max_length=40)]
    """Readability, Length or Communication."""
    answers: Annotated[int, Field(ge=0)]
    """Of how many items, for both versions."""
    value_percent: Percent
    """The new version's mean."""
    baseline_percent: Percent
    """The serving version's."""


class JudgingStatus(ApiModel):
    """How the items were scored, and by whom."""

    scored_by: ScoredBy
    """How many in which way."""
    ungraded: Annotated[int, Field(ge=0)] = 0
    """Items without a score for every version: they count for none."""
    graders: Annotated[list[GraderStatus] | None, Field(max_length=8)] = None
    """Of the judge that was asked."""
    criteria: Annotated[int, Field(ge=0)] = 0
    """Criteria that graders were asked about, over all versions' answers."""
    agreed: Annotated[int, Field(ge=0)] = 0
    """Of those, on how many all of them said the same."""
    clarity: Annotated[list[ClarityStatus] | None, Field(max_length=8)] = None
    """How clear the answers are."""


class EvalStatus(ApiModel):
    """What the gate found: parent and child on the same held-out items, as the examiner reported them."""

    verdict: Verdict
    """What it decided."""
    samples: Annotated[int, Field(ge=0)]
    """Items answered by both."""
    message: Annotated[str | None, Field(max_length=4096)] = None
    """Why, as a sentence."""
    metrics: Annotated[list[GateMetric] | None, Field(max_length=32)] = None
    """Values, baselines and thresholds."""
    attempt: Annotated[int | None, Field(ge=1)] = None
    """Which version it is, counted from 1, that was trained on these very lines and examined: each further one is
    judged more strictly."""
    judging: JudgingStatus | None = None
    """How the items were scored."""


CreditVerdict = Literal["Passed", "Failed", "Inconclusive", "Disallowed"]


class CreditStatus(ApiModel):
    """What a candidate is worth to the miner that made it, whoever else was examined before."""

    verdict: CreditVerdict
    """Passed: it learned what it was given and is shown to be no worse than its parent. Failed: one of both is not so,
    or it is damaged. Disallowed: it is another's work. Inconclusive: nobody can tell."""
    message: Annotated[str | None, Field(max_length=4096)] = None
    """Why, as sentences."""


class FailureStatus(ApiModel):
    """Why the last attempt failed."""

    failure_class: Annotated[str, Field(alias="class", min_length=1, max_length=63)]
    """OutOfMemory, Killed, Preempted, NodeLost, DeadlineExceeded, BadData, BadParent, BadModel, Diverged, …"""
    retryable: bool
    """Whether the same run may succeed another time."""
    message: Annotated[str, Field(max_length=4096)]
    """What happened and what to do."""


class RunRef(ApiModel):
    """A FineTuneRun of the same namespace."""

    name: Str63
    """Its name."""
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """Its UID: another run of that name is another run."""


class FineTuneRunStatus(ApiModel):
    """How far the run is, and what came out of it."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this status speaks of."""
    conditions: Conditions | None = None
    """Queued, DataReady, Running, Trained, Published, Evaluated, Promoted, Rejected, Failed."""
    stage: Annotated[str | None, Field(max_length=32)] = None
    """The newest condition that is True, or Skipped; as `kubectl get` shows it. Programs read the conditions."""
    twin_uid: Annotated[str | None, Field(alias="twinUID", max_length=64)] = None
    """UID of the DoctorTwin that the run is for: another twin of that name never gets its version."""
    pool: Str63 | None = None
    """MinerPool whose nodes, base model and store the run uses, and whose limit it counts against."""
    trainer: RunRef | None = None
    """FineTuneRun whose trainer trains this one too, by the pool's runsPerTrainer; absent where the run has its own."""
    trains: Annotated[list[RunRef] | None, Field(max_length=31)] = None
    """FineTuneRuns that this run's own trainer trains too, in this order."""
    examiner: RunRef | None = None
    """FineTuneRun whose examiner examines this one too; absent where the run has its own."""
    examines: Annotated[list[RunRef] | None, Field(max_length=31)] = None
    """FineTuneRuns that this run's own examiner examines too, in this order; present once it was settled which."""
    progress_percent: Percent | None = None
    """How much of the run is done."""
    step: Annotated[int | None, Field(ge=0)] = None
    """Optimizer steps done."""
    steps: Annotated[int | None, Field(ge=0)] = None
    """Optimizer steps in all."""
    remaining_seconds: Annotated[int | None, Field(ge=0)] = None
    """How long it will take from here, as the trainer estimates."""
    loss_milli: int | None = None
    """Training loss in 1/1000 nats per token."""
    validation_loss_milli: int | None = None
    """Loss on lines that are held back, after the last epoch, in 1/1000 nats per token."""
    distance_milli: int | None = None
    """KL divergence from the parent over the last batch, in 1/1000 nats per learned token."""
    progress: Annotated[str | None, Field(max_length=16)] = None
    """progressPercent as `kubectl get` shows it, for example 40%."""
    loss: Annotated[str | None, Field(max_length=32)] = None
    """lossMilli as `kubectl get` shows it, in nats per token, for example 1.234."""
    dataset: DatasetStatus | None = None
    """What was trained on."""
    artifact: ArtifactStatus | None = None
    """The adapter that came out of it."""
    eval: EvalStatus | None = None
    """What the gate found."""
    verdict: Verdict | None = None
    """The gate's decision."""
    credit: CreditStatus | None = None
    """Of a candidate that is over: what its miner is credited with. The gate's verdict beside it says whether the
    doctor may choose it, and is stricter with each version of one dataset; this isn't."""
    failure: FailureStatus | None = None
    """Why the last attempt failed; absent after a success."""
    start_time: Time | None = None
    """When the pool's limit let it go."""
    completion_time: Time | None = None
    """When it ended, whichever way."""


class FineTuneRun(ApiModel):
    """One fine-tune of one twin: dataset, training, publication, gate, and what became of the new version."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "size(self.metadata.name) <= 63",
                "metadata.name must have at most 63 characters: its Job is named after it",
            ),
            cel(
                "!self.metadata.name.contains('.')",
                "metadata.name must not contain dots: use letters, digits and dashes",
            ),
        )
    )
    metadata: dict[str, Any]
    """Standard object metadata."""
    spec: FineTuneRunSpec
    """What to train, from what, and with what."""
    status: FineTuneRunStatus | None = None
    """How far it is; written by the operator."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Twin", "type": "string", "jsonPath": ".spec.twinRef.name"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Progress", "type": "string", "jsonPath": ".status.progress"},
    {"name": "Loss", "type": "string", "jsonPath": ".status.loss"},
    {"name": "Verdict", "type": "string", "jsonPath": ".status.verdict"},
    {"name": "Credit", "type": "string", "jsonPath": ".status.credit.verdict", "priority": 1},
    {"name": "Failure", "type": "string", "jsonPath": ".status.failure.class", "priority": 1},
    {"name": "Trainer", "type": "string", "jsonPath": ".status.trainer.name", "priority": 1},
    {"name": "Remaining", "type": "integer", "jsonPath": ".status.remainingSeconds", "priority": 1},
    {"name": "Artifact", "type": "string", "jsonPath": ".status.artifact.digest", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["ft"]
CATEGORIES = ["bettertherapy"]
SCALE: dict[str, str] | None = None
SELECTABLE = [".spec.twinRef.name"]
"""Fields by which the API server selects: a namespace keeps thousands of runs, a twin has a few."""
