"""Deployment P-engine: vLLM behind a Unix socket and the agent beside it, or the agent alone before an endpoint.

An engine is spread over all GPUs of its pod by tensor parallelism. With `engine.group` the pod is the leader of
several: tensors are split within each node and layers between the nodes, as vLLM advises (pipeline parallelism), and
`engine_group` makes a LeaderWorkerSet of what is built here.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.lora_targets import ATTENTION_MODULES, LoraTargets
from bettertherapy_api.miner_pool import EngineTuning
from bettertherapy_api.update_strategy import UpdateStrategy
from twin_operator.domain.engine_flags import AT_HAND, SEQUENCES, is_set, stated
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.kinds.podspec.disk import ENGINE_SCRATCH, adapters_size, limit_bytes, with_disk
from twin_operator.kinds.podspec.overlay import (
    added_metadata,
    added_mounts,
    added_placement,
    added_volumes,
    with_added_env,
)
from twin_operator.kinds.podspec.parts import (
    CONTRACT,
    container_resources,
    container_security,
    empty_dir,
    env,
    gpus,
    identity_env,
    labels,
    mount,
    own_resources,
    placement,
    pod_security,
    pool_tokens_mount,
    pool_tokens_volume,
    pull_secrets,
    selector_labels,
    token_mount,
    token_volume,
)
from twin_operator.kinds.podspec.sources import (
    cache_mount,
    cache_volume,
    claim_in,
    claim_mounts,
    claim_volumes,
    claims_of,
    headers_container,
    is_in_image,
    model_container,
    model_path,
    models_volume,
    sizes_dir,
    store_credentials,
    store_secret_mount,
    store_secret_volume,
    store_uri,
)
from twin_operator.settings import Images

ENDPOINT_KEY_DIR: Final = "/etc/bettertherapy/endpoint"
ENDPOINT_KEY: Final = "apiKey"
AGENT_RESOURCES: Final[Manifest] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
WEDGED_GRACE_SECONDS: Final = 10
"""A wedged engine has nothing to finish, so it isn't given the time that a drain gets."""
DRAIN: Final = f"touch {names.ENGINE_DRAIN_FILE}; while [ ! -e {names.ENGINE_DRAINED_FILE} ]; do sleep 0.2; done"
TARGETS_FLAG: Final = "--lora-target-modules"
SPECIALIZE_FLAG: Final = "--specialize-active-lora"
_SLOTS: Final = "--max-loras="
_RANK: Final = "--max-lora-rank="
_AT_HAND: Final = f"{AT_HAND}="
_SETS_PARALLEL: Final = re.compile(r"--(tensor|pipeline|data)[-_]parallel[-_]size(=|$)")
"""Who sets one of them in engine.args knows how the model is to be split."""
SHARED_MEMORY: Final = 2
"""GiB for each GPU: through /dev/shm the processes of an engine hand on what they compute."""
LEADER_ADDRESS: Final = "LWS_LEADER_ADDRESS"
"""Variables that the LeaderWorkerSet's controller sets in the containers of a group."""
GROUP_INDEX: Final = "leaderworkerset.sigs.k8s.io/group-index"
"""Label of a group's pods."""
GROUP_VARIABLE: Final = "ENGINE_GROUP"
# Processes of one engine talk over sockets, which gloo, NCCL and vLLM's executor bind to the pod's own address unless
# told otherwise: a dozen ports that any pod could reach.
_LOOPBACK_ENV: Final = (
    ("VLLM_HOST_IP", "127.0.0.1"),
    ("GLOO_SOCKET_IFNAME", "lo"),
    ("NCCL_SOCKET_IFNAME", "lo"),
)
_CPU_ENV: Final = (
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_CPU_NUM_OF_RESERVED_CPU", "0"),
    # Without it the first fingerprint compiles for 20 s and wants gcc.
    ("TORCHDYNAMO_DISABLE", "1"),
)


def build_engine_deployment(pool: Pool, images: Images, *, tuning: EngineTuning) -> Manifest:
    """Return the Deployment. Twins are no part of it: they come and go without touching a pod.

    `tuning` is how the engine is started for its adapters (`domain.tuning`).
    """
    spec = pool.spec
    pod = _endpoint_pod(pool, images) if spec.engine.endpoint else _engine_pod(pool, images, tuning=tuning)
    default_container = {"kubectl.kubernetes.io/default-container": pod["containers"][0]["name"]}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": "Deployment",
        "metadata": {"name": names.engine_name(pool.name), "labels": labels(pool, "engine")},
        "spec": {
            "replicas": pool.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": selector_labels(pool, "engine")},
            "strategy": _strategy(spec.engine.update_strategy),
            "template": {
                "metadata": added_metadata(
                    spec.engine.pod, labels=labels(pool, "engine"), annotations={**default_container, **CONTRACT}
                ),
                "spec": with_disk(pod, pool=pool),
            },
        },
    }


def tuning_in(deployment: Manifest | None) -> EngineTuning | None:
    """Return how the engines of this Deployment are started for their adapters, or None if it doesn't say."""
    containers = deployment["spec"]["template"]["spec"]["containers"] if deployment else []
    arguments = next((each.get("args") or [] for each in containers if each["name"] == "engine"), [])

    def number(flag: str) -> str | None:
        found = [argument.removeprefix(flag) for argument in arguments if argument.startswith(flag)]
        return found[-1] if found else None

    slots = number(_SLOTS)
    try:
        return EngineTuning.model_validate(
            {
                "maxLoras": slots, "maxCpuLoras": number(_AT_HAND) or slots, "maxLoraRank": number(_RANK),
                "loraTargets": LoraTargets.ATTENTION if TARGETS_FLAG in arguments else LoraTargets.ALL_LINEAR,
                "specializeActiveLora": SPECIALIZE_FLAG in arguments,
            }
        )  # fmt: skip
    except ValidationError:  # there is no engine in it, or somebody wrote over it
        return None


def _strategy(asked: UpdateStrategy | None) -> Manifest:
    """Without a word the new pod must serve before an old one goes; where no GPU is free for it, it waits, visibly."""
    asked = asked or UpdateStrategy()
    if asked.type == "Recreate":
        return {"type": "Recreate"}
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {
            "maxUnavailable": 0 if asked.max_unavailable is None else asked.max_unavailable,
            "maxSurge": 1 if asked.max_surge is None else asked.max_surge,
        },
    }


def _pod(pool: Pool) -> Manifest:
    return {
        "serviceAccountName": names.engine_name(pool.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pool.spec.drain_seconds + 30,
        "securityContext": pod_security(),
        **placement(pool),
        **added_placement(pool.spec.engine.pod, own_pods=selector_labels(pool, "engine")),
        **pull_secrets(pool),
    }


def _engine_pod(pool: Pool, images: Images, *, tuning: EngineTuning) -> Manifest:
    init = [
        *model_container(pool, images, pool.spec.engine.pod),
        *headers_container(pool, _engine_image(pool, images), pool.spec.engine.pod),
        {**_agent_container(pool, images, tuning=tuning), "restartPolicy": "Always"},
    ]
    return {
        **_pod(pool),
        "initContainers": init,
        "containers": [_engine_container(pool, images, tuning=tuning)],
        "volumes": [
            empty_dir("tmp", size=ENGINE_SCRATCH),
            empty_dir("agent-tmp", size="256Mi"),
            empty_dir("shm", memory=True, size=f"{SHARED_MEMORY * max(1, gpus(pool))}Gi"),
            empty_dir("run", size="16Mi"),
            _adapters_volume(pool),
            models_volume(pool),
            *cache_volume(pool),
            *claim_volumes(claims_of(pool)),
            *store_secret_volume(pool),
            pool_tokens_volume(pool),
            token_volume(),
            *added_volumes(pool.spec.engine.pod),
        ],
    }


def _adapters_volume(pool: Pool) -> Manifest:
    """Return where the pod's adapters lie: on every node of a group the same."""
    group = pool.spec.engine.group
    if group is None:
        return empty_dir("adapters", size=adapters_size(pool))
    return {"name": "adapters", "persistentVolumeClaim": {"claimName": group.adapters_claim_name}}


def _adapters_mount(pool: Pool, *, read_only: bool = False) -> Manifest:
    """Return the mount of the adapters; of a claim each group has a folder of its own."""
    mounted = mount("adapters", names.ADAPTERS_DIR, read_only=read_only)
    return mounted if pool.spec.engine.group is None else {**mounted, "subPathExpr": f"{pool.name}/$({GROUP_VARIABLE})"}


def _group_env(pool: Pool) -> list[Manifest]:
    """Return the variable with the number of the pod's group, if it has one."""
    if pool.spec.engine.group is None:
        return []
    label = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{GROUP_INDEX}']"}
    return [{"name": GROUP_VARIABLE, "valueFrom": {"fieldRef": label}}]


def _network_env(pool: Pool) -> list[Manifest]:
    """Return on which address an engine's processes listen to one another: the pod's own where they are of several."""
    if pool.spec.engine.group is None:
        return [env(name, value) for name, value in _LOOPBACK_ENV]
    own = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
    return [{"name": "VLLM_HOST_IP", "valueFrom": own}]


def _endpoint_pod(pool: Pool, images: Images) -> Manifest:
    secret = pool.spec.engine.secret_ref
    key_volume = (
        [{"name": "endpoint-key", "secret": {"secretName": secret.name, "defaultMode": 0o440}}] if secret else []
    )
    return {
        **_pod(pool),
        "containers": [_agent_container(pool, images)],
        "volumes": [
            empty_dir("agent-tmp", size="256Mi"),
            empty_dir("run", size="16Mi"),
            empty_dir("adapters", size=adapters_size(pool)),
            *claim_volumes(_claims_before_endpoint(pool)),
            *store_secret_volume(pool),
            pool_tokens_volume(pool),
            token_volume(),
            *key_volume,
        ],
    }


def _claims_before_endpoint(pool: Pool) -> list[str]:
    """Return the claim of the store, where it lies on one: adapters' manifests are read there, and nothing else."""
    claim = claim_in(store_uri(pool))
    return [claim] if claim is not None else []


def _engine_container(pool: Pool, images: Images, *, tuning: EngineTuning) -> Manifest:
    engine = pool.spec.engine
    on_cpu = engine.device == "CPU"
    variables = [
        env("HOME", "/tmp"),  # noqa: S108
        env("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "true"),
        env("VLLM_NO_USAGE_STATS", "1"),
        env("HF_HUB_OFFLINE", "1"),
        *_network_env(pool),
        *_group_env(pool),
        *(env(name, value) for name, value in (_CPU_ENV if on_cpu else ())),
    ]
    return {
        "name": "engine",
        "image": _engine_image(pool, images),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": engine_arguments(pool, tuning=tuning),
        "env": with_added_env(variables, engine.pod),
        "resources": container_resources(pool, pool.spec.resources),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # The agent makes the file when requests run and nothing moves; /health answers 200 even then. A dead agent
        # makes no file, so it never takes a healthy engine with it.
        "livenessProbe": {
            "exec": {"command": ["test", "!", "-e", names.ENGINE_WEDGED_FILE]},
            "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2,
            "terminationGracePeriodSeconds": WEDGED_GRACE_SECONDS,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", DRAIN]}}},
        "volumeMounts": [
            mount("tmp", "/tmp"),  # noqa: S108
            mount("shm", "/dev/shm"),  # noqa: S108
            mount("run", names.ENGINE_RUN_DIR),
            _adapters_mount(pool, read_only=True),
            *([] if is_in_image(pool) else [mount("models", names.MODELS_DIR, read_only=True)]),
            *cache_mount(pool, read_only=True),
            *claim_mounts(claims_of(pool), [claim_in(pool.spec.base_model.uri)]),
            *added_mounts(engine.pod),
        ],
    }  # fmt: skip


def _engine_image(pool: Pool, images: Images) -> str:
    engine = pool.spec.engine
    return engine.image or (images.engine_cpu if engine.device == "CPU" else images.engine_gpu)


def engine_arguments(pool: Pool, *, tuning: EngineTuning) -> list[str]:
    """Return vLLM's arguments: the user's first, so that ours win where vLLM takes the last one."""
    spec, engine = pool.spec, pool.spec.engine
    running = stated(engine)
    return [
        *([f"{SEQUENCES}={running}"] if running is not None else []),
        *(["--dtype=bfloat16", "--enforce-eager"] if engine.device == "CPU" else []),
        *(argument.replace("$(", "$$(") for argument in engine.args or []),  # no flag comes out of a variable
        f"--model={model_path(pool)}",
        f"--served-model-name={spec.base_model.name}",
        f"--uds={names.ENGINE_SOCKET}",
        "--enable-lora",
        f"{_SLOTS}{tuning.max_loras}",
        f"{_RANK}{tuning.max_lora_rank}",
        *([] if is_set(engine, AT_HAND) else [f"{_AT_HAND}{tuning.max_cpu_loras}"]),
        *_parallelism(pool),
        *([SPECIALIZE_FLAG] if tuning.specialize_active_lora else []),
        # Its values stand for themselves, up to the next flag.
        *([TARGETS_FLAG, *ATTENTION_MODULES] if tuning.lora_targets is LoraTargets.ATTENTION else []),
        *([f"--max-model-len={engine.max_model_length}"] if engine.max_model_length else []),
        f"--shutdown-timeout={spec.drain_seconds}",
    ]


def _parallelism(pool: Pool) -> list[str]:
    """Return over how many GPUs of a node an engine is spread, and over how many nodes."""
    per_node, group = gpus(pool), pool.spec.engine.group
    found = []
    if not any(_SETS_PARALLEL.match(argument) for argument in pool.spec.engine.args or []):
        found += [f"--tensor-parallel-size={per_node}"] if per_node > 1 else []
        found += [f"--pipeline-parallel-size={group.nodes}"] if group is not None else []
    if group is not None:
        found += [f"--nnodes={group.nodes}", "--node-rank=0", f"--master-addr=$({LEADER_ADDRESS})"]
    return found


def _told_of_engine(pool: Pool, tuning: EngineTuning) -> list[Manifest]:
    """Tell the agent what the engine beside it was started for, where that is less than the pool takes."""
    engine, told = pool.spec.engine, []
    if tuning.lora_targets is LoraTargets.ATTENTION:
        told.append(env("ENGINE_LORA_TARGETS", tuning.lora_targets.value))
        told += [env("ENGINE_FOLLOWS_ADAPTERS", "true")] if engine.lora_targets == "Auto" else []
    if engine.max_lora_rank == "Auto":
        told.append(env("ENGINE_MAX_LORA_RANK", str(tuning.max_lora_rank)))
    return told


def _agent_container(pool: Pool, images: Images, *, tuning: EngineTuning | None = None) -> Manifest:
    engine = pool.spec.engine
    source = [env("POD_ADAPTERS_BYTES", str(limit_bytes(adapters_size(pool))))]
    source += _told_of_engine(pool, tuning) if tuning is not None else []
    source += [env("ENGINE_ENDPOINT", engine.endpoint)] if engine.endpoint else []
    if (store := store_uri(pool)) is not None:
        source.append(env("STORE_URI", store))
    if pool.spec.miner.images:
        source.append(env("IMAGES", "true"))
    key_mount: list[Manifest] = []
    model_mounts: list[Manifest] = []
    claims = [claim_in(store_uri(pool))]
    of_pod = _claims_before_endpoint(pool) if engine.endpoint else claims_of(pool)
    if not engine.endpoint and (sizes := sizes_dir(pool)) is not None:
        # Only headers are read: an adapter of another model is refused before it is loaded.
        source.append(env("BASE_MODEL_DIR", sizes))
        model_mounts = [mount("models", names.MODELS_DIR, read_only=True), *cache_mount(pool, read_only=True)]
        claims.append(claim_in(pool.spec.base_model.uri))
    if engine.secret_ref is not None:
        source.append(env("ENGINE_ENDPOINT_KEY_FILE", f"{ENDPOINT_KEY_DIR}/{ENDPOINT_KEY}"))
        key_mount.append(mount("endpoint-key", ENDPOINT_KEY_DIR, read_only=True))
    return {
        "name": "agent",
        "image": pool.spec.miner.image or images.neuron,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "neurons.agent"],
        "env": [*identity_env(pool), *_group_env(pool), env("DRAIN_SECONDS", str(pool.spec.drain_seconds)), *source],
        **store_credentials(pool),
        "ports": [
            {"name": "agent", "containerPort": names.AGENT_PORT, "protocol": "TCP"},
            {"name": names.METRICS_PORT_NAME, "containerPort": names.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": own_resources(pool.spec.agent.resources if pool.spec.agent else None, AGENT_RESOURCES),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": names.AGENT_PORT},
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": names.AGENT_PORT},
            "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "volumeMounts": [
            mount("agent-tmp", "/tmp"),  # noqa: S108
            mount("run", names.ENGINE_RUN_DIR),
            _adapters_mount(pool),
            *model_mounts,
            *claim_mounts(of_pod, claims),
            *store_secret_mount(pool),
            pool_tokens_mount(),
            token_mount(),
            *key_mount,
        ],
    }  # fmt: skip
