"""MinerPool: engines that serve one base model with many adapters, and the miner in front of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, WithJsonSchema

from bettertherapy_api.addresses import Endpoint, ModelPlace, Network, NodeFolder, Origin, PublicAddress, StorePlace
from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.metrics_peer import MetricsPeer
from bettertherapy_api.pod_overlay import PodOverlay, ServingPodOverlay
from bettertherapy_api.schema import (
    ApiModel,
    Conditions,
    Digest,
    DnsLabel,
    DnsName,
    LabelValue,
    ModelName,
    Percent,
    Resources,
    Seconds,
    SecretRef,
    Str63,
    Str253,
    Time,
    Toleration,
    cel,
    condition_path,
    rules,
)
from bettertherapy_api.update_strategy import UpdateStrategy

KIND = "MinerPool"
PLURAL = "minerpools"

OWNED_FLAGS = (
    "--uds", "--host", "--port", "--api-key", "--root-path", "--model", "--served-model-name", "--enable-lora",
    "--no-enable-lora", "--max-loras", "--max-lora-rank", "--lora-modules", "--lora-target-modules",
    "--specialize-active-lora", "--no-specialize-active-lora", "--shutdown-timeout", "--max-model-len", "--config",
    "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers", "--enable-ssl-refresh",
    "--middleware", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless",
)  # fmt: skip
"""Engine flags that the operator sets; the same flag in spec.engine.args would open a door or break a promise."""

MOST_REPLICAS = 1000
"""Engine pods of one pool."""

LoraRank = Literal[8, 16, 32, 64, 128, 256]
LORA_RANKS: tuple[int, ...] = get_args(LoraRank)
"""Those that vLLM can be started for, and that are worth it."""

# vLLM takes underscores for dashes, what stands behind a dot for a part of the value, and for a flag any beginning of
# its name that no other has: what an owned flag begins with is refused as the flag itself.
_OWNED_FLAG_RULE = (
    "self.all(a, ![" + ", ".join(f"'{flag}'" for flag in OWNED_FLAGS) + "].exists(f, "
    "f.startsWith(a.split('=')[0].split('.')[0].replace('_', '-'))))"
)


class PoolBaseModel(ApiModel):
    """The base model that the pool's engines load."""

    name: Annotated[
        ModelName,
        Field(
            json_schema_extra=rules(
                cel(
                    "self == oldSelf",
                    "baseModel.name can't change while twins are served from it: create a new MinerPool and move the "
                    "twins' poolSelector",
                )
            )
        ),
    ]
    """Name under which the engines serve the base model; twins refer to it. Can't change."""
    revision: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Git revision for hf://, or sha256:… (the model's digest, checked before it is loaded)."""
    uri: ModelPlace | None = None
    """Where the weights are: hf://owner/name, s3://bucket/path, gs://, az://, pvc://claim/path, or file:///path in the
    image."""


class EngineGroup(ApiModel):
    """Several nodes for each engine: a leader pod, which answers, and workers, which compute with it."""

    nodes: Annotated[int, Field(ge=2, le=64)]
    """Pods of one engine, each with spec.resources; a node each where they take all its GPUs."""
    adapters_claim_name: DnsName
    """PersistentVolumeClaim that all nodes can mount (ReadWriteMany): the leader lays the adapters there, the workers
    read them."""


class Engine(ApiModel):
    """The vLLM engines that the operator runs, or an OpenAI-compatible server that runs already."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.endpoint) || (!has(self.image) && !has(self.args) && !has(self.maxModelLength))",
                "endpoint names a server that runs already: remove image, args and maxModelLength, or remove endpoint",
            ),
            cel(
                "!has(self.group) || (!has(self.endpoint) && (!has(self.device) || self.device == 'GPU'))",
                "group spreads an engine that the operator runs over nodes with GPUs: remove endpoint, or device CPU",
            ),
            cel(
                "!has(self.secretRef) || has(self.endpoint)",
                "secretRef is the key for endpoint: set endpoint too, or remove it",
            ),
            cel(
                "!has(self.endpoint) || !has(self.pod) || (!has(self.pod.env) && !has(self.pod.volumes))",
                "with endpoint no engine runs here that could use pod.env or pod.volumes: remove them",
            ),
        )
    )
    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """Engine image; absent means the operator's default for the device."""
    args: Annotated[
        list[Annotated[str, Field(max_length=1024)]] | None,
        Field(
            max_length=64,
            json_schema_extra=rules(
                cel(
                    _OWNED_FLAG_RULE,
                    "args holds a flag that the operator sets itself (socket, model, LoRA, length, drain): use the "
                    "field of spec for it, or remove it",
                ),
                # Else it were the value of what comes before it, or vLLM's one argument without a flag: a model.
                cel(
                    "self.all(a, a.matches('^--[A-Za-z][A-Za-z0-9_.-]*(=|$)'))",
                    "write each argument in one element and its name in full, as --flag or --flag=value",
                ),
                cel(
                    "self.all(a, !a.contains('$('))",
                    "args are given as they stand, without variables: write the value instead of $(NAME)",
                ),
            ),
        ),
    ] = None
    """More arguments for vLLM, such as --gpu-memory-utilization=0.9. --tensor-parallel-size,
    --pipeline-parallel-size or --data-parallel-size here leaves all three to you."""
    device: Literal["GPU", "CPU"] = "GPU"
    """What the engine computes on. With several GPUs in spec.resources it is spread over all of them."""
    group: EngineGroup | None = None
    """Several nodes for each engine, by a LeaderWorkerSet; absent means one pod on one node."""
    max_loras: Annotated[
        int | Literal["Auto"],
        WithJsonSchema(
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                **rules(
                    cel(
                        "type(self) == int ? (self >= 1 && self <= 256) : self == 'Auto'",
                        "maxLoras must be a number from 1 to 256, or Auto",
                    )
                ),
            }
        ),
    ] = "Auto"
    """Adapters that one engine computes at once. Every slot costs speed, even unused; too few cost more. Auto: a power
    of two from 8 to 64 that follows the twins on a pod, with device CPU 8. It changes by a restart of the engines."""
    max_lora_rank: Annotated[
        LoraRank | Literal["Auto"],
        WithJsonSchema(
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                **rules(
                    cel(
                        f"type(self) == int ? self in {list(LORA_RANKS)} : self == 'Auto'",
                        f"maxLoraRank must be one of {', '.join(map(str, LORA_RANKS))}, or Auto",
                    )
                ),
            }
        ),
    ] = 16
    """Highest rank an adapter may have. Auto follows the adapters: one of a higher rank than the engines were started
    for waits until they are restarted."""
    lora_targets: Literal["AllLinear", "Attention", "Auto"] = "AllLinear"
    """Which modules adapters may change, and fine-tunes without a parent do. Attention (q, k, v and o projections) is
    served faster, and an adapter that changes others is refused. Auto: what the adapters change that are there."""
    max_model_length: Annotated[int | None, Field(ge=128, le=10000000)] = None
    """Longest conversation in tokens; absent means the model's own limit."""
    endpoint: Endpoint | None = None
    """Base URL of an OpenAI-compatible server that runs already, without /v1."""
    secret_ref: SecretRef | None = None
    """Secret whose key `apiKey` is sent to endpoint as a bearer token."""
    update_strategy: UpdateStrategy | None = None
    """How pods are replaced when something in them changes; absent means one new one first, at any time."""
    pod: ServingPodOverlay | None = None
    """What is added to the engine pods; variables and volumes reach the engine and what fetches the base model."""


class Autoscaling(ApiModel):
    """How the number of engine pods follows the load."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("self.min <= self.max", "autoscaling.min must not be above autoscaling.max"),
        )
    )
    mode: Literal["Operator", "External", "Off"] = "Off"
    """Operator: the fields below decide, by the operator's Prometheus, and spec.replicas is where a new pool begins.
    External leaves spec.replicas to an HPA or KEDA; Off leaves it to you."""
    min: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] = 1
    """Fewest pods; 0 lets an idle pool sleep. A question that comes then waits for the first pod to start."""
    max: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] = 1
    """Most pods."""
    waiting_per_replica: Annotated[int, Field(ge=1, le=10000)] = 4
    """Waiting requests per pod above which the pool grows."""
    kv_cache_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """KV cache use per pod, on average, above which the pool grows."""
    slot_pressure_percent: Annotated[int, Field(ge=1, le=1000)] = 100
    """Active twins per LoRA slot of all pods above which the pool grows."""
    idle_seconds: Seconds = 600
    """Quiet time before the pool sleeps, where min is 0."""
    stabilization_seconds: Seconds = 300
    """How long a lower need must have lasted, and been seen, before the pool shrinks."""


class MinerLimits(ApiModel):
    """What one request, and one client, may ask of the pool; the defaults are for patients whom nobody knows."""

    messages: Annotated[int | None, Field(ge=1, le=100000)] = None
    """Messages of one request, with their parts and calls of tools; absent means 1024."""
    answers: Annotated[int | None, Field(ge=1, le=128)] = None
    """Answers to one request (`n`, times its texts), which an engine runs at once; absent means 16."""
    tokens: Annotated[int | None, Field(ge=1, le=10000000)] = None
    """Tokens that may be asked for an answer; absent means as many as the engine's context holds."""
    patterns: bool = False
    """Whether regular expressions and grammars are taken, which an engine compiles while others wait."""
    ignore_eos: bool = False
    """Whether answers may be made to go on after their end, as benchmarks do."""
    client_requests: Annotated[int | None, Field(ge=1, le=100000)] = None
    """Requests of one client at once at each miner; absent means 1024."""
    client_memory_percent: Annotated[int | None, Field(ge=1, le=100)] = None
    """Of the memory that a miner has for requests, at most so much for one client; absent means 50. That memory follows
    the miner's own limit."""


class MinerTasks(ApiModel):
    """Which fine-tune tasks of validators become runs of this pool's twins."""

    accept: bool = False
    """Whether any does. A task trains on the pool's nodes, on what a validator's patients agreed to teach."""
    max_open: Annotated[int, Field(ge=1, le=100)] = 2
    """Tasks whose runs have not ended; more are refused."""


class Miner(ApiModel):
    """The pool's public endpoint, OpenAI-compatible."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.latencyBudgetSeconds) || self.latencyBudgetSeconds <= 600",
                "latencyBudgetSeconds must be at most 600: a miner ends every request after that many seconds",
            ),
            cel(
                "!has(self.tasks) || !has(self.tasks.accept) || !self.tasks.accept || has(self.walletSecretRef)",
                "tasks are offered to a hotkey: set walletSecretRef too, or tasks.accept to false",
            ),
        )
    )
    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """Neuron image, for the miner and the agents; absent means the operator's default."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """Miner pods."""
    netuid: Annotated[int | None, Field(ge=0, le=65535)] = None
    """Subnet on which the miner registers; absent means none."""
    chain: Network | None = None
    """finney, test, the URL of a chain endpoint or of a local subnet; local is http://subnet.<namespace>.svc:9944,
    where the chart local-subnet serves when it is installed as `subnet`."""
    wallet_secret_ref: SecretRef | None = None
    """Secret with the hotkey that signs answers; never a coldkey."""
    external_address: PublicAddress | None = None
    """IP:port that is published on the chain."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 1
    """Answers drawn per question, of which the best is submitted; 1 compares nothing."""
    latency_budget_seconds: Seconds = 30
    """From a question's arrival: the best of the candidates that are complete by then is submitted."""
    access_secret_ref: SecretRef | None = None
    """Secret with the bearer tokens: each key is a client's name, its value the token. Absent means <pool>-access,
    which the operator makes, with one random token, where there is none."""
    images: bool = False
    """Whether messages may hold images, as data URLs, for base models that see."""
    limits: MinerLimits | None = None
    """What one request, and one client, may ask; absent means the defaults of each."""
    cors_origins: Annotated[list[Origin] | None, Field(max_length=16)] = None
    """Origins of the web pages that may call the miner from a browser, for example https://clinic.example; * for all;
    absent means none."""
    tasks: MinerTasks | None = None
    """Which fine-tune tasks of validators it takes; absent means none."""
    resources: Resources | None = None
    """Resources of one miner; absent means 100m CPU and 96Mi, at most 512Mi."""
    pod: ServingPodOverlay | None = None
    """What is added to the miner pods."""


class Agent(ApiModel):
    """The agent in each engine pod: the pod's only door, and what fetches, loads and verifies adapters."""

    resources: Resources | None = None
    """Resources of one agent; absent means 50m CPU and 128Mi, at most 1Gi. The limit of ephemeral-storage is the room
    for the pod's adapters; absent means 64Gi."""


class Store(ApiModel):
    """Where adapters are kept, content-addressed."""

    uri: StorePlace
    """Root of the store: pvc://claim/path, s3://bucket/path, gs://, az:// or file:///path."""
    secret_ref: SecretRef | None = None
    """Secret whose keys become environment variables, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    AWS_ENDPOINT_URL."""


class Cache(ApiModel):
    """Where a fetched base model is cached; absent means the pod's own ephemeral storage."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("!(has(self.claimName) && has(self.hostPath))", "set claimName or hostPath, not both"),
        )
    )
    claim_name: DnsName | None = None
    """PersistentVolumeClaim shared by the pool's pods."""
    host_path: NodeFolder | None = None
    """Folder on the node; needs a namespace that permits hostPath volumes."""
    size_limit: Annotated[str | None, Field(max_length=32, pattern=r"^[0-9]+([KMGTPE]i?)?$")] = None
    """Most that the base model takes of the pod's own disk, and what engines, trainers and examiners ask of a node's;
    absent means 64Gi with device CPU and 256Gi with GPU, of which nothing is asked for."""


class Mlflow(ApiModel):
    """An MLflow tracking server."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.secretRef) || self.endpoint.startsWith('https://') || "
                "self.endpoint.matches('^http://[^/:]+[.]svc([.]cluster[.]local)?(:|/|$)')",
                "credentials are sent by https:// only, or within the cluster: write https://, or HOST.NAMESPACE.svc",
            ),
        )
    )

    endpoint: Endpoint
    """Its address, for example http://mlflow.ml.svc:5000."""
    experiment: Annotated[str, Field(min_length=1, max_length=128)] = "bettertherapy"
    """The experiment that has the runs; made where there is none of that name."""
    secret_ref: SecretRef | None = None
    """Secret with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; absent means none.
    Trainers have it."""


class Tracking(ApiModel):
    """Where trainers tell of their curves: losses, distances, hyperparameters and digests, no words of anybody."""

    mlflow: Mlflow | None = None
    """A tracking server; one that is away delays no training and fails none."""
    tensor_board: bool = False
    """True writes TensorBoard's event files to <store>/<twin>/tensorboard/<run>; nothing deletes them."""


class SafetySetRef(ApiModel):
    """Safety items of the platform's own, which no trainer sees."""

    uri: StorePlace
    """JSONL file with the items, in the form of the product's own: pvc://claim/safety.jsonl, s3://, gs:// or az://. On
    a claim examiners alone mount it; in an object store the pool's credentials, which trainers have too, reach it."""
    digest: Digest
    """sha256 of that file; any other is refused."""


class PoolFineTune(ApiModel):
    """How fine-tunes of this pool's twins run; they use the pool's nodes, base model and store."""

    max_concurrent_runs: Annotated[int, Field(ge=0, le=1000)] = 4
    """Most trainers and examiners at once, whose runs may be several by runsPerTrainer; other runs wait their turn. 0
    lets none start."""
    runs_per_trainer: Annotated[int, Field(ge=1, le=32)] = 1
    """Most runs that one trainer, and after it one examiner, does one after the other, with the base model loaded once:
    a run that starts takes others along that wait for this pool and ask for the same image, resources, queue, priority,
    deadline, retries and quantization. The pods see the folders of all their runs' twins; 1 keeps twins apart."""
    image: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    """Trainer image; absent means the operator's default for the device. Examiners always run that default."""
    resources: Resources | None = None
    """Resources of a trainer and of an examiner; absent means those of one engine."""
    queue_name: DnsLabel | None = None
    """Kueue LocalQueue of scheduled runs; absent means none."""
    priority_class_name: DnsName | None = None
    """PriorityClass of the trainers of scheduled runs."""
    safety_set_ref: SafetySetRef | None = None
    """Safety items that every version is examined with beside the product's own, which are public; absent: with those
    alone."""
    tracking: Tracking | None = None
    """Where the trainings' curves go; absent means nowhere but to the runs' statuses and logs."""
    pod: PodOverlay | None = None
    """What is added to the pods of trainers and examiners; variables and volumes reach them and what fetches the base
    model."""


class Disruption(ApiModel):
    """What voluntary disruptions, such as a node drain, may take away at once."""

    max_unavailable: Annotated[
        int | str,
        WithJsonSchema(
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                **rules(
                    cel(
                        "type(self) == int ? self >= 0 : self.matches('^(100|[1-9]?[0-9])%$')",
                        "maxUnavailable must be a number of pods or a percentage such as 25%",
                    )
                ),
            }
        ),
    ] = 1
    """Engine pods, as a number or a percentage."""


class MinerPoolSpec(ApiModel):
    """What the pool should be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "has(self.baseModel.uri) || has(self.engine.endpoint)",
                "baseModel.uri is missing: say where the weights are (hf://, s3://, gs://, az://, pvc://, file://), "
                "or set engine.endpoint",
            ),
        )
    )
    base_model: PoolBaseModel
    """The base model."""
    engine: Annotated[Engine, Field(default_factory=Engine, json_schema_extra={"default": {}})]
    """The engines."""
    resources: Resources | None = None
    """Resources of one engine; absent means 1 GPU for device GPU, and 2 CPUs with 6Gi for device CPU."""
    runtime_class_name: DnsName | None = None
    """RuntimeClass of the engine pods, for example nvidia."""
    node_selector: Annotated[dict[str, LabelValue] | None, Field(max_length=32)] = None
    """Labels of the nodes that engines may run on."""
    tolerations: Annotated[list[Toleration] | None, Field(max_length=32)] = None
    """Taints that engines tolerate."""
    image_pull_secrets: Annotated[list[SecretRef] | None, Field(max_length=8)] = None
    """Secrets to pull the images with."""
    replicas: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] = 1
    """Engine pods; set by `kubectl scale` too. With autoscaling.mode Operator only a new pool begins with so many."""
    autoscaling: Autoscaling | None = None
    """How the number of engine pods follows the load; absent means Off."""
    miner: Annotated[Miner, Field(default_factory=Miner, json_schema_extra={"default": {}})]
    """The public endpoint."""
    agent: Agent | None = None
    """The agents beside the engines."""
    store: Store | None = None
    """Where the twins' adapters are kept."""
    cache: Cache | None = None
    """Where a fetched base model is cached."""
    fine_tune: PoolFineTune | None = None
    """How fine-tunes of this pool's twins run."""
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a pod that goes away may finish its running requests."""
    disruption: Disruption | None = None
    """What voluntary disruptions may take away at once."""
    metrics_from: Annotated[list[MetricsPeer] | None, Field(max_length=16)] = None
    """Who may read /metrics of miners and agents, at their port `metrics`; absent or empty means pods of all namespaces
    with the label app.kubernetes.io/name: prometheus. The ports that are asked have no metrics."""


class AdapterCounts(ApiModel):
    """Adapters over all pods of the pool."""

    desired: Annotated[int, Field(ge=0)] = 0
    """Adapters that every pod should hold."""
    loaded: Annotated[int, Field(ge=0)] = 0
    """Adapters that are verified on every ready pod."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Adapters that failed on some pod."""


class SlotCounts(ApiModel):
    """LoRA slots per engine."""

    used: Annotated[int, Field(ge=0)] = 0
    """Adapters that compete for the slots of one engine."""
    total: Annotated[int, Field(ge=0)] = 0
    """Slots of one engine."""
    summary: Annotated[str | None, Field(max_length=32)] = None
    """used/total, as `kubectl get` shows it."""


class Saturation(ApiModel):
    """How loaded the pool is, as measured within the last half minute."""

    waiting: Annotated[int | None, Field(ge=0)] = None
    """Waiting requests: held by miners, or in engines."""
    running: Annotated[int | None, Field(ge=0)] = None
    """Requests that engines work on."""
    kv_cache_percent: Percent | None = None
    """KV cache use of the fullest engine."""
    active_twins: Annotated[int | None, Field(ge=0)] = None
    """Twins' versions with requests in flight: each wants a LoRA slot."""


MAX_SCALING_MESSAGE = 512
"""Characters of a decision's sentence."""


class ScalingRecord(ApiModel):
    """One decision on the number of pods: a change, or that it is held since metrics are missing."""

    time: Time
    """When."""
    from_replicas: Annotated[int, Field(ge=0)]
    """Pods before."""
    to_replicas: Annotated[int, Field(ge=0)]
    """Pods after."""
    reason: Str63
    """What was done: ScaledUp, ScaledDown, Woken, or why nothing was."""
    signal: Str63 | None = None
    """By what: WaitingRequests, RunningRequests, KVCache, SlotPressure, HeldRequests, Idle, Bounds or Metrics."""
    message: Annotated[str | None, Field(max_length=MAX_SCALING_MESSAGE)] = None
    """Why, with the figures of that moment."""


MAX_TUNING_MESSAGE = 1024


class EngineTuning(ApiModel):
    """How engines are started for their adapters."""

    max_loras: Annotated[int, Field(ge=1, le=256)]
    """Adapters that one engine computes at once."""
    max_cpu_loras: Annotated[int, Field(ge=1, le=65536)]
    """Adapters that one engine keeps in memory; others are read from disk when asked for."""
    max_lora_rank: Annotated[int, Field(ge=1, le=256)]
    """Highest rank that an adapter may have."""
    lora_targets: LoraTargets
    """Which modules adapters may change."""
    specialize_active_lora: bool
    """Whether kernels are sized by the adapters in a batch."""


class TuningStatus(ApiModel):
    """How the engines are started for their adapters, and what would fit better."""

    running: EngineTuning
    """With what engine pods are started now."""
    wanted: EngineTuning | None = None
    """What fits the adapters better; absent where nothing does. It comes at the next restart of the engines."""
    message: Annotated[str | None, Field(max_length=MAX_TUNING_MESSAGE)] = None
    """From what it was decided, and when it takes effect."""
    short_since: Time | None = None
    """Since when the engines lack something that their adapters need; absent while they don't."""
    restart_time: Time | None = None
    """When the engines were last restarted for this alone."""
    most_loras: Annotated[int | None, Field(ge=1, le=256)] = None
    """Slots that Auto doesn't go beyond, since engines with more ended by themselves before they were ready; absent
    after a change of what the spec says of engine pods."""
    most_loras_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation at which that held last."""
    in_use: Annotated[int | None, Field(ge=0)] = None
    """The most twins that were in use at once on one pod within a week; absent where nobody measured."""
    in_use_time: Time | None = None
    """When that was seen."""
    measured_since: Time | None = None
    """Since when twins in use are counted."""


MOST_SLOW = 64
"""Slow pods that a status names."""


class SlowReplica(ApiModel):
    """An engine pod that writes slower than the others of the pool under like load."""

    pod: Str253
    """Its name."""
    uid: Str63
    """Its UID."""
    since: Time
    """When it was found to be slow."""
    until: Time
    """When twins are placed on it again, to see whether it still is; sooner where its load shows that."""
    times: Annotated[int, Field(ge=1, le=100)] = 1
    """How often in a row it was found so; each time it is left alone for twice as long."""


class MinerPoolStatus(ApiModel):
    """What the pool is."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this status speaks of."""
    conditions: Conditions | None = None
    """Ready, Available, EngineLive, EnginesTuned, MinerRegistered, MetricsAvailable, ScalingActive, CapacityAvailable,
    Degraded; Updated where an update of the engines waits."""
    replicas: Annotated[int | None, Field(ge=0)] = None
    """Engine pods that exist."""
    desired_replicas: Annotated[int | None, Field(ge=0, le=MOST_REPLICAS)] = None
    """Engine pods that there should be, where the operator scales the pool; absent where spec.replicas says so."""
    ready_replicas: Annotated[int | None, Field(ge=0)] = None
    """Engine pods that are ready."""
    ready_summary: Annotated[str | None, Field(max_length=32)] = None
    """ready/wanted, as `kubectl get` shows it."""
    selector: Annotated[str | None, Field(max_length=1024)] = None
    """Label selector of the engine pods, for the scale subresource."""
    twins: Annotated[int | None, Field(ge=0)] = None
    """Twins that this pool serves."""
    adapters: AdapterCounts | None = None
    """Adapters over all pods."""
    slots: SlotCounts | None = None
    """LoRA slots per engine."""
    tuning: TuningStatus | None = None
    """How the engines are started for their adapters; absent where they aren't ours to start."""
    saturation: Saturation | None = None
    """How loaded the pool is."""
    engine_version: Annotated[str | None, Field(max_length=64)] = None
    """Version of vLLM."""
    cold_start_seconds: Annotated[int | None, Field(ge=0)] = None
    """The newest pod's time from its agent's start to the engine's first answer."""
    scaling_history: Annotated[list[ScalingRecord] | None, Field(max_length=20)] = None
    """The last decisions, newest first."""
    slow_replicas: Annotated[list[SlowReplica] | None, Field(max_length=MOST_SLOW)] = None
    """Engine pods that are slower than the others, off which twins are moved as far as those have room."""


class MinerPool(ApiModel):
    """Engines that serve one base model with many doctors' adapters, and the miner in front of them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "size(self.metadata.name) <= 40",
                "metadata.name must have at most 40 characters: the names of its pods are made from it",
            ),
            cel(
                "!self.metadata.name.contains('.')", "metadata.name must not contain dots: a Service is named after it"
            ),
            # At creation only: a pool that was made where Services may begin with a digit must stay changeable.
            cel(
                "oldSelf.hasValue() || !self.metadata.name.matches('^[0-9]')",
                "metadata.name must begin with a letter: a Service is named after it (DNS-1035)",
                optional_old_self=True,
            ),
        )
    )
    metadata: dict[str, Any]
    """Standard object metadata."""
    spec: MinerPoolSpec
    """What the pool should be."""
    status: MinerPoolStatus | None = None
    """What the pool is; written by the operator."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Model", "type": "string", "jsonPath": ".spec.baseModel.name"},
    {"name": "Ready", "type": "string", "jsonPath": ".status.readySummary"},
    {"name": "Twins", "type": "integer", "jsonPath": ".status.twins"},
    {"name": "Slots", "type": "string", "jsonPath": ".status.slots.summary"},
    {"name": "Waiting", "type": "integer", "jsonPath": ".status.saturation.waiting"},
    {"name": "Scaling", "type": "string", "jsonPath": condition_path("ScalingActive", "reason")},
    {"name": "Reason", "type": "string", "jsonPath": condition_path("Ready", "reason"), "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["mp"]
CATEGORIES = ["bettertherapy"]
SCALE: dict[str, str] | None = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
SELECTABLE: list[str] = []
__all__ = [
    "COLUMNS",
    "KIND",
    "PLURAL",
    "SCALE",
    "SELECTABLE",
    "SHORT_NAMES",
    "MinerPool",
    "MinerPoolSpec",
    "MinerPoolStatus",
    "Str253",
]
