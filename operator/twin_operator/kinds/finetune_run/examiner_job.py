"""Job R-examiner: asks the version, its parent and its anchor the same, on the pool's nodes, and only reads the store.

Its image is the operator's own, whatever run and pool say of the trainer's: who chooses it chooses the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.examination import BASE, examination_name
from twin_operator.domain.judge import KEY, Judge
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.domain.versions import uri_of
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.finetune_run.job_parts import (
    CONFIG_DIR,
    GRACE_SECONDS,
    QUEUE_LABEL,
    Task,
    environment,
    failure_policy,
    job_arguments,
    prompt_volume,
    standard_image,
)
from twin_operator.kinds.finetune_run.labels import labels
from twin_operator.kinds.finetune_run.trainer_job import parent_uri
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
    CURRENT_MODEL,
    Place,
    cache_mount,
    cache_volume,
    claim_in,
    claim_volumes,
    claims_of,
    copied_model_container,
    is_in_image,
    model_container,
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

KEPT_DIR: Final = f"{names.STATE_DIR}/examined"
KEPT: Final = "_examined"
"""Folder of the store, beside those of the twins, that is mounted into examiners alone; no twin is named so."""
_EXAMINERS: Final = {names.LABEL_COMPONENT: "examiner", names.LABEL_MANAGED_BY: names.FIELD_MANAGER}


def build_examiner_job(
    run: Run, twin: Twin, pool: Pool, images: Images, *, child: str, prompt: bool, judge: Judge | Finding | None = None,
    along: Sequence[Task] = (),
) -> Manifest:  # fmt: skip
    """Return the Job that examines the version `child`, and those of the runs that come along; `judge` is the twin's,
    or why it may not be asked."""
    spec, tasks = run.spec, [Task(run=run, twin=twin, prompt=prompt, child=child, judge=judge), *along]
    queue = {QUEUE_LABEL: spec.queue_name} if spec.queue_name else {}
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": names.examiner_name(run.name), "labels": {**labels(run, "examiner"), **queue}},
        "spec": {
            "backoffLimit": spec.retries,
            "activeDeadlineSeconds": len(tasks) * spec.deadline_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy("examiner"),
            **({"suspend": True} if spec.queue_name else {}),
            "template": {
                "metadata": added_metadata(pool.fine_tune.pod, labels=labels(run, "examiner"), annotations={}),
                "spec": with_disk(_pod(run, tasks, pool, images), pool=pool),
            },
        },
    }


def _places(task: Task, pool: Pool) -> list[Place | None]:
    """Return the folders that it must read for one run."""
    run, twin = task.run, task.twin
    gate = twin.spec.gate or Gate()
    return [
        place_of_folder(_twins_folder(twin, pool)),
        place_of_folder(parent_uri(run, twin, pool)),
        place_of_folder(_anchor_uri(run, twin, pool)),
        place_of_file(gate.eval_set_ref.uri) if gate.eval_set_ref else None,
    ]


def _pod(run: Run, tasks: Sequence[Task], pool: Pool, images: Images) -> Manifest:
    store = claim_in(store_uri(pool))
    safety = pool.fine_tune.safety_set_ref
    places = [
        place_of_folder(pool.spec.base_model.uri), *(place for task in tasks for place in _places(task, pool)),
        place_of_file(safety.uri) if safety else None,
    ]  # fmt: skip
    claims = claims_of(pool, [place.claim for place in places if place is not None])
    kept_in = {
        task.twin.name: KEPT_DIR if len(tasks) == 1 else f"{KEPT_DIR}/{task.twin.name}" for task in tasks
    }  # fmt: skip
    kept = [each for task in tasks for each in _kept_mount(task.twin, pool, claims, path=kept_in[task.twin.name])]
    prompts = prompt_volume(tasks, configmap=examination_name)
    overlay = pool.fine_tune.pod
    return {
        "restartPolicy": "Never",
        "serviceAccountName": names.examiner_name(run.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **({"priorityClassName": run.spec.priority_class_name} if run.spec.priority_class_name else {}),
        **placement(pool),
        **added_placement(overlay, own_pods=_EXAMINERS),
        **pull_secrets(pool),
        "initContainers": model_container(pool, images, overlay) or copied_model_container(pool, images, overlay),
        "containers": [
            {
                "name": "examiner",
                "image": standard_image(pool, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.examiner"],
                "args": job_arguments(
                    tasks,
                    lambda task, prompt: [
                        *examiner_arguments(
                            task.run,
                            task.twin,
                            pool,
                            child=task.child,
                            prompt=prompt,
                            kept=kept_in[task.twin.name] if kept else None,
                        ),
                        *judge_arguments(task, folder=_judge_folder(tasks, task)),
                    ],
                    configmap=examination_name,
                ),
                "env": with_added_env(environment(None if len(tasks) > 1 else examination_name(run.name)), overlay),
                **store_credentials(pool),
                "resources": container_resources(
                    pool, run.spec.resources or pool.fine_tune.resources or pool.spec.resources
                ),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("shm", "/dev/shm"),  # noqa: S108
                    mount("models", names.MODELS_DIR, read_only=True),
                    *([mount("config", CONFIG_DIR, read_only=True)] if prompts else []),
                    *cache_mount(pool, read_only=True),
                    *place_mounts(claims, places, shared=store),
                    *kept,
                    *store_secret_mount(pool),
                    *_judge_mount(tasks),
                    token_mount(),
                    *added_mounts(overlay),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size=JOB_SCRATCH),
            empty_dir("shm", memory=True, size="2Gi"),
            models_volume(pool, copied=is_in_image(pool)),
            *prompts,
            *cache_volume(pool),
            *claim_volumes(claims, writable=store),
            *store_secret_volume(pool),
            *_judge_volume(tasks),
            token_volume(),
            *added_volumes(overlay),
        ],
    }


def examiner_arguments(
    run: Run, twin: Twin, pool: Pool, *, child: str | None, prompt: str | None, kept: str | None
) -> list[str]:
    """Return the examiner's arguments for one run: `prompt` is the file with the twin's system prompt, `kept` the
    folder with what versions said before."""
    spec, base, gate = run.spec, pool.spec.base_model, twin.spec.gate or Gate()
    safety = pool.fine_tune.safety_set_ref
    arguments: list[tuple[str, object]] = [
        ("run", run.name),
        ("run-uid", run.uid),
        ("twin", twin.name),
        ("store", store_uri(pool)),
        ("base-model", CURRENT_MODEL),
        ("base-model-name", base.name),
        ("base-model-revision", base.revision),
        ("child-digest", child),
        ("parent-uri", parent_uri(run, twin, pool)),
        ("parent-digest", spec.parent_digest),
        ("anchor", None if spec.anchor is None else spec.anchor.digest or BASE),
        ("anchor-uri", _anchor_uri(run, twin, pool)),
        ("eval-uri", gate.eval_set_ref.uri if gate.eval_set_ref else None),
        ("eval-digest", gate.eval_set_ref.digest if gate.eval_set_ref else None),
        ("languages", ",".join(gate.languages) if gate.languages else None),
        ("safety-uri", safety.uri if safety else None),
        ("safety-digest", safety.digest if safety else None),
        *_adopted(run),
        ("answer-tokens", gate.answer_tokens),
        ("system-prompt-file", prompt),
        ("kept", kept),
    ]
    return [f"--{name}={value}" for name, value in arguments if value is not None]


def _adopted(run: Run) -> list[tuple[str, object]]:
    """Return what the examiner is told of a version that somebody else trained."""
    candidate = run.spec.candidate
    if candidate is None:
        return []
    return [
        ("trained-by", f"task-{candidate.task}"),
        ("dataset-digest", run.spec.dataset.digest),
        ("held-out-digest", candidate.held_out.digest if candidate.held_out else None),
    ]


def judge_arguments(task: Task, *, folder: str) -> list[str]:
    """Return what the examiner is told of a run's judge, whose key is in the folder, or of why it has none."""
    judge, deadline_seconds = task.judge, task.run.spec.deadline_seconds
    if judge is None:
        return []
    if isinstance(judge, Finding):
        return [f"--no-judge={judge.message}"]
    arguments: list[tuple[str, object]] = [
        ("judge-endpoint", judge.endpoint),
        *(("judge-model", model) for model in judge.models),
        ("judge-version", judge.version),
        ("judge-key-file", f"{folder}/{KEY}" if judge.secret is not None else None),
        ("judge-language", judge.ref.language),
        # As long again the graders may be calibrated. What is left must do for the versions themselves: past the Job's
        # deadline there is no verdict at all.
        ("judge-seconds", min(judge.ref.seconds, max(1, deadline_seconds // 3))),
        ("judge-concurrency", judge.ref.concurrency),
    ]
    return [f"--{name}={value}" for name, value in arguments if value is not None]


def _judge_folder(tasks: Sequence[Task], task: Task) -> str:
    return names.JUDGE_DIR if len(tasks) == 1 else f"{names.JUDGE_DIR}/{task.run.name}"


def _with_keys(tasks: Sequence[Task]) -> list[tuple[Task, Judge]]:
    return [(each, each.judge) for each in tasks if isinstance(each.judge, Judge) and each.judge.secret is not None]


def _judge_mount(tasks: Sequence[Task]) -> list[Manifest]:
    return [mount("judge", names.JUDGE_DIR, read_only=True)] if _with_keys(tasks) else []


def _judge_volume(tasks: Sequence[Task]) -> list[Manifest]:
    """Return the one key of each judge's Secret. Optional: without it the examiner says so, and doesn't wait for it."""
    if not (keyed := _with_keys(tasks)):
        return []
    if len(tasks) == 1:
        [(_, judge)] = keyed
        items = [{"key": judge.key, "path": KEY}]
        secret = {"secretName": judge.secret, "items": items, "optional": True, "defaultMode": 0o440}
        return [{"name": "judge", "secret": secret}]
    sources = [
        {
            "secret": {
                "name": judge.secret, "optional": True,
                "items": [{"key": judge.key, "path": f"{task.run.name}/{KEY}"}],
            }
        }
        for task, judge in keyed
    ]  # fmt: skip
    return [{"name": "judge", "projected": {"sources": sources, "defaultMode": 0o440}}]


def _twins_folder(twin: Twin, pool: Pool) -> str:
    return f"{(store_uri(pool) or '').rstrip('/')}/{twin.name}"


def _anchor_uri(run: Run, twin: Twin, pool: Pool) -> str | None:
    anchor = run.spec.anchor
    if anchor is None or anchor.digest is None:
        return None
    return uri_of(twin, anchor.digest, store=store_uri(pool) or "")


def _kept_mount(twin: Twin, pool: Pool, claims: list[str], *, path: str) -> list[Manifest]:
    """Return the mount of the folder that keeps what versions said; none in an object store, whose credentials reach
    everything."""
    place = place_of_folder(f"{(store_uri(pool) or '').rstrip('/')}/{KEPT}/{twin.name}")
    if place is None:
        return []
    return [{**mount(f"claim-{claims.index(place.claim)}", path), "subPath": place.path}]
