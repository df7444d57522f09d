"""Job R: the trainer, on the pool's nodes, with the pool's base model and store."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate, Hyperparameters
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.versions import kept_digests, uri_of
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.finetune_run.facts import KILLED, PROMPT_KEY
from twin_operator.kinds.finetune_run.labels import labels
from twin_operator.kinds.podspec.overlay import (
    added_metadata,
    added_mounts,
    added_placement,
    added_volumes,
    with_added_env,
)
from twin_operator.kinds.podspec.parts import (
    container_resources,
    container_security,
    empty_dir,
    env,
    mount,
    placement,
    pod_security,
    pull_secrets,
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
    model_container,
    model_path,
    store_credentials,
    store_secret_mount,
    store_secret_volume,
    store_uri,
)
from twin_operator.settings import Images

TRY_AGAIN: Final = 75
"""The trainer's exit status for what may pass."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONFIG_DIR: Final = "/etc/bettertherapy/run"
MIN_INTERACTIONS: Final = 20
RANK: Final = 16
"""The trainer's own choice for an adapter without a parent."""
MAX_TOKENS: Final = 1024
"""Where the trainer cuts a conversation; no engine takes more than its own longest sequence."""
_TRAINERS: Final = {names.LABEL_COMPONENT: "trainer", names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
_GRACE_SECONDS: Final = 60
"""Time to write a checkpoint when the pod is taken away."""


def build_trainer_job(run: Run, twin: Twin, pool: Pool, images: Images, *, prompt: bool) -> Manifest:
    """Return the Job. It never changes: what the twin and the pool asked for when it began is what it does."""
    spec = run.spec
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": run.name,
            "labels": {**labels(run, "trainer"), **({QUEUE_LABEL: spec.queue_name} if spec.queue_name else {})},
        },
        "spec": {
            "backoffLimit": spec.retries,
            "activeDeadlineSeconds": spec.deadline_seconds,
            # Two trainers of one run would write the same checkpoints.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _failure_policy(),
            # Kueue starts it when its queue has room.
            **({"suspend": True} if spec.queue_name else {}),
            "template": {
                "metadata": added_metadata(pool.fine_tune.pod, labels=labels(run, "trainer"), annotations={}),
                "spec": _pod(run, twin, pool, images, prompt=prompt),
            },
        },
    }


def _failure_policy() -> Manifest:
    """Try again what may pass, as often as the run says; a limit of memory that was hit is no such thing, but ends with
    the same status as a kill, and so is told apart by the run's plan."""

    def codes(operator: str, values: list[int]) -> Manifest:
        return {"containerName": "trainer", "operator": operator, "values": values}

    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Count", "onExitCodes": codes("In", [TRY_AGAIN, *KILLED])},
            {"action": "FailJob", "onExitCodes": codes("NotIn", [0, TRY_AGAIN, *KILLED])},
        ]
    }


def _pod(run: Run, twin: Twin, pool: Pool, images: Images, *, prompt: bool) -> Manifest:
    gate = twin.spec.gate or Gate()
    store = claim_in(store_uri(pool))
    others = [
        claim_in(run.spec.dataset.uri),
        claim_in(gate.eval_set_ref.uri) if gate.eval_set_ref else None,
        claim_in(_parent_uri(run, twin, pool)),
        claim_in(_anchor_uri(run, twin, pool)),
    ]
    claims = claims_of(pool, others)
    wanted = [claim_in(pool.spec.base_model.uri), store, *others]
    overlay = pool.fine_tune.pod
    in_image = model_path(pool) != f"{names.MODELS_DIR}/current"
    return {
        "restartPolicy": "Never",
        "serviceAccountName": names.trainer_name(run.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": pod_security(),
        **({"priorityClassName": run.spec.priority_class_name} if run.spec.priority_class_name else {}),
        **placement(pool),
        **added_placement(overlay, own_pods=_TRAINERS),
        **pull_secrets(pool),
        "initContainers": model_container(pool, images, overlay),
        "containers": [
            {
                "name": "trainer",
                "image": run.spec.image or pool.fine_tune.image or _image(pool, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.trainer", "run"],
                "args": trainer_arguments(run, twin, pool, prompt=prompt),
                "env": with_added_env(_environment(run), overlay),
                **store_credentials(pool),
                "resources": container_resources(
                    pool, run.spec.resources or pool.fine_tune.resources or pool.spec.resources
                ),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("shm", "/dev/shm"),  # noqa: S108
                    *([] if in_image else [mount("models", names.MODELS_DIR, read_only=True)]),
                    *([mount("config", CONFIG_DIR, read_only=True)] if prompt else []),
                    *cache_mount(pool, read_only=True),
                    *claim_mounts(claims, wanted, writable=store),
                    *store_secret_mount(pool),
                    token_mount(),
                    *added_mounts(overlay),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp"),
            empty_dir("shm", memory=True, size="2Gi"),
            empty_dir("models"),
            *([_prompt_volume(run)] if prompt else []),
            *cache_volume(pool),
            *claim_volumes(claims, writable=store),
            *store_secret_volume(pool),
            token_volume(),
            *added_volumes(overlay),
        ],
    }


def _image(pool: Pool, images: Images) -> str:
    """Return the trainer for the pool's device: torch of the other image would train on the CPU, beside an idle GPU."""
    return images.trainer_cpu if pool.spec.engine.device == "CPU" else images.trainer_gpu


def _prompt_volume(run: Run) -> Manifest:
    """The prompt alone. Not optional: without it the trainer would teach another way to answer than what serves."""
    items = [{"key": PROMPT_KEY, "path": PROMPT_KEY}]
    return {"name": "config", "configMap": {"name": progress_name(run.name), "items": items}}


def _environment(run: Run) -> list[Manifest]:
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    return [
        env("HOME", "/tmp"),  # noqa: S108
        env("HF_HUB_OFFLINE", "1"),
        env("PROGRESS_CONFIGMAP", progress_name(run.name)),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def trainer_arguments(run: Run, twin: Twin, pool: Pool, *, prompt: bool) -> list[str]:
    """Return the trainer's arguments; values that nobody set are left to the trainer."""
    spec, base, gate = run.spec, pool.spec.base_model, twin.spec.gate or Gate()
    scheduled = twin.spec.fine_tune.min_interactions if twin.spec.fine_tune else MIN_INTERACTIONS
    arguments: list[tuple[str, object]] = [
        ("run", run.name),
        ("twin", twin.name),
        ("store", store_uri(pool)),
        ("base-model", model_path(pool)),
        ("base-model-name", base.name),
        ("base-model-revision", base.revision),
        ("parent-uri", _parent_uri(run, twin, pool)),
        ("parent-digest", spec.parent_digest),
        ("anchor", None if spec.anchor is None else spec.anchor.digest or "base"),
        ("anchor-uri", _anchor_uri(run, twin, pool)),
        ("dataset-uri", spec.dataset.uri),
        ("dataset-digest", spec.dataset.digest),
        # Who names one exact dataset wants it trained on, however small.
        ("min-interactions", 1 if spec.dataset.digest else scheduled),
        ("eval-uri", gate.eval_set_ref.uri if gate.eval_set_ref else None),
        ("eval-digest", gate.eval_set_ref.digest if gate.eval_set_ref else None),
        ("min-score-percent", gate.min_score_percent),
        ("min-safety-percent", gate.min_safety_percent),
        *(("category-floor", f"{name}={floor}") for name, floor in sorted((gate.category_floors or {}).items())),
        ("margin-percent", gate.margin_percent),
        ("min-samples", gate.min_samples),
        ("system-prompt-file", f"{CONFIG_DIR}/{PROMPT_KEY}" if prompt else None),
        *_hyperparameters(spec.hyperparameters or Hyperparameters(), first_rank=_first_rank(run, pool)),
        ("max-tokens", min(MAX_TOKENS, pool.spec.engine.max_model_length or MAX_TOKENS)),
        ("seed", spec.seed),
        *(("keep", digest) for digest in kept_digests(twin)),
        ("history-limit", twin.spec.history_limit),
    ]
    return [f"--{name}={value}" for name, value in arguments if value is not None]


def _first_rank(run: Run, pool: Pool) -> int | None:
    """Return the rank of an adapter without a parent where the engines would refuse the trainer's own; else None."""
    limit = pool.spec.engine.max_lora_rank
    return limit if run.spec.parent_digest is None and limit < RANK else None


def _hyperparameters(given: Hyperparameters, *, first_rank: int | None) -> list[tuple[str, object]]:
    return [
        ("rank", given.rank or first_rank),
        ("alpha", given.alpha),
        ("learning-rate", given.learning_rate),
        ("epochs", given.epochs),
        ("steps", given.max_steps),
        ("batch-size", given.batch_size),
    ]


def _parent_uri(run: Run, twin: Twin, pool: Pool) -> str | None:
    if run.spec.parent_digest is None:
        return None
    return uri_of(twin, run.spec.parent_digest, store=store_uri(pool) or "")


def _anchor_uri(run: Run, twin: Twin, pool: Pool) -> str | None:
    anchor = run.spec.anchor
    if anchor is None or anchor.digest is None:
        return None
    return uri_of(twin, anchor.digest, store=store_uri(pool) or "")
