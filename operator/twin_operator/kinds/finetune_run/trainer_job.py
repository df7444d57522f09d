"""Job R: the trainer, on the pool's nodes, with the pool's base model and store; other runs may come along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate, Hyperparameters
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.versions import kept_digests, uri_of
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.finetune_run.job_parts import (
    CONFIG_DIR,
    GRACE_SECONDS,
    QUEUE_LABEL,
    Task,
    environment,
    failure_policy,
    is_file,
    job_arguments,
    prompt_volume,
    standard_image,
)
from twin_operator.kinds.finetune_run.labels import labels
from twin_operator.kinds.podspec.disk import JOB_SCRATCH, with_disk
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
    mount,
    placement,
    pod_security,
    pull_secrets,
    token_mount,
    token_volume,
)
from twin_operator.kinds.podspec.sources import (
    Place,
    cache_mount,
    cache_volume,
    claim_in,
    claim_volumes,
    claims_of,
    model_container,
    model_path,
    models_volume,
    place_mounts,
    place_of_file,
    place_of_folder,
    store_credentials,
    store_secret_mount,
    store_secret_volume,
    store_uri,
)
from twin_operator.settings import Images

MIN_INTERACTIONS: Final = 20
RANK: Final = 16
"""The trainer's own choice for an adapter without a parent."""
MAX_TOKENS: Final = 1024
"""Where the trainer cuts a conversation; no engine takes more than its own longest sequence."""
MLFLOW_CREDENTIALS: Final = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_TRAINERS: Final = {names.LABEL_COMPONENT: "trainer", names.LABEL_MANAGED_BY: names.FIELD_MANAGER}


def build_trainer_job(
    run: Run, twin: Twin, pool: Pool, images: Images, *, prompt: bool, along: Sequence[Task] = ()
) -> Manifest:
    """Return the Job, which trains the runs that come along too. It never changes: what twins and pool asked for when
    it began is what it does."""
    spec, tasks = run.spec, [Task(run=run, twin=twin, prompt=prompt), *along]
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": run.name,
            "labels": {**labels(run, "trainer"), **({QUEUE_LABEL: spec.queue_name} if spec.queue_name else {})},
        },
        "spec": {
            "backoffLimit": spec.retries,
            "activeDeadlineSeconds": len(tasks) * spec.deadline_seconds,
            # Two trainers of one run would write the same checkpoints.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy("trainer"),
            # Kueue starts it when its queue has room.
            **({"suspend": True} if spec.queue_name else {}),
            "template": {
                "metadata": added_metadata(pool.fine_tune.pod, labels=labels(run, "trainer"), annotations={}),
                "spec": with_disk(_pod(run, tasks, pool, images), pool=pool),
            },
        },
    }


def _places(task: Task, pool: Pool) -> list[Place | None]:
    """Return its twin's folder, and of the claim that it shares with other twins nothing else but what it must read."""
    run, twin = task.run, task.twin
    gate, dataset = twin.spec.gate or Gate(), run.spec.dataset
    return [
        place_of_folder(f"{(store_uri(pool) or '').rstrip('/')}/{twin.name}", writable=True),
        place_of_folder(parent_uri(run, twin, pool)),
        place_of_file(gate.eval_set_ref.uri) if gate.eval_set_ref else None,
        place_of_file(dataset.uri) if is_file(dataset.uri, dataset.digest) else place_of_folder(dataset.uri),
    ]


def _pod(run: Run, tasks: Sequence[Task], pool: Pool, images: Images) -> Manifest:
    store = claim_in(store_uri(pool))
    places = [
        place_of_folder(pool.spec.base_model.uri), *(place for task in tasks for place in _places(task, pool)),
    ]  # fmt: skip
    claims = claims_of(pool, [place.claim for place in places if place is not None])
    prompts = prompt_volume(tasks, configmap=progress_name)
    overlay = pool.fine_tune.pod
    in_image = model_path(pool) != f"{names.MODELS_DIR}/current"
    return {
        "restartPolicy": "Never",
        "serviceAccountName": names.trainer_name(run.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **({"priorityClassName": run.spec.priority_class_name} if run.spec.priority_class_name else {}),
        **placement(pool),
        **added_placement(overlay, own_pods=_TRAINERS),
        **pull_secrets(pool),
        "initContainers": model_container(pool, images, overlay),
        "containers": [
            {
                "name": "trainer",
                "image": run.spec.image or pool.fine_tune.image or standard_image(pool, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.trainer", "run"],
                "args": job_arguments(
                    tasks,
                    lambda task, prompt: trainer_arguments(task.run, task.twin, pool, prompt=prompt),
                    configmap=progress_name,
                ),
                "env": with_added_env(
                    [
                        *environment(None if len(tasks) > 1 else progress_name(run.name)),
                        *_tracking_credentials(pool),
                    ],
                    overlay,
                ),
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
                    *([mount("config", CONFIG_DIR, read_only=True)] if prompts else []),
                    *cache_mount(pool, read_only=True),
                    *place_mounts(claims, places, shared=store),
                    *store_secret_mount(pool),
                    token_mount(),
                    *added_mounts(overlay),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size=JOB_SCRATCH),
            empty_dir("shm", memory=True, size="2Gi"),
            models_volume(pool),
            *prompts,
            *cache_volume(pool),
            *claim_volumes(claims, writable=store),
            *store_secret_volume(pool),
            token_volume(),
            *added_volumes(overlay),
        ],
    }


def trainer_arguments(run: Run, twin: Twin, pool: Pool, *, prompt: str | None) -> list[str]:
    """Return the trainer's arguments for one run, `prompt` the file with the twin's system prompt; values that nobody
    set are left to the trainer."""
    spec, base, gate = run.spec, pool.spec.base_model, twin.spec.gate or Gate()
    scheduled = twin.spec.fine_tune.min_interactions if twin.spec.fine_tune else MIN_INTERACTIONS
    arguments: list[tuple[str, object]] = [
        ("run", run.name),
        ("twin", twin.name),
        ("store", store_uri(pool)),
        ("base-model", model_path(pool)),
        ("base-model-name", base.name),
        ("base-model-revision", base.revision),
        ("parent-uri", parent_uri(run, twin, pool)),
        ("parent-digest", spec.parent_digest),
        ("dataset-uri", spec.dataset.uri),
        ("dataset-digest", spec.dataset.digest),
        # Who names one exact dataset wants it trained on, however small.
        ("min-interactions", 1 if spec.dataset.digest else scheduled),
        ("eval-uri", gate.eval_set_ref.uri if gate.eval_set_ref else None),
        ("eval-digest", gate.eval_set_ref.digest if gate.eval_set_ref else None),
        ("system-prompt-file", prompt),
        *_hyperparameters(spec.hyperparameters or Hyperparameters(), first_rank=_first_rank(run, pool)),
        ("targets", "attention" if pool.trains_attention_only else None),
        ("max-tokens", min(MAX_TOKENS, pool.spec.engine.max_model_length or MAX_TOKENS)),
        ("seed", spec.seed),
        *_tracking(pool),
        *(("keep", digest) for digest in kept_digests(twin)),
        ("history-limit", twin.spec.history_limit),
    ]
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in arguments if value is not None]


def _tracking(pool: Pool) -> list[tuple[str, object]]:
    asked = pool.fine_tune.tracking
    if asked is None:
        return []
    mlflow = asked.mlflow
    return [
        ("mlflow-endpoint", mlflow.endpoint if mlflow else None),
        ("mlflow-experiment", mlflow.experiment if mlflow else None),
        ("tensorboard", asked.tensor_board or None),
    ]


def _tracking_credentials(pool: Pool) -> list[Manifest]:
    """Return the server's credentials as variables; a Secret that lacks some, or is not there, ends nothing."""
    asked = pool.fine_tune.tracking
    if asked is None or asked.mlflow is None or asked.mlflow.secret_ref is None:
        return []
    secret = asked.mlflow.secret_ref.name
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name, "optional": True}}}
        for name in MLFLOW_CREDENTIALS
    ]


def _first_rank(run: Run, pool: Pool) -> int | None:
    """Return the rank of an adapter without a parent where the engines would refuse the trainer's own; else None."""
    limit = pool.max_lora_rank
    return limit if run.spec.parent_digest is None and limit < RANK else None


def _hyperparameters(given: Hyperparameters, *, first_rank: int | None) -> list[tuple[str, object]]:
    return [
        ("rank", given.rank or first_rank),
        ("alpha", given.alpha),
        ("learning-rate", given.learning_rate),
        ("epochs", given.epochs),
        ("steps", given.max_steps),
        ("batch-size", given.batch_size),
        ("preference-rate", given.preference_learning_rate),
        ("learn-unrated", given.learn_unrated or None),
        ("rehearsal-percent", given.rehearsal_percent),
        ("kl-weight", given.kl_weight),
        ("validation-percent", given.validation_percent),
        ("gradient-checkpointing", given.gradient_checkpointing or None),
        ("method", given.method.lower() if given.method else None),
        ("quantization", given.quantization.lower() if given.quantization else None),
    ]


def parent_uri(run: Run, twin: Twin, pool: Pool) -> str | None:
    """Return where the version is from which training starts; None for the base model itself."""
    if run.spec.parent_digest is None:
        return None
    return uri_of(twin, run.spec.parent_digest, store=store_uri(pool) or "")
