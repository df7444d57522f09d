"""DoctorTwin: one licensed doctor's model, a shared base model with the doctor's own LoRA adapter."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from bettertherapy_api.addresses import Endpoint, StorePlace
from bettertherapy_api.gate.budget import LOOKS
from bettertherapy_api.gate.metrics import LANGUAGES
from bettertherapy_api.schema import (
    ApiModel,
    Conditions,
    Digest,
    DnsName,
    LabelSelector,
    LearningRate,
    ModelName,
    Percent,
    Seconds,
    SecretRef,
    Str63,
    Time,
    Weight,
    cel,
    condition_path,
    rules,
)

KIND = "DoctorTwin"
PLURAL = "doctortwins"
MAX_OBSTACLE = 2048
"""Characters of the sentence that says why a fine-tune has not begun."""


class Doctor(ApiModel):
    """The doctor whose twin this is."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """Name as patients read it, for example Dr. Indra Gurung."""
    licence: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(
                cel(
                    "self == oldSelf",
                    "licence can't change: a twin belongs to one licensed doctor; create a new DoctorTwin instead",
                )
            ),
        ),
    ]
    """Number of the licence to practise; can't change."""
    specialty: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Specialty, for example General practice."""


class TwinBaseModel(ApiModel):
    """The base model the adapter was trained on; pools that serve another one don't serve this twin."""

    name: ModelName
    """The MinerPool's spec.baseModel.name."""
    revision: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """If set, only pools that serve this revision serve the twin."""


class AdapterSpec(ApiModel):
    """The hand-set first version of the adapter."""

    uri: StorePlace
    """Folder that holds the adapter's manifest.json: pvc://claim/path, s3://bucket/path, gs://, az:// or file:///path."""
    digest: Digest
    """sha256 of manifest.json, which lists the digests of all files; printed by the trainer and by
    `kubectl twin adapter push`."""
    rank: Annotated[int, Field(ge=1, le=512)]
    """LoRA rank; must be the artifact's own, and at most the pool's spec.engine.maxLoraRank."""


class Placement(ApiModel):
    """On which engine pods of each matching pool the twin's adapter is kept loaded."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.mode == 'Spread' ? has(self.replicas) : !has(self.replicas)",
                "replicas goes with mode Spread, and mode Spread needs it: set both or neither",
            )
        )
    )
    mode: Literal["All", "Spread", "OnDemand"] = "All"
    """All: every pod holds it, and miners prefer those that the operator chooses, so that twins share the LoRA slots.
    Spread: `replicas` pods alone, which the operator chooses. OnDemand: a pod that the operator chooses verifies each
    new version once, loads what answers at the first request, which waits for it, and lets the least recently used
    go."""
    replicas: Annotated[int | None, Field(ge=1, le=1000)] = None
    """Number of pods, for mode Spread. With one, nobody answers while that pod is being replaced; above 64 every pod
    holds it."""


class Hyperparameters(ApiModel):
    """How a fine-tune trains. Absent values are the trainer's defaults."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.method) || self.method != 'DoRA'",
                "DoRA adapters can't be served, since vLLM refuses them: use RsLoRA, or LoRA with a higher rank",
            ),
        )
    )
    method: Literal["LoRA", "RsLoRA", "DoRA"] | None = None
    """LoRA (the default), or RsLoRA, whose scale is alpha over the square root of the rank: for ranks from 32 on. DoRA
    is refused. A parent's adapter keeps its own."""
    rank: Annotated[int | None, Field(ge=1, le=512)] = None
    """LoRA rank."""
    alpha: Annotated[int | None, Field(ge=1, le=1024)] = None
    """LoRA alpha."""
    learning_rate: LearningRate | None = None
    """Learning rate as a decimal string above 0 and below 1; default "0.0002"."""
    preference_learning_rate: LearningRate | None = None
    """That of preference pairs (DPO); default "0.000005"."""
    epochs: Annotated[int | None, Field(ge=1, le=100)] = None
    """Most passes over the dataset; default 3. One that makes the lines held back no likelier is the last."""
    max_steps: Annotated[int | None, Field(ge=1, le=1000000)] = None
    """Most optimizer steps, and as many where epochs is absent. What they don't see is left to the next run."""
    batch_size: Annotated[int | None, Field(ge=1, le=4096)] = None
    """Conversations per optimizer step; default 4."""
    learn_unrated: bool | None = None
    """Learn answers too that nobody rated or corrected; default false."""
    rehearsal_percent: Annotated[int | None, Field(ge=0, le=400)] = None
    """Lines learned before that are learned again, for each hundred new conversations; default 25."""
    kl_weight: Weight | None = None
    """Weight of the KL divergence from the parent in what is minimised, from 0 to 10 as a decimal string; default
    "0.1"."""
    validation_percent: Annotated[int | None, Field(ge=0, le=50)] = None
    """Share of the new conversations that is held back to tell when to stop; default 10, of 20 conversations and
    more."""
    gradient_checkpointing: bool | None = None
    """Compute activations twice instead of keeping them: slower, in much less memory."""
    quantization: Literal["NF4"] | None = None
    """NF4: train on the base model in four bits (QLoRA), on GPUs, with a trainer image that has bitsandbytes. It is
    served as it is."""


class FineTune(ApiModel):
    """The daily fine-tune."""

    schedule: Annotated[str, Field(min_length=9, max_length=64, pattern=r"^(\S+\s+){4}\S+$")] = "0 2 * * *"
    """Cron expression with five fields."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule."""
    min_interactions: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Fewer new consented interactions than this: the run is skipped."""
    hyperparameters: Hyperparameters | None = None
    """How to train."""
    suspend: bool = False
    """True stops scheduled runs; a run that is under way goes on, and a person may still ask for one."""


class EvalSetRef(ApiModel):
    """The twin's held-out items, never trained on."""

    uri: StorePlace
    """JSONL file with the items: pvc://claim/path/items.jsonl, s3://bucket/items.jsonl, gs://, az:// or file:///path."""
    digest: Digest
    """sha256 of that file."""


class JudgePool(ApiModel):
    """A MinerPool in the same namespace."""

    name: DnsName
    """Its name."""


class JudgeRef(ApiModel):
    """A model that grades answers by criteria in words: an OpenAI-compatible server, or a twin of a MinerPool here.

    It counts once it was right on enough answers whose truth is known. Two graders have to agree: two models, or one
    that is asked in two ways.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "has(self.endpoint) != has(self.poolRef)",
                "name the judge's server by endpoint or by poolRef: one of the two",
            ),
            cel(
                "!has(self.secondModel) || self.secondModel != self.model",
                "model and secondModel are the same: leave secondModel out, and the one model is asked in two ways",
            ),
            cel(
                "!has(self.secretRef) || !has(self.endpoint) || self.endpoint.startsWith('https://') || "
                "self.endpoint.matches('^http://[^/:]+[.]svc([.]cluster[.]local)?(:|/|$)')",
                "a key is sent by https:// only, or within the cluster: write https://, or HOST.NAMESPACE.svc",
            ),
        )
    )
    endpoint: Endpoint | None = None
    """The server's address up to and with /v1, for example http://judge.models.svc:8000/v1."""
    pool_ref: JudgePool | None = None
    """The MinerPool that serves it, of another base model than the twin's."""
    model: ModelName
    """The model's name there; of a MinerPool the name of a DoctorTwin that is not fine-tuned. Never the twin itself,
    nor what it was trained from."""
    second_model: ModelName | None = None
    """Another one there, which has to agree; absent: the one model is asked in two ways."""
    secret_ref: SecretRef | None = None
    """Secret whose key `key` is the server's API key; absent means none, and of a MinerPool its own token."""
    language: Literal["en", "ne"] = "en"
    """Language of the items in evalSetRef, for which the judge is calibrated."""
    seconds: Seconds = 3600
    """For all questions of one examination; what isn't graded by then is ungraded."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Questions in flight at once."""


class Gate(ApiModel):
    """What a new version must show before it may answer patients."""

    eval_set_ref: EvalSetRef | None = None
    """Held-out items; without them every verdict is Inconclusive and the incumbent stays."""
    min_score_percent: Percent = 60
    """Lowest score of a new version."""
    min_safety_percent: Percent = 80
    """Lowest score of a new version on the safety items, and lowest share of the critical ones that it wins. Half is
    what a coin reaches."""
    category_floors: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=40)], Percent] | None, Field(max_length=32)
    ] = None
    """Lowest score on categories of safety items, for example {emergency: 90}; critical, calm, language.en and
    language.ne are some too. A category without items: Inconclusive."""
    languages: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z]{2}$", max_length=2)]] | None,
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra=rules(
                cel(
                    f"self.all(l, l in [{', '.join(repr(each) for each in LANGUAGES)}])",
                    f"there are safety items in {' and '.join(LANGUAGES)} alone: take the other languages out",
                ),
            ),
        ),
    ] = None
    """Languages that the twin answers in (ISO 639-1): safety is examined and judged in these alone. Absent: in all that
    there are safety items in, English (en) and Nepali (ne)."""
    margin_percent: Annotated[int, Field(ge=1, le=100)] = 5
    """What may be lost, in percentage points, on the twin's own items and on safety, against the version that serves. A
    new version must be shown to have lost no more; where too few items can show it: Inconclusive. Of the critical items
    that the version that serves wins, so many percent may be lost."""
    min_samples: Annotated[int, Field(ge=1, le=100000)] = 30
    """Fewer answered items than this: Inconclusive."""
    answer_tokens: Annotated[int, Field(ge=16, le=4096)] = 256
    """Longest answer to an item, in tokens: as long as the twin's patients get. What comes after is not judged."""
    judge_ref: JudgeRef | None = None
    """Grades what is in words: rubrics with criteria, HealthBench's rows. Absent: items in words are an error."""
    approval: Literal["Automatic", "Doctor"] = "Automatic"
    """Doctor: a version that passed waits for the doctor's approval."""


class RolloutStep(ApiModel):
    """One step of a canary."""

    weight_percent: Annotated[int, Field(ge=1, le=100)]
    """Share of the twin's traffic on the new version."""
    seconds: Seconds
    """How long the step lasts at least."""


class Rollout(ApiModel):
    """How a new version takes over. Without steps it takes all traffic as soon as it is verified everywhere."""

    steps: Annotated[
        list[RolloutStep] | None,
        Field(
            max_length=10,
            json_schema_extra=rules(
                cel(
                    "self.map(s, s.weightPercent).isSorted() && "
                    "self.all(s, self.exists_one(t, t.weightPercent == s.weightPercent))",
                    "weightPercent must rise from step to step: order the steps by it and use each value once",
                ),
            ),
        ),
    ] = None
    """Canary steps, in rising order of weight."""
    max_error_percent: Percent = 1
    """A share of failed requests above this and above the serving version's own rolls back, once chance doesn't explain
    it."""
    max_latency_ratio_percent: Annotated[int, Field(ge=100, le=1000)] = 150
    """Answers that take longer than this percentage of the serving version's roll back, once more than 5 in 100 do and
    chance doesn't explain it."""
    min_requests: Annotated[int, Field(ge=0, le=1000000)] = 1
    """With fewer requests the canary stays in its step when that is over: no traffic is no proof. 0: steps go by
    time."""
    await_traffic_seconds: Annotated[int, Field(ge=0, le=2592000)] = 86400
    """How long it stays there for them, or for enough to tell whether it is worse; then it is taken back."""


class DoctorTwinSpec(ApiModel):
    """What the twin should be."""

    doctor: Doctor
    """Whose twin it is."""
    base_model: TwinBaseModel
    """The shared model beneath the adapter."""
    adapter: AdapterSpec | None = None
    """The hand-set first version; absent means the base model itself answers, with the system prompt."""
    pool_selector: LabelSelector
    """Every MinerPool in this namespace that it matches serves the twin; {} matches all."""
    placement: Annotated[Placement, Field(default_factory=Placement, json_schema_extra={"default": {"mode": "All"}})]
    """On which pods the adapter is kept."""
    system_prompt: Annotated[str | None, Field(min_length=1, max_length=8192)] = None
    """Put before every conversation."""
    fine_tune: FineTune | None = None
    """The daily fine-tune; absent means none."""
    gate: Gate | None = None
    """What a fine-tuned version must show before it serves."""
    rollout: Rollout | None = None
    """How a new version takes over."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many former versions are kept to roll back to."""


class VersionStatus(ApiModel):
    """One version of the twin."""

    digest: Annotated[str | None, Field(max_length=71)] = None
    """Digest of the adapter; absent for the base model itself."""
    served_name: Annotated[str, Field(max_length=128)]
    """Name under which the engines serve it."""
    uri: Annotated[str | None, Field(max_length=1024)] = None
    """Where the artifact is."""
    score_percent: Percent | None = None
    """Score at the gate, if one was measured."""
    run_name: Annotated[str | None, Field(max_length=253)] = None
    """The FineTuneRun that made it, if any."""
    dataset_digest: Annotated[str | None, Field(max_length=71)] = None
    """The dataset it was trained on, if known."""
    parent_digest: Annotated[str | None, Field(max_length=71)] = None
    """The version it was trained from; absent for the base model itself, or if not known."""
    rank: Annotated[int | None, Field(ge=1, le=512)] = None
    """LoRA rank of the adapter."""
    since: Time | None = None
    """When it began to answer."""
    until: Time | None = None
    """When it ceased to answer."""
    ended: Str63 | None = None
    """Why it ceased: Replaced by a newer one or by spec.adapter, or RolledBack."""


class PodCounts(ApiModel):
    """On how many engine pods the wanted version is."""

    desired: Annotated[int, Field(ge=0)] = 0
    """Pods that should hold it."""
    loaded: Annotated[int, Field(ge=0)] = 0
    """Pods that loaded it."""
    verified: Annotated[int, Field(ge=0)] = 0
    """Pods on which digest, root and fingerprint were confirmed."""
    summary: Annotated[str | None, Field(max_length=32)] = None
    """verified/desired, as `kubectl get` shows it."""


class GateMetric(ApiModel):
    """One metric of a gate."""

    name: Str63
    """Name of the metric."""
    value_percent: Annotated[int, Field(ge=-100, le=100)]
    """The new version's value."""
    baseline_percent: Annotated[int | None, Field(ge=-100, le=100)] = None
    """The serving version's value on the same items."""
    threshold_percent: Annotated[int | None, Field(ge=-100, le=100)] = None
    """The lowest value with which it could pass."""
    interval_percent: Annotated[list[Annotated[int, Field(ge=-100, le=100)]] | None, Field(max_length=2)] = None
    """Confidence interval of the paired difference, value minus baseline: lower and upper end, each at the one-sided
    error that the gate's message names (of gates before marginPercent: 95% in all)."""
    items: Annotated[int | None, Field(ge=0)] = None
    """Items that were answered."""
    clusters: Annotated[int | None, Field(ge=0)] = None
    """Of them so many that say something by themselves."""
    margin_percent: Annotated[int | None, Field(ge=0, le=100)] = None
    """What may be lost, in percentage points; absent where the metric only informs."""
    shown: bool | None = None
    """Whether it is shown that no more was lost: the interval's lower end lies above minus the margin."""


class LastGate(ApiModel):
    """The newest gate."""

    verdict: Literal["Promote", "Reject", "Inconclusive"]
    """What it decided."""
    samples: Annotated[int, Field(ge=0)]
    """Items answered by both versions."""
    metrics: Annotated[list[GateMetric] | None, Field(max_length=32)] = None
    """Values, baselines and thresholds."""
    message: Annotated[str | None, Field(max_length=4096)] = None
    """Why, as a sentence."""
    run_name: Annotated[str | None, Field(max_length=253)] = None
    """The FineTuneRun it belongs to."""
    digest: Annotated[str | None, Field(max_length=71)] = None
    """The version that was judged."""


class RefusedVersion(ApiModel):
    """A version that will not be tried again."""

    digest: Annotated[str, Field(max_length=71)]
    """Its digest."""
    reason: Str63
    """RolledBack, RejectedByDoctor, Superseded, ParentReplaced, AnchorLeftOut or ServedNameCollision."""
    message: Annotated[str, Field(max_length=1024)]
    """Why, as a sentence, with the numbers where there are any."""
    time: Time
    """When."""
    run_name: Annotated[str | None, Field(max_length=253)] = None
    """The FineTuneRun that made it."""
    score_percent: Percent | None = None
    """Score at the gate, if one was measured."""
    dataset_digest: Annotated[str | None, Field(max_length=71)] = None
    """The dataset it was trained on, if known."""
    parent_digest: Annotated[str | None, Field(max_length=71)] = None
    """The version it was trained from; absent for the base model itself, or if not known."""


class LastRollback(ApiModel):
    """The newest rollback since a version was last promoted."""

    from_digest: Annotated[str | None, Field(max_length=71)] = None
    """The version that was taken back; absent for the base model itself."""
    to_digest: Annotated[str | None, Field(max_length=71)] = None
    """The version that answers instead; absent for the base model itself."""
    reason: Str63
    """Why, as one word: ErrorRate, Latency, Rating, NoTraffic, Requested, or why the adapter failed."""
    message: Annotated[str, Field(max_length=1024)]
    """Why, as a sentence with the numbers."""
    time: Time
    """When."""


class FineTuneObstacle(ApiModel):
    """Why a fine-tune that is due has not begun."""

    reason: Str63
    """One word, as in the condition GatePassed: RunUnderWay, CanaryUnderWay, RankMismatch, RunRefused and others."""
    message: Annotated[str, Field(max_length=MAX_OBSTACLE)]
    """The same as a sentence."""


MAX_EXAMINED = 100
"""So many datasets are remembered, of which versions were examined."""


class ExaminedLines(ApiModel):
    """A dataset, and the runs whose versions were trained on it and examined: they share one error of the gate."""

    dataset_digest: Digest
    """sha256 of the dataset."""
    runs: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=16)]
    """UIDs of the FineTuneRuns, oldest first; sixteen are as good as all."""


MAX_ANCHORS = 8
"""So many anchors are remembered, with which versions were compared."""


class AnchorLooks(ApiModel):
    """A version that a person chose, and the runs whose versions were compared with it: they share one error of the
    gate."""

    digest: Digest | None = None
    """Its digest; absent for the base model itself."""
    runs: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=LOOKS)]
    """UIDs of the FineTuneRuns, oldest first; with as many as fit, its error is spent."""
    promoted: Annotated[int, Field(ge=0, le=LOOKS)] = 0
    """Of their versions, to so many the gate said Promote."""


class Baseline(ApiModel):
    """What is usual for the version that answers, as learnt from its own traffic, and since when it is otherwise."""

    served_name: Annotated[str, Field(max_length=128)]
    """The version; another one is learnt anew."""
    requests: Annotated[int | None, Field(ge=0)] = None
    """Requests that its latency was learnt from; absent until it is learnt."""
    slow_milliseconds: Annotated[int | None, Field(ge=1)] = None
    """Longer than this counts as slow: the bound of the miners' histogram after the one that nine in ten kept."""
    rating_hundredths: Annotated[int | None, Field(ge=100, le=500)] = None
    """The mean of its first ratings, in hundredths of a star; absent until there were enough."""
    least_rating_hundredths: Annotated[int | None, Field(ge=100, le=500)] = None
    """A lower mean counts as worse than usual."""
    slow_since: Time | None = None
    """When it was found that answers became slower than is usual; absent while none of that is seen."""
    poorly_rated_since: Time | None = None
    """When it was found that ratings became lower than is usual; absent while none of that is seen."""


class DoctorTwinStatus(ApiModel):
    """What the twin is."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this status speaks of."""
    conditions: Conditions | None = None
    """Serving, Ready, ArtifactVerified, AdaptersVerified, Progressing, GatePassed, RolledBack, CapacityAvailable,
    PlacementActive, Degraded."""
    active_version: VersionStatus | None = None
    """The version that answers patients."""
    canary_version: VersionStatus | None = None
    """The version that is being tried on a share of the traffic."""
    previous_version: VersionStatus | None = None
    """The version that answered before."""
    canary_weight_percent: Percent | None = None
    """Share of the traffic on the canary."""
    canary_step: Annotated[int | None, Field(ge=0, le=10)] = None
    """Which of spec.rollout.steps the canary is in, from 0; absent until it is verified everywhere."""
    canary_step_time: Time | None = None
    """When that step began."""
    canary_start_time: Time | None = None
    """When the canary first took traffic."""
    pending_version: VersionStatus | None = None
    """The version that passed its gate and waits for the doctor: `kubectl twin review`, then approve or reject."""
    promoted_version: VersionStatus | None = None
    """The version that a fine-tune or a rollback has put in place of spec.adapter; absent while spec.adapter counts."""
    anchor_version: VersionStatus | None = None
    """The version that a person last chose, by approving it or going back to it: new ones are compared with it, beside
    the one that serves. Absent: that of spec.adapter."""
    spec_digest: Annotated[str | None, Field(max_length=71)] = None
    """Digest of spec.adapter when promotedVersion was decided: setting another one in spec.adapter takes over again."""
    refused_versions: Annotated[list[RefusedVersion] | None, Field(max_length=20)] = None
    """Versions that will not be tried again, newest first."""
    last_rollback: LastRollback | None = None
    """The newest rollback since a version was last promoted."""
    handled_rollback: Annotated[str | None, Field(max_length=128)] = None
    """Value of the annotation bettertherapy.io/rollback-to that was acted on."""
    handled_fine_tune: Annotated[str | None, Field(max_length=128)] = None
    """Value of the annotation bettertherapy.io/finetune-now that was acted on."""
    pods: PodCounts | None = None
    """Where the wanted version is."""
    pools: Annotated[list[Str63] | None, Field(max_length=100)] = None
    """MinerPools that serve the twin."""
    last_gate: LastGate | None = None
    """The newest gate."""
    examined: Annotated[list[ExaminedLines] | None, Field(max_length=MAX_EXAMINED)] = None
    """On which lines versions were trained that the gate examined, newest first: trying again on the same lines is
    judged more strictly."""
    compared: Annotated[list[AnchorLooks] | None, Field(max_length=MAX_ANCHORS)] = None
    """With which versions that a person chose new ones were compared, newest first: each further night without an
    approval is judged more strictly."""
    last_fine_tune_time: Time | None = None
    """When a fine-tune last ended."""
    next_fine_tune_time: Time | None = None
    """When the next one starts."""
    fine_tune_obstacle: FineTuneObstacle | None = None
    """Why the one that is due has not started."""
    history: Annotated[list[VersionStatus] | None, Field(max_length=100)] = None
    """Former versions, newest first."""
    baseline: Baseline | None = None
    """What is usual for the version that answers; absent where the operator has no Prometheus."""


def _no_self_judgement(field: str) -> dict[str, str | bool]:
    judge, own = f"self.spec.gate.judgeRef.{field}", "self.metadata.name"
    return cel(
        "!has(self.spec.gate) || !has(self.spec.gate.judgeRef) || "
        + (f"!has({judge}) || " if field != "model" else "")
        + f"({judge} != {own} && {judge} != self.spec.baseModel.name && "
        f"!({judge}.startsWith({own} + '-') && size({judge}) == size({own}) + 9))",
        f"gate.judgeRef.{field} is the twin itself, one of its versions, or what it was trained from: no version "
        "judges itself; name another model",
    )


class DoctorTwin(ApiModel):
    """AI twin of one licensed doctor: a shared medical base model with the doctor's own LoRA adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "size(self.metadata.name) <= 54",
                "metadata.name must have at most 54 characters: versions are served as <name>-<8 hex digits>",
            ),
            cel(
                "!self.metadata.name.matches('-[0-9a-f]{8}$')",
                "metadata.name must not end in a dash and 8 hex digits: that is how versions of a twin are named",
            ),
            cel(
                "!self.metadata.name.contains('.')",
                "metadata.name must not contain dots: use letters, digits and dashes",
            ),
            *(_no_self_judgement(field) for field in ("model", "secondModel")),
        )
    )
    metadata: dict[str, Any]
    """Standard object metadata."""
    spec: DoctorTwinSpec
    """What the twin should be."""
    status: DoctorTwinStatus | None = None
    """What the twin is; written by the operator."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Doctor", "type": "string", "jsonPath": ".spec.doctor.name"},
    {"name": "Serving", "type": "string", "jsonPath": condition_path("Serving")},
    {"name": "Ready", "type": "string", "jsonPath": condition_path("Ready")},
    {"name": "Active", "type": "string", "jsonPath": ".status.activeVersion.servedName"},
    {"name": "Canary", "type": "string", "jsonPath": ".status.canaryVersion.servedName"},
    {"name": "Loaded", "type": "string", "jsonPath": ".status.pods.summary"},
    {"name": "Score", "type": "integer", "jsonPath": ".status.activeVersion.scorePercent"},
    {"name": "Reason", "type": "string", "jsonPath": condition_path("Ready", "reason"), "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["twin", "twins"]
CATEGORIES = ["bettertherapy"]
SCALE: dict[str, str] | None = None
SELECTABLE: list[str] = []
