"""Validator: the gateway that patients ask, which asks miners on a subnet, compares their answers and keeps the ledger.

In rounds it examines the miners, by `rounds`, `scoring` and `rewards`: each round is a ValidatorRound.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from bettertherapy_api.addresses import ClaimFolder, Endpoint, GatewayOrigin, Network, Origin, PagesOrigin, StorePlace
from bettertherapy_api.metrics_peer import MetricsPeer
from bettertherapy_api.miner_pool import Store
from bettertherapy_api.pod_overlay import ServingPodOverlay
from bettertherapy_api.schema import (
    ApiModel,
    Conditions,
    Digest,
    DnsName,
    ModelName,
    Percent,
    Quantity,
    Resources,
    Seconds,
    SecretRef,
    Str63,
    Str253,
    Time,
    cel,
    condition_path,
    rules,
)

KIND = "Validator"
PLURAL = "validators"

JUDGE_KEY: Final = "key"
"""Key of the Secret that scoring.judge.secretRef names."""
LEDGER_URI_KEY: Final = "uri"
"""Key of the Secret that ledger.uriSecretRef names."""
LEDGER_OWNER_URI_KEY: Final = "ownerUri"
"""Key of the same, which may be left out: the address by a role that may make tables, for the Job that does."""
_HOST: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


class Chain(ApiModel):
    """The subnet that this validator is on."""

    network: Network
    """finney, test, the URL of a chain endpoint or of a local subnet; local is http://subnet.<namespace>.svc:9944,
    where the chart local-subnet serves when it is installed as `subnet`."""
    netuid: Annotated[int, Field(ge=0, le=65535)]
    """The subnet's number."""


class Pages(ApiModel):
    """What people open in a browser: patients ask and rate, doctors correct, operators look at the miners."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.store) || !self.store.uri.startsWith('file://')",
                "a gateway's own files go with its pod: name a store outside it, as the MinerPool does that learns",
            ),
        )
    )
    origin: PagesOrigin
    """By which browsers reach the pages, for example https://ask.clinic.example: what speaks TLS there leads to the
    Service <validator>-gateway. Patients need no account, so limit there who may ask."""
    per_minute: Annotated[int, Field(ge=1, le=100_000)] = 120
    """Questions of all visitors of one gateway together, in a minute."""
    licence_registers: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$")]]
        | None,
        Field(max_length=8),
    ] = None
    """Where doctors' licences are looked up: nppes, or the name of a plug-in in the image; absent means nowhere."""
    store: Store | None = None
    """Where the conversations go that doctors bring, as <uri>/<twin>/interactions: the store of the MinerPool whose
    fine-tunes are to learn from them; absent means that none are taken."""


class Gateway(ApiModel):
    """The endpoint that patients ask, OpenAI-compatible."""

    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """Neuron image; absent means the operator's default."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """Gateway pods; set by `kubectl scale` and by a HorizontalPodAutoscaler too. Above 1 needs ledger.uriSecretRef."""
    miners_per_query: Annotated[int, Field(ge=1, le=16)] = 3
    """Miners that are asked side by side for each question."""
    deadline_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """Longest wait for miners' answers; the best of those that are there by then is given."""
    hosts: Annotated[
        list[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=253,
                    json_schema_extra=rules(
                        cel(
                            f"self.matches('^{_HOST}$')",
                            "write a host's name in small letters, without http:// and port, as in clinic.example",
                        )
                    ),
                ),
            ]
        ]
        | None,
        Field(max_length=16),
    ] = None
    """Names under which patients reach it. Not implemented yet: point an Ingress or an HTTPRoute with TLS at the
    Service <validator>-gateway."""
    country: Annotated[str | None, Field(pattern=r"^[A-Z]{2}$", max_length=2)] = None
    """ISO 3166 code, for the emergency numbers that a notice names; absent: it names those of several."""
    cors_origins: Annotated[list[Origin] | None, Field(max_length=16)] = None
    """Origins of the web pages that may ask from a browser, for example https://clinic.example; * for all; absent means
    none."""
    pages: Pages | None = None
    """What people open in a browser; absent means nothing."""
    metrics_from: Annotated[list[MetricsPeer] | None, Field(max_length=16)] = None
    """Who may read /metrics, at the port `metrics` of the gateway pods; absent or empty means pods
    with the label app.kubernetes.io/name: prometheus. The port that patients ask has no metrics."""
    keys_secret_ref: SecretRef | None = None
    """Secret whose key `keys.json` is the file of API keys, and of those that doctors and operators sign in with.
    Absent means <validator>-gateway-keys, which the operator makes, with a random key
    for clients and one for operators, where there is none."""
    resources: Resources | None = None
    """Resources of one gateway; absent means 250m CPU and 1Gi, at most 2Gi: models that find identifiers take most."""
    pod: ServingPodOverlay | None = None
    """What is added to the gateway pods."""


class Ledger(ApiModel):
    """Where sessions, answers and ratings are kept."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.uriSecretRef) || (!has(self.size) && !has(self.storageClassName))",
                "size and storageClassName are those of an embedded ledger's volume: remove them, or uriSecretRef",
            ),
            cel(
                "has(self.size) == has(oldSelf.size) && (!has(self.size) || self.size == oldSelf.size) "
                "&& has(self.storageClassName) == has(oldSelf.storageClassName) "
                "&& (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName) "
                "|| has(self.uriSecretRef) != has(oldSelf.uriSecretRef)",
                "size and storageClassName hold for the making of the claim, which is made once: change them at the "
                "claim itself (kubectl patch pvc), or leave them as they are",
            ),
        )
    )
    uri_secret_ref: SecretRef | None = None
    """Secret whose key `uri` is the database's address, postgresql://user:password@host/name; absent means SQLite on a
    volume of the one gateway pod."""
    size: Quantity | None = None
    """Size of the embedded ledger's claim; absent means 10Gi. The claim is made once and kept: a larger one is asked
    for at the claim itself."""
    storage_class_name: DnsName | None = None
    """StorageClass of that claim; absent means the cluster's default."""


class Challenges(ApiModel):
    """A set of questions of one's own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.uri.startsWith('pvc://')",
                "put the set onto a claim that pods of several nodes may mount, and write pvc://claim/path/to/set.jsonl",
            ),
        )
    )
    uri: StorePlace
    """The file, pvc://claim/path."""
    digest: Digest
    """sha256 of the file: any other is refused."""


class Rounds(ApiModel):
    """When miners are examined, and how much they are asked."""

    schedule: Annotated[str, Field(min_length=9, max_length=64, pattern=r"^(\S+\s+){4}\S+$")] = "0 */4 * * *"
    """Cron expression with five fields."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule."""
    items_per_twin: Annotated[int, Field(ge=1, le=1000)] = 20
    """Questions that each miner of a twin is asked."""
    deadline_seconds: Seconds = 1800
    """Longest a round may take."""
    spread_percent: Annotated[int, Field(ge=0, le=90)] = 50
    """Over so much of a round's time its questions are spread, as patients' come; what is left has to do for the last
    answers and for scoring."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many ended rounds of the schedule are kept as objects; results stay in the ledger."""
    suspend: bool = False
    """True makes no more rounds; `kubectl create` of a ValidatorRound still does."""
    challenges: Challenges | None = None
    """Questions of one's own; absent means the set that is in the image."""
    resources: Resources | None = None
    """Resources of a round's pod; absent means 250m CPU and 512Mi, at most 2Gi."""


class WeightsPercent(ApiModel):
    """How much each part counts in a miner's score; together 100."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.correctness + self.speed + self.satisfaction + self.participation == 100",
                "correctness, speed, satisfaction and participation must add up to 100",
            )
        )
    )
    correctness: Percent
    """Correctness and clarity of the answers."""
    speed: Percent
    """How soon they come."""
    satisfaction: Percent
    """What patients rate."""
    participation: Percent
    """Fine-tune tasks that were taken and passed."""


class Judge(ApiModel):
    """A model that judges what no rule can: an OpenAI-compatible server."""

    endpoint: Endpoint
    """Its address, for example http://judge.models.svc:8000/v1."""
    model: ModelName
    """The model's name there."""
    secret_ref: SecretRef | None = None
    """Secret whose key `key` is the server's API key; absent means none."""


class Scoring(ApiModel):
    """How miners are scored."""

    weights_percent: WeightsPercent
    """How much each part counts."""
    judge: Judge | None = None
    """Judges answers by rubric, after it was calibrated; absent means that only what needs no judge is scored."""
    sources: Annotated[list[Str63] | None, Field(max_length=16)] = None
    """Medical sources that claims are checked against, by their names."""
    alpha_percent: Annotated[int, Field(ge=1, le=100)] = 30
    """How much a new round counts against those before."""


class Rewards(ApiModel):
    """What becomes of the scores on the chain."""

    top_miners: Annotated[int, Field(ge=1, le=4096)] = 100
    """So many of the best miners get weight."""
    burn_percent: Percent = 0
    """Share of the weight that goes to nobody."""
    commit_reveal: bool = True
    """Whether weights are committed first and revealed later, so that nobody can copy them."""


class TaskOffers(ApiModel):
    """Fine-tune tasks for the miners: who gets one gets what patients said, de-identified and with their consent."""

    public_url: GatewayOrigin
    """Origin by which miners reach the gateway (Service <validator>-gateway), for the datasets and for their reports,
    for example https://ask.clinic.example."""
    deadline_seconds: Annotated[int, Field(ge=3600, le=604800)] = 72000
    """How long a miner has for one, from when it is made. What is reported later counts for nothing."""
    min_interactions: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Of a day on which fewer answers were rated, corrected or compared no task is made."""
    max_interactions: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Lines of one dataset: those of the topics that the twin's miners know worst are taken first."""
    deliveries: ClaimFolder | None = None
    """Where the gateway puts what miners made of their tasks, for example pvc://deliveries/tasks: each version is
    examined by a run exam-<task> in the pool that trains its twin, against its parent, with what no miner was given.
    One patient in eight is kept for that, from miners and from the twins' own nights. A claim that several pods may
    mount at a time. Absent: nothing is taken, and no task is passed."""


class FineTuneTasks(ApiModel):
    """What patients let their doctors' twins learn from, and when it goes where the twins' fine-tunes read it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!self.store.uri.startsWith('file://')",
                "a pod's own files go with it: name a store outside it, that of the MinerPool that learns",
            ),
        )
    )
    store: Store
    """Where the conversations go, as <uri>/<twin>/interactions: the store of the MinerPool whose fine-tunes are to
    learn from them. A claim must be one that several pods may mount at a time."""
    schedule: Annotated[str, Field(min_length=9, max_length=64, pattern=r"^(\S+\s+){4}\S+$")] = "15 0 * * *"
    """Cron expression with five fields: after the day has ended, and before the twins' own spec.fineTune.schedule."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule, and of the days."""
    suspend: bool = False
    """True stops it; what lies in the store stays."""
    offers: TaskOffers | None = None
    """Each round hands the day before's conversations to its best miners too, as signed tasks; absent means that none
    of them gets any."""
    resources: Resources | None = None
    """Resources of the pod that does it; absent means 100m CPU and 256Mi, at most 1Gi: a twin's day is in memory."""


class ValidatorSpec(ApiModel):
    """What the validator should be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.gateway.replicas <= 1 || (has(self.ledger) && has(self.ledger.uriSecretRef))",
                "an embedded ledger is one pod's file: set ledger.uriSecretRef (PostgreSQL) to run more than one "
                "gateway, or gateway.replicas to 1",
            ),
        )
    )
    chain: Chain
    """The subnet."""
    wallet_secret_ref: SecretRef
    """Secret with the hotkey that signs what miners are asked; never a coldkey."""
    gateway: Annotated[Gateway, Field(default_factory=Gateway, json_schema_extra={"default": {"replicas": 1}})]
    """The endpoint that patients ask."""
    ledger: Ledger | None = None
    """Where sessions, answers and ratings are kept; absent means SQLite on a volume."""
    rounds: Rounds | None = None
    """When miners are examined; absent means only where somebody creates a ValidatorRound."""
    scoring: Scoring | None = None
    """How miners are scored; absent means half by correctness, a fifth each by speed and satisfaction, the rest by
    participation."""
    rewards: Rewards | None = None
    """What becomes of the scores on the chain; absent means that miners are scored and no weights are set."""
    fine_tune_tasks: FineTuneTasks | None = None
    """What patients let their doctors' twins learn from; absent means that nothing leaves the ledger by itself."""
    image_pull_secrets: Annotated[list[SecretRef] | None, Field(max_length=8)] = None
    """Secrets to pull the image with."""


class WeightsSet(ApiModel):
    """The weights that were last set on the chain."""

    block: Annotated[int | None, Field(ge=0)] = None
    """Block of the extrinsic."""
    extrinsic: Annotated[str | None, Field(max_length=128)] = None
    """Which one it was."""
    round: Str253 | None = None
    """The ValidatorRound that they came from."""
    miners: Annotated[int | None, Field(ge=0)] = None
    """Miners that got weight."""


class ValidatorStatus(ApiModel):
    """What the validator is."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this status speaks of."""
    conditions: Conditions | None = None
    """Ready, GatewayReady, ChainReachable, LedgerReachable, TwinsPublished, DatasetsWritten, WeightsSet,
    HostsActive."""
    replicas: Annotated[int | None, Field(ge=0)] = None
    """Gateway pods that exist."""
    ready_replicas: Annotated[int | None, Field(ge=0)] = None
    """Gateway pods that are ready."""
    selector: Annotated[str | None, Field(max_length=1024)] = None
    """Label selector of the gateway pods, for the scale subresource."""
    twins: Annotated[int | None, Field(ge=0)] = None
    """Twins that the gateway answers for."""
    miners: Annotated[int | None, Field(ge=0)] = None
    """Miners of the subnet that have an address, in the newest metagraph that a gateway has; absent without one."""
    last_datasets_time: Time | None = None
    """When the twins' conversations were last brought to where fine-tunes read them."""
    last_round: Str253 | None = None
    """The newest ValidatorRound."""
    next_round_time: Time | None = None
    """When the next one starts."""
    next_round: Annotated[str | None, Field(max_length=32)] = None
    """The same for the table, where there is little room: month, day, hour and minute in UTC, as `11-30T18:30Z`."""
    weights: WeightsSet | None = None
    """The weights that were last set and are in force."""


class Validator(ApiModel):
    """Routes patients' questions to several miners of a subnet, answers with the best, and keeps what was asked."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "size(self.metadata.name) <= 40",
                "metadata.name must have at most 40 characters: the names of its pods are made from it",
            ),
            cel(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name must begin with a letter and hold no dots: a Service is named after it (DNS-1035)",
            ),
        )
    )
    metadata: dict[str, Any]
    """Standard object metadata."""
    spec: ValidatorSpec
    """What the validator should be."""
    status: ValidatorStatus | None = None
    """What the validator is; written by the operator."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Netuid", "type": "integer", "jsonPath": ".spec.chain.netuid"},
    {"name": "Ready", "type": "string", "jsonPath": condition_path("Ready")},
    {"name": "Miners", "type": "integer", "jsonPath": ".status.miners"},
    {"name": "Twins", "type": "integer", "jsonPath": ".status.twins"},
    {"name": "LastRound", "type": "string", "jsonPath": ".status.lastRound"},
    # No column of type date: kubectl shows those as ages, and a time to come as <invalid>.
    {"name": "NextRound", "type": "string", "jsonPath": ".status.nextRound"},
    {"name": "Reason", "type": "string", "jsonPath": condition_path("Ready", "reason"), "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["val"]
CATEGORIES = ["bettertherapy"]
SCALE: dict[str, str] | None = {
    "specReplicasPath": ".spec.gateway.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
SELECTABLE: list[str] = []
