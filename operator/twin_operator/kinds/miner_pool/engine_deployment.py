"""Deployment P-engine: vLLM behind a Unix socket and the agent beside it, or the agent alone before an endpoint."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from twin_operator.engine.resources import DEPLOYMENT, Manifest
from twin_operator.kinds.miner_pool.pod_parts import (
    container_security,
    empty_dir,
    env,
    identity_env,
    labels,
    mount,
    pod_security,
    pull_secrets,
    selector_labels,
    token_mount,
    token_volume,
)
from twin_operator.kinds.specs import Pool
from twin_operator.settings import Images

CURRENT_MODEL: Final = f"{names.MODELS_DIR}/current"
CACHE_DIR: Final = "/cache"
ENDPOINT_KEY_DIR: Final = "/etc/bettertherapy/endpoint"
ENDPOINT_KEY: Final = "apiKey"
GPU: Final = "nvidia.com/gpu"
WEDGED_GRACE_SECONDS: Final = 10
"""A wedged engine has nothing to finish, so it isn't given the time that a drain gets."""
DRAIN: Final = f"touch {names.ENGINE_DRAIN_FILE}; while [ ! -e {names.ENGINE_DRAINED_FILE} ]; do sleep 0.2; done"
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


def build_engine_deployment(pool: Pool, images: Images) -> Manifest:
    """Return the Deployment. Twins are no part of it: they come and go without touching a pod."""
    spec = pool.spec
    pod = _endpoint_pod(pool, images) if spec.engine.endpoint else _engine_pod(pool, images)
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": "Deployment",
        "metadata": {"name": names.engine_name(pool.name), "labels": labels(pool, "engine")},
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": selector_labels(pool, "engine")},
            # The new pod must serve before an old one goes; on a cluster without a spare GPU it waits, visibly.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": labels(pool, "engine"),
                    "annotations": {"kubectl.kubernetes.io/default-container": pod["containers"][0]["name"]},
                },
                "spec": pod,
            },
        },
    }


def _pod(pool: Pool) -> Manifest:
    spec = pool.spec
    return {
        "serviceAccountName": names.engine_name(pool.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.drain_seconds + 30,
        "securityContext": pod_security(),
        **({"runtimeClassName": spec.runtime_class_name} if spec.runtime_class_name else {}),
        **({"nodeSelector": dict(spec.node_selector)} if spec.node_selector else {}),
        **(
            {"tolerations": [item.model_dump(by_alias=True, exclude_none=True) for item in spec.tolerations]}
            if spec.tolerations
            else {}
        ),
        **pull_secrets(pool),
    }


def _engine_pod(pool: Pool, images: Images) -> Manifest:
    init = [*_model_container(pool, images), {**_agent_container(pool, images), "restartPolicy": "Always"}]
    return {
        **_pod(pool),
        "initContainers": init,
        "containers": [_engine_container(pool, images)],
        "volumes": [
            empty_dir("tmp"),
            empty_dir("agent-tmp", size="256Mi"),
            empty_dir("shm", memory=True, size="2Gi"),
            empty_dir("run", size="16Mi"),
            empty_dir("adapters"),
            empty_dir("models"),
            *_cache_volume(pool),
            *_claim_volumes(pool),
            token_volume(),
        ],
    }


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
            empty_dir("adapters"),
            token_volume(),
            *key_volume,
        ],
    }


def _engine_container(pool: Pool, images: Images) -> Manifest:
    engine = pool.spec.engine
    on_cpu = engine.device == "CPU"
    variables = [
        env("HOME", "/tmp"),  # noqa: S108
        env("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "true"),
        env("VLLM_NO_USAGE_STATS", "1"),
        env("HF_HUB_OFFLINE", "1"),
        *(env(name, value) for name, value in _LOOPBACK_ENV),
        *(env(name, value) for name, value in (_CPU_ENV if on_cpu else ())),
    ]
    return {
        "name": "engine",
        "image": engine.image or (images.engine_cpu if on_cpu else images.engine_gpu),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": engine_arguments(pool),
        "env": variables,
        "resources": engine_resources(pool),
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
            mount("adapters", names.ADAPTERS_DIR, read_only=True),
            mount("models", names.MODELS_DIR, read_only=True),
            *_cache_mount(pool, read_only=True),
            *_claim_mounts(pool, _claim(pool.spec.base_model.uri)),
        ],
    }  # fmt: skip


def engine_arguments(pool: Pool) -> list[str]:
    """Return vLLM's arguments: the user's first, so that ours win where vLLM takes the last one."""
    spec, engine = pool.spec, pool.spec.engine
    return [
        *(["--dtype=bfloat16", "--enforce-eager"] if engine.device == "CPU" else []),
        *(engine.args or []),
        f"--model={model_path(pool)}",
        f"--served-model-name={spec.base_model.name}",
        f"--uds={names.ENGINE_SOCKET}",
        "--enable-lora",
        f"--max-loras={pool.max_loras}",
        f"--max-lora-rank={engine.max_lora_rank}",
        *([f"--max-model-len={engine.max_model_length}"] if engine.max_model_length else []),
        f"--shutdown-timeout={spec.drain_seconds}",
    ]


def engine_resources(pool: Pool) -> Manifest:
    """Return the engine's resources; an extended resource must have equal requests and limits, so one of them does."""
    given = pool.spec.resources
    if given is None:
        if pool.spec.engine.device == "GPU":
            return {"requests": {GPU: 1}, "limits": {GPU: 1}}
        return {"requests": {"cpu": "2", "memory": "6Gi"}, "limits": {"memory": "6Gi"}}
    requests, limits = dict(given.requests or {}), dict(given.limits or {})
    for name in {*requests, *limits}:
        if "/" in name:
            requests.setdefault(name, limits.get(name, 0))
            limits.setdefault(name, requests[name])
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}


def model_path(pool: Pool) -> str:
    """Return where the engine finds the base model; a file:// model is in the engine's image and used in place."""
    uri = pool.spec.base_model.uri or ""
    return uri.removeprefix("file://") if uri.startswith("file://") else CURRENT_MODEL


def _model_container(pool: Pool, images: Images) -> list[Manifest]:
    """Return the init container that fetches and verifies the base model, unless it is in the engine's image."""
    base = pool.spec.base_model
    if base.uri is None or base.uri.startswith("file://"):
        return []
    return [
        {
            "name": "model",
            "image": pool.spec.miner.image or images.neuron,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-m", "neurons.models"],
            "args": [
                "fetch",
                f"--uri={base.uri}",
                f"--name={base.name}",
                *([f"--revision={base.revision}"] if base.revision else []),
                f"--dest={names.MODELS_DIR}",
                *([f"--cache={CACHE_DIR}"] if pool.spec.cache and _cache_volume(pool) else []),
            ],
            "env": [env("HOME", "/tmp")],  # noqa: S108
            **_store_credentials(pool),
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
            "securityContext": container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                mount("tmp", "/tmp"),  # noqa: S108
                mount("models", names.MODELS_DIR),
                *_cache_mount(pool, read_only=False),
                *_claim_mounts(pool, _claim(base.uri)),
            ],
        }
    ]


def _agent_container(pool: Pool, images: Images) -> Manifest:
    engine = pool.spec.engine
    source = [env("ENGINE_ENDPOINT", engine.endpoint)] if engine.endpoint else []
    key_mount: list[Manifest] = []
    if engine.secret_ref is not None:
        source.append(env("ENGINE_ENDPOINT_KEY_FILE", f"{ENDPOINT_KEY_DIR}/{ENDPOINT_KEY}"))
        key_mount.append(mount("endpoint-key", ENDPOINT_KEY_DIR, read_only=True))
    return {
        "name": "agent",
        "image": pool.spec.miner.image or images.neuron,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "neurons.agent"],
        "env": [*identity_env(pool), env("DRAIN_SECONDS", str(pool.spec.drain_seconds)), *source],
        **_store_credentials(pool),
        "ports": [{"name": "agent", "containerPort": names.AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
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
            mount("adapters", names.ADAPTERS_DIR),
            *([] if engine.endpoint else _claim_mounts(pool, _claim(_store_uri(pool)))),
            token_mount(),
            *key_mount,
        ],
    }  # fmt: skip


def _store_uri(pool: Pool) -> str | None:
    return pool.spec.store.uri if pool.spec.store else None


def _store_credentials(pool: Pool) -> Manifest:
    store = pool.spec.store
    if store is None or store.secret_ref is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": store.secret_ref.name}}]}


def _claim(uri: str | None) -> str | None:
    """Return the claim that a pvc:// URI names."""
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri and uri.startswith("pvc://") else None


def _claims(pool: Pool) -> list[str]:
    claims = (_claim(pool.spec.base_model.uri), _claim(_store_uri(pool)))
    return list(dict.fromkeys(claim for claim in claims if claim))


def _claim_volumes(pool: Pool) -> list[Manifest]:
    return [
        {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for index, claim in enumerate(_claims(pool))
    ]


def _claim_mounts(pool: Pool, claim: str | None) -> list[Manifest]:
    if claim is None:
        return []
    return [mount(f"claim-{_claims(pool).index(claim)}", f"{names.PVC_DIR}/{claim}", read_only=True)]


def _cache_volume(pool: Pool) -> list[Manifest]:
    cache, uri = pool.spec.cache, pool.spec.base_model.uri
    if cache is None or uri is None or uri.startswith("file://"):
        return []
    if cache.claim_name:
        return [{"name": "cache", "persistentVolumeClaim": {"claimName": cache.claim_name}}]
    if cache.host_path:
        return [{"name": "cache", "hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}]
    return [empty_dir("cache", size=cache.size_limit)]


def _cache_mount(pool: Pool, *, read_only: bool) -> list[Manifest]:
    return [mount("cache", CACHE_DIR, read_only=read_only)] if _cache_volume(pool) else []
