"""Every reason that a condition, a refused version or a rollback may give, with what it means and what to do.

docs/operations.md is made from these sentences and from domain.appearances, which says where each may stand. A reason
from elsewhere, such as an agent of another release, is mapped to one of these; its own word goes into the message.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final, Self


class Reason(StrEnum):
    """One word, stable, that programs may rely on."""

    meaning: str
    remedy: str
    again: str

    def __new__(cls, value: str, meaning: str, remedy: str = "", again: str = "") -> Self:
        """`again` says whether what failed is tried again by itself, where that is not obvious."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        member.again = again
        return member

    # Each is: word, meaning, what to do, whether it is tried again by itself.

    # What is stored can't be acted on.
    SPEC_INVALID = (
        "SpecInvalid",
        "the stored spec can't be read by this operator; what serves goes on",
        "correct what the message names; the definitions may be older than the operator: `helm upgrade` it",
    )
    STATUS_UNREADABLE = (
        "StatusUnreadable",
        "the stored status can't be read by this operator, mostly because a newer one wrote it; "
        "nothing is done for the object until it can, and what serves goes on",
        "run the release that wrote it, or correct what the message names (`kubectl edit --subresource=status`)",
    )
    NOT_IMPLEMENTED = (
        "NotImplemented",
        "the field is accepted, but this release does not do it yet; the message says what it does",
        "leave it, or set what the message names",
    )

    # A twin and its pools.
    SERVING = "Serving", "all is well"
    VERSION_SERVING = "VersionServing", "all is well: the message says which version answers on how many pods"
    NO_POOL_MATCHES = (
        "NoPoolMatches",
        "no MinerPool of the namespace has the labels in `poolSelector`",
        "label a pool (`kubectl get minerpools --show-labels`), or correct the selector",
    )
    POOL_UNREADABLE = (
        "PoolUnreadable",
        "a pool that matches has a spec that this operator can't read: it takes up no new version, and what answers in "
        "it goes on",
        "see the pool's `Ready`: mostly the definitions, or the release that wrote the spec, are another",
    )
    ENTRY_UNREADABLE = (
        "EntryUnreadable",
        "what a pool publishes for the twin was written by another release, and this operator can't read it: it stays "
        "as it is, and which version answers isn't known",
        "run the release that wrote it",
    )
    LATENCY_ABOVE_BASELINE = (
        "LatencyAboveBaseline",
        "the version's answers take longer than they did when its baseline was learnt; it goes on answering",
        "see the pool (`Degraded`, `ScalingActive`, `kubectl twin top`): [operations](operations.md#a-twins-baseline)",
    )
    RATING_BELOW_BASELINE = (
        "RatingBelowBaseline",
        "patients rate the version lower than they did when its baseline was learnt; it goes on answering",
        "read what it answers; `kubectl twin rollback NAME` takes the version before",
    )
    WITHIN_BASELINE = "WithinBaseline", "all is well: nothing that was learnt was seen to be left"
    BASELINE_LEARNING = "BaselineLearning", "the version has not had enough requests or ratings yet to know its usual"
    NO_POOL = "NoPool", "nothing can be said, as no pool can serve the twin", "see Ready"
    BASE_MODEL_MISMATCH = (
        "BaseModelMismatch",
        "the matching pools serve another base model or revision than the twin asks for, or than "
        "its adapter was trained on",
        "correct `baseModel`, select another pool, or train on the pool's model",
        "no",
    )
    RANK_TOO_HIGH = (
        "RankTooHigh",
        "the adapter's rank is above the pool's `maxLoraRank`, or, with Auto, above what the engines were started for",
        "raise it (the engines restart), or train with a lower rank; with Auto wait for the engines' restart",
        "with Auto",
    )
    MODULES_NOT_WRAPPED = (
        "ModulesNotWrapped",
        "the adapter changes modules that the pool's engines don't wrap (`loraTargets`); loaded, it would lose them "
        "without a word",
        "train it on attention alone, set `loraTargets: AllLinear`, or, with Auto, wait for the engines' restart",
        "with Auto",
    )
    SERVED_NAME_COLLISION = (
        "ServedNameCollision",
        "two digests begin with the same 8 digits",
        "train again; any other seed gives another digest",
    )
    POOL_NOT_READY = (
        "PoolNotReady",
        "no engine or no miner of the twin's pools is ready; the message says why",
        "see the pool's reasons",
    )
    SCALED_TO_ZERO = "ScaledToZero", "the pool has `replicas: 0`: nobody is answered", "raise it"
    LOADING = "Loading", "the version is being fetched, loaded and verified", "wait; the message counts the pods"
    COMPLETE = "Complete", "all is well: the wanted version has taken over"
    RETRYING = "Retrying", "it failed, and is tried again by itself", "the message says why"
    RUN_REFUSED = (
        "RunRefused",
        "the API server refuses to create the fine-tune that is due, most often for a quota",
        "what the message says; it is tried again",
    )
    ROUTING_REFUSED = (
        "RoutingRefused",
        "which version answers can't be published: the API server refuses it, or the operator can't make it; "
        "what was published before goes on",
        "what the message says: most often a quota, an admission webhook, or definitions older than the operator",
    )

    # What agents say of an adapter (bettertherapy_api.report.FailureReason).
    NO_ADAPTER = "NoAdapter", "all is well: the twin is the base model itself"
    VERIFIED = "Verified", "all is well: on every ready pod digest and folder are confirmed, and the weights measured"
    UNPROVEN = (
        "Unproven",
        "digest and folder are confirmed on every ready pod, but nothing that was measured proves whose "
        "weights the engine computes with; the message says why. It goes on serving",
        "publish it with the trainer, which records a fingerprint",
    )
    DIGEST_MATCHES = "DigestMatches", "all is well: every file has the digest that the manifest names"
    NOT_FETCHED = "NotFetched", "no pod has fetched the artifact yet", "wait, or see AdaptersVerified"
    ARTIFACT_NOT_FOUND = (
        "ArtifactNotFound",
        "no manifest.json, or a file of it is missing",
        "correct `uri`, or publish again",
        "yes",
    )
    STORE_UNREACHABLE = (
        "StoreUnreachable",
        "the store doesn't answer",
        "network, `AWS_ENDPOINT_URL`, the store itself",
        "yes",
    )
    ACCESS_DENIED = (
        "AccessDenied",
        "the store refuses",
        "the Secret in the pool's `store.secretRef`, and what its account may read",
        "yes",
    )
    NO_SPACE = (
        "NoSpace",
        "the pod's disk is full",
        "more ephemeral storage on the node, or fewer twins per pool",
        "yes",
    )
    DIGEST_MISMATCH = (
        "DigestMismatch",
        "bytes differ from their digest: cut short or changed",
        "publish again and set the digest that is printed; find out who writes to the store",
        "every 5 min",
    )
    MANIFEST_INVALID = (
        "ManifestInvalid",
        "manifest.json can't be read",
        "publish again with the trainer or `kubectl twin adapter push`",
        "every 5 min",
    )
    RANK_MISMATCH = (
        "RankMismatch",
        "the rank that the spec gives is not the artifact's, or not that of the version to go on from",
        "set the rank that the message names, or leave it out of `fineTune.hyperparameters`",
        "no",
    )
    ENGINE_REFUSED = (
        "EngineRefused",
        "vLLM refused to load it; its words are in the message",
        "most often layers that this model doesn't have: train on the right base",
        "if the engine itself was at fault",
    )
    ENGINE_UNREACHABLE = (
        "EngineUnreachable",
        "the engine doesn't answer at the moment",
        "look at the pool",
        "yes",
    )
    ROOT_MISMATCH = (
        "RootMismatch",
        "the engine serves another folder under this name",
        "it is loaded anew; if it stays, restart the pod",
        "yes",
    )
    FINGERPRINT_MISMATCH = (
        "FingerprintMismatch",
        "the loaded weights don't behave like those that were trained, or two pods of a pool answer differently",
        "don't serve it: base model, quantisation or the files differ from training, or from pod to pod",
        "no",
    )
    ADAPTER_INVALID = (
        "AdapterInvalid",
        "the files are no adapter that vLLM serves as it was meant; the message says what is wrong with them",
        "publish it again as the message says; `kubectl twin adapter push` refuses the same before it is stored",
        "no",
    )
    WEIGHTS_NOT_FINITE = (
        "WeightsNotFinite",
        "weights are NaN or infinite, or give such probabilities once loaded",
        "don't serve it: train again; the run diverged, or the files are damaged",
        "no",
    )
    NO_EFFECT = (
        "NoEffect",
        "with the adapter the engine answers as the base model does",
        "train again, or find out which layers it changes: the engine may not apply them",
        "no",
    )
    ENDPOINT_NOT_LOADABLE = (
        "EndpointNotLoadable",
        "the external server doesn't list it",
        "load it there under its served name",
        "yes",
    )
    ADAPTER_FAILED = (
        "AdapterFailed",
        "the adapter failed for a reason that this operator doesn't know; the message begins with it",
        "what the message says",
        "the status says",
    )

    # A twin's new versions.
    PROMOTE = "Promote", "the newest version passed; it is tried, or serves"
    REJECT = (
        "Reject",
        "it did not pass; the version before goes on serving",
        "`status.lastGate` has the metrics",
    )
    INCONCLUSIVE = (
        "Inconclusive",
        "too little was measured to decide; the version before goes on serving",
        "`status.lastGate` of the twin, or `status.eval` of the run, has the metrics",
    )
    AWAITING_APPROVAL = (
        "AwaitingApproval",
        "`gate.approval: Doctor`: it waits for the doctor",
        "`kubectl twin review`, then approve or reject",
    )
    RUN_UNDER_WAY = "RunUnderWay", "the next fine-tune is due and waits for the one that runs", "wait"
    CANARY_UNDER_WAY = "CanaryUnderWay", "the next fine-tune is due and waits until the new version is decided", "wait"
    SCHEDULE_INVALID = (
        "ScheduleInvalid",
        "cron expression or time zone mean nothing",
        "correct `spec.fineTune` of the twin, or `spec.rounds` of the validator",
    )
    NO_TRAINING_POOL = (
        "NoTrainingPool",
        "no matching pool can train: no base model of its own, or one in the engine's image (`file://`)",
        "set it on a pool that the twin's selector matches; the message says how",
    )
    NO_STORE = "NoStore", "no matching pool has a `spec.store` to publish to", "set it"
    CANARY_LOADING = (
        "CanaryLoading",
        "a new version is being verified beside the one that serves",
        "wait; the message counts the pods",
    )
    CANARY_STEP = "CanaryStep", "it takes its share; the message has the figures so far"
    CANARY_HELD = (
        "CanaryHeld",
        "it stays at its share: metrics are missing or stale, it looks worse by what may be chance, or no pod holds it",
        "is `prometheus.url` right, does Prometheus scrape the miners",
    )
    WITHIN_LIMITS = "WithinLimits", "nothing that was measured speaks against the canary"
    AWAITING_TRAFFIC = (
        "AwaitingTraffic",
        "its step is over, and fewer requests than `rollout.minRequests` have reached it: no traffic is no proof",
        "wait, at most `rollout.awaitTrafficSeconds`; more weight in the first step brings more requests",
    )
    NO_TRAFFIC = (
        "NoTraffic",
        "too few requests have reached the canary to prove anything; after `rollout.awaitTrafficSeconds` it is taken "
        "back",
        "more weight in the first step, more time, or `rollout.minRequests: 0` where steps may go by time alone",
    )
    NOT_ANALYSED = (
        "NotAnalysed",
        "steps go by time and verification alone: the operator has no Prometheus",
        "`prometheus.url` of its chart",
    )
    METRICS_UNAVAILABLE = (
        "MetricsUnavailable",
        "Prometheus doesn't answer, or with figures that can't be true",
        "`prometheus.url` of the operator's chart; the message says what is odd",
    )
    METRICS_STALE = (
        "MetricsStale",
        "Prometheus has no fresh samples of some miners, engines or gateways",
        "check that it scrapes them, and that their series carry `namespace` and `pod`",
    )
    NO_ROLLBACK = "NoRollback", "all is well: nothing was taken back since the last promotion"
    ERROR_RATE = (
        "ErrorRate",
        "a larger share of the canary's requests failed than of the serving version's and than "
        "`rollout.maxErrorPercent`, beyond chance; or, in Progressing's message, it may be chance",
        "look at the run and its data; it is not tried again",
    )
    RATING = (
        "Rating",
        "patients rate the new version lower, beyond chance; the numbers are in the message",
        "look at the run and its data; it is not tried again",
    )
    LATENCY = (
        "Latency",
        "the new version answers more slowly than `rollout.maxLatencyRatioPercent` allows, beyond chance",
        "look at the run and its data; it is not tried again",
    )
    REQUESTED = "Requested", "a person took it back: `kubectl twin rollback`"
    ROLLBACK_UNKNOWN = (
        "RollbackUnknown",
        "the annotation `rollback-to` names no version that the twin knows, or one that is being "
        "tried or waits for the doctor",
        "`kubectl twin history`",
    )
    ROLLED_BACK = "RolledBack", "the version was taken back after it had been tried", "the message has the numbers"
    REJECTED_BY_DOCTOR = "RejectedByDoctor", "the doctor refused it", "the message has the doctor's words"
    SUPERSEDED = "Superseded", "a newer version, or a changed `spec.adapter`, came before it was decided"
    PARENT_REPLACED = "ParentReplaced", "what it was compared with at its gate serves no more"
    ANCHOR_LEFT_OUT = (
        "AnchorLeftOut",
        "its run was made by hand and did not compare it with the version that the doctor chose last (`spec.anchor`), "
        "so small losses could add up unseen",
        "leave runs to the operator (`kubectl twin finetune NAME --now`), or name the anchor",
    )

    # A pool.
    ALL_READY = "AllReady", "all is well"
    ANSWERING = "Answering", "all is well: engines and miners answer"
    PROGRESSING = "Progressing", "all is well: engines answer and move"
    SUFFICIENT = "Sufficient", "all is well: there is room"
    ENGINES_STARTING = "EnginesStarting", "engine pods are starting", "wait; a first start fetches the model"
    ROLLING_OUT = "RollingOut", "engine or gateway pods are being replaced by ones with the newest spec", "wait"
    MINER_STARTING = "MinerStarting", "miner pods are starting", "wait"
    NO_MINER = "NoMiner", "`miner.replicas` is 0: the pool has no endpoint", "raise it"
    ACCESS_SECRET_MISSING = (
        "AccessSecretMissing",
        "the Secret with the clients' tokens is missing or empty, so every request is refused",
        "create it with one token for each client: the message names it",
    )
    AWAITING_MAINTENANCE_WINDOW = (
        "AwaitingMaintenanceWindow",
        "an update of the engines waits for the maintenance window; the pool answers as before",
        "wait; the message says until when",
    )
    MAINTENANCE_WINDOW_INVALID = (
        "MaintenanceWindowInvalid",
        "schedule or time zone of the maintenance window mean nothing, so an update of the engines waits for ever",
        "correct `engine.updateStrategy.maintenanceWindow`",
    )
    UPDATE_HELD = (
        "UpdateHeld",
        "an update of the engines waits until another pool has finished its own",
        "wait; the message names it",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "a node can't get an image",
        "correct the image, add `imagePullSecrets`, or load it onto the nodes",
    )
    SECRET_NOT_FOUND = "SecretNotFound", "a Secret that the spec names is missing", "create it in the namespace"
    CONTAINER_NOT_STARTED = "ContainerNotStarted", "a container can't be created", "what the message says"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound", "a claim is missing", "create it, or correct the pvc:// URI"
    VOLUME_CLAIM_NOT_BOUND = (
        "VolumeClaimNotBound",
        "a claim waits for a volume",
        "`kubectl describe pvc`; a StorageClass that can do the access mode",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "no node fits",
        "what the message says: a free GPU, tolerations, nodeSelector, resources",
    )
    PODS_REFUSED = (
        "PodsRefused",
        "the API server refuses the pods",
        "quota, Pod Security (for `cache.hostPath`), admission webhooks",
    )
    MODEL_FETCH_FAILED = (
        "ModelFetchFailed",
        "the base model can't be fetched or verified",
        "URI, revision, credentials (`HF_TOKEN` in `store.secretRef` for gated models)",
        "yes",
    )
    ENGINE_CRASHED = (
        "EngineCrashed",
        "vLLM ends again and again",
        "`kubectl logs POD -c engine --previous`; out of memory: more memory, smaller `maxModelLength`",
    )
    AGENT_CRASHED = (
        "AgentCrashed",
        "an agent ends again and again",
        "`kubectl logs POD -c agent --previous`, and report it",
    )
    MINER_CRASHED = (
        "MinerCrashed",
        "a miner ends again and again",
        "`kubectl logs POD -c miner --previous`, and report it",
    )
    ENGINE_WEDGED = (
        "EngineWedged",
        "requests run but nothing moves, or the base model began to answer wrongly; the engine is being restarted",
        "if it comes back: its log, and fewer requests at once (`--max-num-seqs`), or another `engine.image`",
    )
    ENDPOINT_UNREACHABLE = (
        "EndpointUnreachable",
        "the external server doesn't answer",
        "`engine.endpoint`, its Secret, the network",
    )
    CHAT_TEMPLATE_REFUSES = (
        "ChatTemplateRefuses",
        "the base model's chat template takes no conversation, so every patient is turned away",
        "`engine.args`: `--chat-template=FILE`, or an instruction-tuned base model",
    )
    NO_READY_POD = "NoReadyPod", "no engine pod or no miner pod is ready", "wait, or see Ready"
    NOT_REPORTED = "NotReported", "no agent has reported a live engine yet", "wait; then the agent's log"
    NO_PODS = "NoPods", "no engine pod was seen yet", "wait"
    # A pool's miners on their subnet.
    REGISTERED = "Registered", "all is well: the message has UID, hotkey and address"
    NOT_REGISTERED = (
        "NotRegistered",
        "the hotkey has no UID on the subnet: it never was registered, or gave way to another",
        "register it with its coldkey, outside the cluster: `btcli subnets register`",
    )
    NONCES_NOT_SHARED = (
        "NoncesNotShared",
        "the miner is registered, but its several pods share no store of accepted requests, so they turn every "
        "validator away",
        "`NONCE_STORE_URL` in `spec.miner.pod.env` ([receipts.md](receipts.md#the-two-doors)), or "
        "`spec.miner.replicas: 1`",
    )
    FOREIGN_OWNER = (
        "ForeignOwner",
        "the hotkey is registered by another coldkey than the Secret's `coldkeypub.txt` names",
        "use a hotkey of your own",
    )
    CHAIN_UNREACHABLE = (
        "ChainUnreachable",
        "the subnet's metagraph couldn't be read: by a miner or a gateway for ten minutes, which goes on with the last "
        "one, whose time is told, or by a round",
        "the message; the network's name in `spec.miner.chain` of a pool or `spec.chain` of a validator, the way "
        "there, or another endpoint",
    )
    CHAIN_NOT_SET = "ChainNotSet", "`spec.miner.netuid` is set and `spec.miner.chain` is not", "set it"
    WALLET_MISSING = (
        "WalletMissing",
        "there is no hotkey that could sign: no Secret is named, or it holds no usable one",
        "the message",
    )
    COLDKEY_FOUND = (
        "ColdkeyFound",
        "the wallet's Secret holds a coldkey, which moves money; what would sign with it does not start",
        "delete the Secret, move what the coldkey holds to a new one, and create the Secret with a hotkey alone",
    )
    ADDRESS_MISSING = (
        "AddressMissing",
        "the miner is registered and the chain has no address for it, so no validator finds it",
        "set `spec.miner.externalAddress`",
    )
    ADDRESS_REFUSED = (
        "AddressRefused",
        "the miner's address can't be published on the chain, or another miner of its hotkey published its own over it",
        "the message",
        "yes, every ten minutes",
    )
    REGISTRATION_NOT_REPORTED = (
        "RegistrationNotReported",
        "no miner has said yet where it stands on the subnet",
        "wait; then the Secret and the miner's log",
    )
    PLACED = "Placed", "all is well: the message says which pods hold the twin, the preferred one first"
    ON_DEMAND = (
        "OnDemand",
        "all is well: the twin's `spec.placement.mode` is OnDemand and nobody asked it of late, so no pod holds it; "
        "what was found when it was loaded last says nothing of the next time",
    )
    TOO_FEW_PODS = (
        "TooFewPods",
        "the pool has fewer ready engine pods than `spec.placement.replicas`; the twin is on all that there are",
        "raise the pool's `spec.replicas`, or lower the twin's `spec.placement.replicas`",
    )
    SLOTS_OVERCOMMITTED = (
        "SlotsOvercommitted",
        "more twins than LoRA slots: all answer, active ones slow each other down",
        "raise `maxLoras`, or a second pool and other labels",
    )
    TUNED = (
        "Tuned",
        "all is well: engines are started as their adapters need it; the message says with what, and what would fit "
        "better from their next restart on",
    )
    TUNING_AWAITED = (
        "TuningAwaited",
        "the engines lack something that their adapters need: slots, memory, a higher rank or more modules",
        "wait: the message says when they are restarted for it; or fix the value in the spec",
    )
    CHILD_CONFLICT = (
        "ChildConflict",
        "a child's name is taken by somebody else's object",
        "rename its owner, or delete that object",
    )
    CHILDREN_REFUSED = (
        "ChildrenRefused",
        "the API server refuses some of the objects that are made for it; all others are as they should be",
        "what the message says: quota, admission webhooks, a field of the spec",
    )
    OUT_OF_BOUNDS = (
        "OutOfBounds",
        "the spec names an image, a class, a place or a flag that the platform's team doesn't let tenants use; what "
        "runs already stays as it is, and nothing new is begun",
        "what the message says, or have it added to `tenants` in the values of the operator's chart",
    )
    APPLY_REFUSED = (
        "ApplyRefused",
        "the API server refuses an object",
        "what the message says: quota, admission webhooks, a field of the spec",
    )
    EXTERNAL = "External", "`replicas` is left to an HPA or KEDA"
    OFF = "Off", "`replicas` is left to you"
    STEADY = "Steady", "all is well: there are as many engine pods as the load needs"
    STABILIZING = (
        "Stabilizing",
        "fewer engine pods would do; they go once that has been so for `autoscaling.stabilizationSeconds`",
    )
    AT_MAXIMUM = (
        "AtMaximum",
        "the load needs more engine pods than `autoscaling.max`",
        "raise it, or let requests wait",
    )
    ASLEEP = (
        "Asleep",
        "nobody has asked for `autoscaling.idleSeconds`, so no engine runs; the next question starts one, and is "
        "answered when that is up",
        "`autoscaling.min: 1` where that takes too long",
    )
    SCALED_UP = "ScaledUp", "the pool was made larger; the message says by which signal"
    SCALED_DOWN = "ScaledDown", "the pool was made smaller; the message says by which signal"
    WOKEN = "Woken", "somebody asked a pool that slept"
    CAPACITY_EXHAUSTED = (
        "CapacityExhausted",
        "the load needs more engine pods, and the cluster doesn't even give those that there should be",
        "what `CapacityAvailable` says: a quota, nodes, volumes",
    )
    METRICS_NOT_CONFIGURED = (
        "MetricsNotConfigured",
        "the operator has no Prometheus, so the pool stays as large as it is",
        "`prometheus.url` of the operator's chart, or another `autoscaling.mode`",
    )
    METRICS_AWAITED = "MetricsAwaited", "the operator has just begun to measure the pool", "wait a moment"
    LEADER_WORKER_SET_MISSING = (
        "LeaderWorkerSetMissing",
        "`engine.group` spreads each engine over several nodes, and the cluster has no LeaderWorkerSets to do so",
        "install LeaderWorkerSet (lws.sigs.k8s.io), or remove `engine.group`: [one model on several GPUs]"
        "(several-gpus.md)",
    )
    SLOW_REPLICA = (
        "SlowReplica",
        "an engine pod takes more than twice as long for a token as the others under like load; twins placed on it "
        "move to the others, as far as those have LoRA slots, and it is tried again later",
        "look at the pod's node (a GPU that throttles, a neighbour), or delete the pod: [placement](placement.md)",
    )
    NO_SLOW_REPLICA = (
        "NoSlowReplica",
        "all is well, as far as it can be seen: no engine pod was found to be slower than others under like load",
    )
    NOT_SCALABLE = (
        "NotScalable",
        "the pool has `engine.endpoint`: what runs there is not the operator's to scale",
        "`autoscaling.mode: Off`",
    )

    # A validator.
    GATEWAYS_ANSWER = "GatewaysAnswer", "all is well: the message counts the gateway pods that answer"
    GATEWAYS_STARTING = (
        "GatewaysStarting",
        "gateway pods are starting, or wait for the metagraph and for what the miners announce",
        "wait; then the gateway's log: mostly the chain can't be reached",
    )
    NO_GATEWAY = "NoGateway", "`gateway.replicas` is 0: nobody is answered", "raise it"
    GATEWAY_CRASHED = (
        "GatewayCrashed",
        "a gateway ends again and again; the message has its last words",
        "what the message says; `kubectl logs POD -c gateway --previous`",
    )
    TWINS_PUBLISHED = (
        "TwinsPublished",
        "all is well: the message counts the twins that the gateway is told to answer for",
    )
    NO_TWINS = (
        "NoTwins",
        "there is no DoctorTwin in the namespace, so there is nobody to answer for",
        "create the DoctorTwins that this validator answers for; they need no pool here",
    )
    TWIN_UNREADABLE = (
        "TwinUnreadable",
        "a twin is there that this operator can't read, and of which the gateway knows nothing: nobody is answered "
        "under its name",
        "see the twin's `Ready`: mostly the definitions, or the release that wrote it, are another",
    )
    TOO_MANY_TWINS = (
        "TooManyTwins",
        "not all twins of the namespace fit into what the gateway is told; those that it knew stay",
        "put some of the twins, with a Validator of their own, into another namespace",
    )
    CHAIN_READ = (
        "ChainRead",
        "all is well: gateways read the subnet's metagraph; the message counts the miners that have an address there",
    )
    CHAIN_NOT_REPORTED = (
        "ChainNotReported",
        "no gateway has said yet what it sees of the subnet",
        "wait a minute; then the gateway's log: definitions and the policy `pod-reports.bettertherapy.io` of an older "
        "release refuse its report, and `gateway.image` of an older release writes none",
    )
    REPORT_STALE = (
        "ReportStale",
        "the last that a gateway said of the subnet is more than ten minutes old, or its node's clock goes wrong: what "
        "it sees now isn't known",
        "the gateway's log says why its report can't be written; patients are answered meanwhile",
    )
    EMBEDDED_LEDGER = "EmbeddedLedger", "all is well: the ledger is a file on the gateway's volume"
    LEDGER_PREPARED = "LedgerPrepared", "all is well: the database answered, and has this release's tables"
    PREPARING_LEDGER = (
        "PreparingLedger",
        "the database's tables are being made or looked at; the gateway answers meanwhile, and queues what it records",
        "wait",
    )
    LEDGER_UNREACHABLE = (
        "LedgerUnreachable",
        "the ledger can't be used, or nothing can be queued before it; the gateway answers all the same, and queues "
        "what it records on its own disk, as long as that takes it",
        "what the message says: address and password in the Secret, the database itself, the way there, or room on the "
        "volume",
        "yes",
    )
    DATASETS_WRITTEN = (
        "DatasetsWritten",
        "all is well: the twins' conversations were brought to where fine-tunes read them; the message says when",
    )
    DATASETS_AWAITED = (
        "DatasetsAwaited",
        "the conversations go to the fine-tunes at the next time of `fineTuneTasks.schedule`; none came yet",
        "wait, or `kubectl create job --from=cronjob/V-datasets NAME`",
    )
    DATASETS_SUSPENDED = (
        "DatasetsSuspended",
        "`fineTuneTasks.suspend` is true: fine-tunes get no new conversations, and consent that is withdrawn doesn't "
        "reach the store",
        "set it to false, or leave it",
    )
    DATASETS_NOT_WRITTEN = (
        "DatasetsNotWritten",
        "conversations could not be brought to where fine-tunes read them; fine-tunes go on with what lies there, and "
        "what was missed is caught up for seven days",
        "what the message says: the ledger's address, the store and its Secret; then wait, or "
        "`kubectl create job --from=cronjob/V-datasets NAME`",
        "yes, at the next time",
    )

    # A run.
    TWIN_NOT_FOUND = "TwinNotFound", "the twin does not exist", "create it, or delete the run"
    TWIN_IS_ANOTHER = (
        "TwinIsAnother",
        "the twin of that name is not known to be the one that the run was made for",
        "create the run again if it is for this one, else delete it",
    )
    TWIN_BUSY = "TwinBusy", "it waits for the twin's other run", "wait"
    POOL_BUSY = (
        "PoolBusy",
        "it waits for a place in its pool",
        "raise the pool's `fineTune.maxConcurrentRuns` or `runsPerTrainer`, or wait",
    )
    NO_JUDGE = (
        "NoJudge",
        "the twin's gate names a judge that may not be asked, or is not there",
        "the message; `gate.judgeRef` of the twin. The run waits, keeps no other waiting, and looks again every minute",
    )
    AWAITING_QUOTA = (
        "AwaitingQuota",
        "Kueue holds the Job",
        "`kubectl get workloads`; does the LocalQueue exist",
    )
    ADMITTED = "Admitted", "it was let go"
    REQUEUED = "Requeued", "the trainer that it shared ended before it began this run; it waits its turn again", "wait"
    GATHERING_RUNS = "GatheringRuns", "it is settled first which runs share the trainer or the examiner", "wait"
    SHARED_JOB_BUSY = (
        "SharedJobBusy",
        "the trainer or examiner that it shares is at work on others: it hasn't begun this run, or is through with it",
        "wait",
    )
    SHARED_JOB_LOST = (
        "SharedJobLost",
        "the run whose trainer or examiner it shared is gone",
        "wait: it goes on with another once the former one's pods have ended",
    )
    TOO_FEW_INTERACTIONS = (
        "TooFewInteractions",
        "fewer new interactions than `minInteractions`, or none yet: skipped, no failure",
        "wait, or lower it",
    )
    DATASET_READ = "DatasetRead", "the message counts what is trained on"
    STAGE_STARTING = "StageStarting", "the pod runs and has not reported yet"
    STAGE_DATA = "StageData", "it reads the data"
    STAGE_TRAIN = "StageTrain", "it trains"
    STAGE_PUBLISH = "StagePublish", "it puts the adapter into the store"
    STAGE_EVALUATE = "StageEvaluate", "the examiner asks parent and child"
    STAGE_DONE = "StageDone", "it is about to end"
    POD_STARTING = "PodStarting", "the Job's pod is starting"
    JOB_STARTING = "JobStarting", "the Job has no pod yet"
    ENDING = "Ending", "an attempt failed as the next would; it is about to say so"
    ENDED = "Ended", "the Job has ended"
    TRAINING_ENDED = "TrainingEnded", "the message has steps and loss"
    IN_STORE = "InStore", "the adapter is published; the message has digest and place"
    AWAITING_ROLLOUT = "AwaitingRollout", "it passed its gate; the twin has not taken it up yet"
    AWAITING_CHOICE = (
        "AwaitingChoice",
        "it passed its gate; the version of a validator's task is rolled out only where the doctor chooses it",
        "`kubectl twin review`, then `approve --digest DIGEST` or `reject --digest DIGEST`, or leave it",
    )
    CANARY_RUNNING = "CanaryRunning", "it takes a share of the twin's traffic"
    TOOK_OVER = "TookOver", "the version serves, or did"
    GATE_REJECTED = "GateRejected", "the gate's word", "`status.eval` has the metrics"
    TWIN_GONE = "TwinGone", "the twin does not exist any more"
    OWNER_UNREADABLE = (
        "OwnerUnreadable",
        "twin, pool or validator are there, but can't be read by this operator; nothing is decided until they can",
        "see the condition Ready of the one that the message names",
    )

    # Why a run failed; also as status.failure.class.
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "the pod took more than its limit",
        "a trainer's: the pool's `fineTune.resources`, or a smaller `batchSize`; a round's: `rounds.resources`",
        "no",
    )
    PREEMPTED = (
        "Preempted",
        "the pod was taken away for another, or its node drained",
        "nothing: it is started again and does not use up `retries`",
        "yes",
    )
    NODE_LOST = "NodeLost", "the node went away", "nothing: as with Preempted", "yes"
    KILLED = (
        "Killed",
        "it was ended from outside: its node restarted, or the pod was deleted by force",
        "nothing: it is started again, at most `retries` times",
        "yes",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "not done within `deadlineSeconds`",
        "raise it, or train on less, or ask less",
        "no",
    )
    TASK_OVERDUE = (
        "TaskOverdue",
        "the time of a validator's task was over before its run could begin",
        "raise `spec.fineTune.maxConcurrentRuns` of the MinerPool, or lower `spec.miner.tasks.maxOpen`",
        "no",
    )
    TRAINER_CRASHED = (
        "TrainerCrashed",
        "the trainer ended without saying why",
        "`kubectl logs job/RUN -c trainer`",
        "the status says",
    )
    EXAMINER_CRASHED = (
        "ExaminerCrashed",
        "the examiner ended without saying why",
        "`kubectl logs job/RUN-examiner -c examiner`",
        "the status says",
    )
    NO_REPORT = (
        "NoReport",
        "the Job ended well, but without a last report",
        "`kubectl logs job/NAME`",
        "yes",
    )
    REPORT_UNREADABLE = (
        "ReportUnreadable",
        "the Job's report holds what can't be true or is not known here; nothing of it counts",
        "use the image of the operator's release; the message names the field",
        "no",
    )
    ARTIFACT_REFUSED = (
        "ArtifactRefused",
        "what the trainer names as its version is not at `<store>/<twin>/<digest>`: it is not examined",
        "use a trainer's image of the operator's release; find out who named another place",
        "no",
    )
    EXAMINATION_REFUSED = (
        "ExaminationRefused",
        "the examiner's report speaks of another run, twin, version, parent, anchor or dataset: nothing of it counts",
        "the message says of which; find out who wrote it",
        "no",
    )
    OWNER_GONE = "OwnerGone", "twin, pool or validator went away before it was decided", "", "no"
    BAD_ARTIFACT = (
        "BadArtifact",
        "the published version is damaged, is another run's, or belongs to another base model: it can't be examined",
        "the message; find out who writes to the store",
        "no",
    )
    NEAR_COPY = (
        "NearCopy",
        "what a miner delivered adds to its parent nearly what another version does that was reported before: it is no "
        "work of its own",
        "nothing: its miner is credited with nothing for it; the message names the other version",
        "no",
    )
    BAD_DATA = (
        "BadData",
        "the dataset is malformed or too large, or a file that was named is missing, or what it is examined with was "
        "trained on",
        "the message says which line and why",
        "no",
    )
    BAD_PARENT = "BadParent", "the version to go on from can't be trained on", "the message", "no"
    BAD_MODEL = "BadModel", "the base model can't be used", "the message", "no"
    DIVERGED = (
        "Diverged",
        "the loss rose, or became NaN or infinite",
        "a lower `learningRate`; look at the data",
        "no",
    )
    PROCESS_DIED = (
        "ProcessDied",
        "one of the processes of a training on several GPUs was killed, or kept the others waiting for half an hour",
        "nothing: it is started again, at most `retries` times; if it stays, the message, then the pod's memory and "
        "its GPUs (`nvidia-smi`, XID errors)",
        "yes",
    )
    UNEXPECTED = (
        "Unexpected",
        "a fault that nobody expected, of one run among several of a trainer or examiner; the others go on",
        "nothing: it is started again, at most `retries` times; if it stays, the pod's log has all of it",
        "yes",
    )
    STORE_FAILED = (
        "StoreFailed",
        "the store did not give what a run needs to begin",
        "as for StoreUnreachable",
        "the status says",
    )
    PUBLISH_FAILED = (
        "PublishFailed",
        "the adapter was trained but is not in the store",
        "as for StoreUnreachable",
        "the status says",
    )
    TRAINER_FAILED = (
        "TrainerFailed",
        "trainer or examiner failed for a reason that this operator doesn't know; the message begins with it",
        "what the message says",
        "the status says",
    )

    # A round.
    VALIDATOR_NOT_FOUND = "ValidatorNotFound", "the Validator does not exist", "create it, or delete the round"
    VALIDATOR_IS_ANOTHER = (
        "ValidatorIsAnother",
        "the Validator of that name is not the one that the round was made for",
        "create the round again if it is for this one, else delete it",
    )
    ROUND_BUSY = "RoundBusy", "a validator holds one round at a time, and an older one goes first", "wait"
    STAGE_PREPARE = "StagePrepare", "it reads metagraph, twins and questions"
    STAGE_ASK = "StageAsk", "it asks the miners"
    STAGE_SCORE = "StageScore", "it scores their answers"
    STAGE_REWARD = "StageReward", "it ranks the miners and stores the results"
    STAGE_TASKS = "StageTasks", "it hands out fine-tune tasks"
    ROUND_UNDER_WAY = "RoundUnderWay", "the round is not over yet", "wait; Running says how far it is"
    ROUND_FAILED = "RoundFailed", "the round ended without results", "see Failed"
    RESULTS_STORED = "ResultsStored", "all is well: the results are in the ledger; the message has their digest"
    QUORUM_REACHED = "QuorumReached", "all is well: enough miners have a score"
    QUORUM_MISSED = (
        "QuorumMissed",
        "too few miners have a score, so no weights are set; those that are in force stay",
        "`kubectl twin round NAME`: why miners failed; then the way to them",
        "yes, in the next round",
    )
    METRICS_FRESH = "MetricsFresh", "all is well: the metrics that speed, or a pool's load, is read from are fresh"
    WEIGHTS_WAITING = "WeightsWaiting", "the weights are not sent yet; the message says why", "wait", "yes"
    WEIGHTS_COMMITTED = (
        "WeightsCommitted",
        "the weights are committed, and not revealed yet: they don't count so far",
        "wait for the subnet's next epoch or two",
    )
    WEIGHTS_REVEALED = "WeightsRevealed", "all is well: the chain has the weights; the message has the block"
    WEIGHTS_MISSED = (
        "WeightsMissed",
        "committed weights were never revealed, or could not be opened in time",
        "the next round sets weights again; if it stays, the chain's endpoint and drand",
        "yes, in the next round",
    )
    WEIGHTS_SUPERSEDED = "WeightsSuperseded", "later weights of the same hotkey took their place"
    WEIGHTS_REFUSED = (
        "WeightsRefused",
        "the chain refuses the weights: no permit, too little stake, another version key",
        "what the message says: stake, registration, or the subnet's hyperparameters",
        "yes, in the next round",
    )
    WEIGHTS_WITHHELD = (
        "WeightsWithheld",
        "no weights were to be set; the message says why: no quorum, set in this epoch already, a newer round",
        "what the message says",
        "yes, in the next round",
    )
    WEIGHTS_NOT_ASKED = (
        "WeightsNotAsked",
        "miners are scored and no weights are set: the Validator has no `rewards`",
        "set `rewards: {}`, or leave it",
    )
    WEIGHTS_FAILED = (
        "WeightsFailed",
        "the Job that sets the weights ended without it",
        "what the message says; `kubectl logs job/ROUND-weights`",
        "yes, in the next round",
    )
    CHALLENGES_CHANGED = (
        "ChallengesChanged",
        "the set of questions has another digest than the one that was ordered",
        "`challengeDigest` of the round, or `rounds.challenges.digest`",
        "no",
    )
    CHALLENGES_INVALID = (
        "ChallengesInvalid",
        "the set of questions can't be read, or has nothing for these twins",
        "the message says which line and why",
        "no",
    )
    JUDGE_UNREACHABLE = (
        "JudgeUnreachable",
        "the judge's server doesn't answer, or refuses",
        "`scoring.judge`, its Secret, the server",
        "yes",
    )
    RESULTS_DIFFER = (
        "ResultsDiffer",
        "what is stored of the round is not what was reckoned from it",
        "the message; find out who writes to the ledger",
        "no",
    )
    ROUND_CRASHED = (
        "RoundCrashed",
        "the round's Job ended without saying why",
        "`kubectl logs job/ROUND`",
        "the status says",
    )
    ROUND_ERROR = (
        "RoundError",
        "the round failed for a reason that this operator doesn't know; the message begins with it",
        "what the message says",
        "the status says",
    )

    # A validator's rounds.
    ROUNDS_OFF = (
        "RoundsOff",
        "nobody makes rounds: the Validator has no `rounds`, and there is none that was made by hand",
        "set `rounds` and `rewards`, or leave it: the gateway works alone",
    )
    ROUNDS_SUSPENDED = "RoundsSuspended", "`rounds.suspend` is true: no new rounds are made", "set it to false"
    ROUND_AWAITED = "RoundAwaited", "no round has been held yet", "wait for `status.nextRoundTime`, or make one by hand"
    ROUND_NOT_CREATED = (
        "RoundNotCreated",
        "the Job that makes a ValidatorRound when one is due failed",
        "what the message says; `kubectl logs job/NAME`",
        "yes, at the next time",
    )


_BY_WORD: Final = {reason.value: reason for reason in Reason}


def reason_of(word: str) -> Reason | None:
    """Return the reason of this name, if it is one."""
    return _BY_WORD.get(word)


def reason_named(word: str) -> Reason:
    """Return the reason of this name; raises KeyError for none, which is a defect here and no one's input."""
    return _BY_WORD[word]


def from_elsewhere(
    word: str | None, message: str, *, known: Collection[Reason], otherwise: Reason
) -> tuple[Reason, str]:
    """Return what another program said as a reason and a message of ours; a word not `known` goes into the message."""
    reason = reason_of(word) if word else None
    if reason is not None and reason in known:
        return reason, message
    return otherwise, f"{word}: {message}" if word else message
