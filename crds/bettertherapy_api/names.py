"""Every name that two processes must agree on: labels, child objects, ports, paths inside pods."""

from __future__ import annotations

import hashlib
import re
from typing import Final

GROUP: Final = "bettertherapy.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "twin-operator"
UNTRACKED: Final[list[dict[str, str]]] = [{}]
"""As metadata.managedFields of a patch: the API server stops noting who wrote which field. Of objects with a thousand
parts, each of which only one identity writes, the notes are half of every event and most of every write's work."""

LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_COMPONENT: Final = f"{GROUP}/component"
"""engine, miner, routing, report, miner-report, gateway-report, trainer, progress, examiner, examination, gateway,
ledger, datasets, rounds, round, round-weights or round-recompute."""
LABEL_RUN: Final = f"{GROUP}/run"
LABEL_VALIDATOR: Final = f"{GROUP}/validator"
LABEL_ROUND: Final = f"{GROUP}/round"
LABEL_TWIN: Final = f"{GROUP}/twin"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

CONTRACT_ANNOTATION: Final = f"{GROUP}/contract"
"""On pods of engines and miners: the form in which they are told what to hold and where to send."""
CONTRACT: Final = "slices"

APPROVE_ANNOTATION: Final = f"{GROUP}/approve"
"""On a DoctorTwin: digest of the pending version that the doctor lets answer."""
REJECT_ANNOTATION: Final = f"{GROUP}/reject"
"""On a DoctorTwin: digest of the pending version that the doctor refuses."""
REJECT_REASON_ANNOTATION: Final = f"{GROUP}/reject-reason"
"""On a DoctorTwin, beside the one before: why, in the doctor's words; kept in status.refusedVersions."""
ROLLBACK_ANNOTATION: Final = f"{GROUP}/rollback-to"
"""On a DoctorTwin: digest of the version to go back to, or `base`; `@` and any token ask for the same once more."""
FINETUNE_NOW_ANNOTATION: Final = f"{GROUP}/finetune-now"
"""On a DoctorTwin: any token; each new one makes one run, of the name `asked_run_name`."""
RECOMPUTE_ANNOTATION: Final = f"{GROUP}/recompute"
"""On a ValidatorRound: any token; for each new one the scores are reckoned once more from the stored answers."""
TOKEN_LENGTH: Final = 128
"""So much of an annotation's value counts."""

AGENT_PORT: Final = 8080
MINER_PORT: Final = 8080
MINER_SERVICE_PORT: Final = 80
ACCESS_CLIENT: Final = "default"
"""The client of a miner whose token the operator makes; others are further keys of the Secret."""
METRICS_PORT: Final = 8081
"""Of miners and agents: `/metrics` and nothing else, for those whom the pool names."""
METRICS_PORT_NAME: Final = "metrics"
GATEWAY_PORT: Final = 8090
GATEWAY_SERVICE_PORT: Final = 80
GATEWAY_METRICS_PORT: Final = 8091
GATEWAY_METRICS_PORT_NAME: Final = "metrics"

ENGINE_RUN_DIR: Final = "/run/engine"
ENGINE_SOCKET: Final = "/run/engine/vllm.sock"
ENGINE_WEDGED_FILE: Final = "/run/engine/wedged"
ENGINE_DRAIN_FILE: Final = "/run/engine/drain"
ENGINE_DRAINED_FILE: Final = "/run/engine/drained"
ADAPTERS_DIR: Final = "/adapters"
MODELS_DIR: Final = "/models"
PVC_DIR: Final = "/mnt/pvc"
ACCESS_DIR: Final = "/etc/bettertherapy/access"
POOL_TOKENS_DIR: Final = "/etc/bettertherapy/pool-tokens"  # a path
POOL_TOKENS_VOLUME: Final = "pool-tokens"  # a name
POOL_TOKEN_HEADER: Final = "x-bettertherapy-pool-token"  # noqa: S105  # a header's name
"""By which an agent knows a miner of its pool."""
STORE_SECRET_DIR: Final = "/etc/bettertherapy/store"  # noqa: S105  # a path
WALLET_DIR: Final = "/etc/bettertherapy/wallet"
JUDGE_DIR: Final = "/etc/bettertherapy/judge"
KEYS_DIR: Final = "/etc/bettertherapy/keys"
KEYS_FILE: Final = "keys.json"
KEY_ITEM: Final = "key"
"""Beside that file in the Secret that the operator makes: the one key itself, for a person; no pod is given it."""
OPERATOR_KEY_ITEM: Final = "operator-key"
"""Likewise, of the role that sees miners and rounds."""
TWINS_DIR: Final = "/etc/bettertherapy/twins"
TWINS_FILE: Final = "twins.json"
SESSIONS_DIR: Final = "/etc/bettertherapy/sessions"
SESSIONS_FILE: Final = "secret"
STATE_DIR: Final = "/var/lib/bettertherapy"

RETRY_HEADER: Final = "x-twin-retry"  # on a 421 or 503 that was answered before anything reached the engine
ADAPTER_DIGEST_HEADER: Final = "x-twin-adapter-digest"
SERVED_NAME_HEADER: Final = "x-twin-served-name"
POD_HEADER: Final = "x-twin-pod"
TWIN_HEADER: Final = "x-twin-name"  # of a miner's question: whose it is, where several twins are one model to a pod
RECEIPT_HEADER: Final = "x-bettertherapy-receipt"
CANDIDATES_HEADER: Final = "x-twin-candidates"
"""How many answers were drawn, of which this one was chosen; absent where the first one drawn is given."""
CACHED_HEADER: Final = "x-twin-cached"
"""On an answer that was given before: how many seconds ago."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RUN_NAME_LENGTH = 63


def engine_name(pool: str) -> str:
    """Return the name of the pool's engine Deployment, ServiceAccount and Role."""
    return f"{pool}-engine"


def miner_name(pool: str) -> str:
    """Return the name of the pool's miner Deployment, Service, ServiceAccount and Role."""
    return f"{pool}-miner"


def routing_slice_name(pool: str, number: int) -> str:
    """Return the name of one RoutingSlice with twins; number 0 exists as long as the pool."""
    return f"{pool}-routing-{number}"


def pods_slice_name(pool: str) -> str:
    """Return the name of the RoutingSlice that says where the pool's engine pods are."""
    return f"{pool}-routing-pods"


def prompts_slice_name(pool: str, number: int) -> str:
    """Return the name of one RoutingSlice with system prompts."""
    return f"{pool}-routing-prompts-{number}"


def prompt_digest(text: str) -> str:
    """Return `sha256:` and the hex digest of a system prompt's UTF-8 bytes; raises ValueError for lone surrogates."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def trainer_name(run: str) -> str:
    """Return the name of the ServiceAccount and Role of the run's trainer; its Job is named as the run."""
    return f"{run}-trainer"


def examiner_name(run: str) -> str:
    """Return the name of the run's examiner: its Job, its ServiceAccount and its Role; long names of runs are cut."""
    return run_name(run, "examiner")


def run_name(twin: str, suffix: str) -> str:
    """Return the name of the twin's run for an occasion; long names of twins are cut and told apart by a hash."""
    name = f"{twin}-{suffix}"
    if len(name) <= _RUN_NAME_LENGTH:
        return name
    digest = hashlib.sha256(twin.encode()).hexdigest()[:6]
    return f"{twin[: _RUN_NAME_LENGTH - len(suffix) - 8]}-{digest}-{suffix}"


def asked_run_name(twin: str, token: str) -> str:
    """Return the name of the run that is made for this value of the annotation `finetune-now`."""
    return run_name(twin, f"now-{hashlib.sha256(token[:TOKEN_LENGTH].encode()).hexdigest()[:10]}")


def interactions_uri(store: str, twin: str) -> str:
    """Return the folder in a store where a twin's interactions are collected, as *.jsonl.

    Not `datasets`, where the trainer keeps what it trained on: a line that was taken back would come again from there.
    """
    return f"{store.rstrip('/')}/{twin}/interactions"


def pool_tokens_secret_name(pool: str) -> str:
    """Return the name of the Secret by which the pool's miners are known to its agents."""
    return f"{pool}-pool-tokens"


def access_secret_name(pool: str) -> str:
    """Return the default name of the Secret that holds the miner's bearer tokens."""
    return f"{pool}-access"


def gateway_name(validator: str) -> str:
    """Return the name of the validator's gateway Deployment, Service and ServiceAccount."""
    return f"{validator}-gateway"


def gateway_twins_name(validator: str) -> str:
    """Return the name of the ConfigMap that says which twins the gateway answers for, and by which weights."""
    return f"{validator}-gateway-twins"


def gateway_keys_name(validator: str) -> str:
    """Return the default name of the Secret with the clients' API keys, as hashes."""
    return f"{validator}-gateway-keys"


def gateway_sessions_name(validator: str) -> str:
    """Return the name of the Secret that session ids and patients' pseudonyms are made with."""
    return f"{validator}-gateway-sessions"


def gateway_state_name(validator: str) -> str:
    """Return the name of the claim that holds an embedded ledger."""
    return f"{validator}-gateway-state"


def datasets_name(validator: str) -> str:
    """Return the name of the CronJob that brings conversations to where fine-tunes read them, and of its account."""
    return f"{validator}-datasets"


def rounds_name(validator: str) -> str:
    """Return the name of the CronJob that makes the validator's ValidatorRounds, and of its account and Role."""
    return f"{validator}-rounds"


def round_account_name(name: str) -> str:
    """Return the name of the ServiceAccount and Role of a round's pods."""
    return f"{name}-round"


def round_weights_name(name: str) -> str:
    """Return the name of the Job that sets a round's weights; the one that asks and scores is named as the round."""
    return f"{name}-weights"


def round_recompute_name(name: str, token: str) -> str:
    """Return the name of the Job that reckons a round's scores once more, for this value of the annotation."""
    return f"{name}-{hashlib.sha256(token[:TOKEN_LENGTH].encode()).hexdigest()[:8]}"


def network_of(network: str, namespace: str) -> str:
    """Return the chain's name or URL as a process takes it.

    `local` in an object is the Service that the chart local-subnet makes in its namespace; to the SDK it is another.
    """
    return f"http://subnet.{namespace}.svc:9944" if network == "local" else network


def is_digest(value: str) -> bool:
    """Tell whether `value` is `sha256:` and 64 lower-case hex digits."""
    return _DIGEST.fullmatch(value) is not None


def digest_hex(digest: str) -> str:
    """Return the 64 hex digits of a digest; raises ValueError for anything else."""
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is not a digest: expected sha256: and 64 lower-case hex digits")
    return digest.removeprefix("sha256:")


def served_name(twin: str, digest: str) -> str:
    """Return the name under which vLLM serves this version: `<twin>-<first 8 hex digits>`.

    The name is derived from the content, so a name can never be reused for other bytes: vLLM answers 400 to a
    second load under a known name and keeps the old weights.
    """
    return f"{twin}-{digest_hex(digest)[:8]}"


def adapter_path(twin: str, digest: str) -> str:
    """Return the folder of the adapter inside an engine pod; unique per content, and vLLM's `root` for it."""
    return f"{ADAPTERS_DIR}/{twin}/{digest_hex(digest)}"
