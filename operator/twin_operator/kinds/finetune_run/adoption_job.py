"""Job R of a candidate: no trainer, but what brings a version that a miner delivered to where the examiner finds it.

It stands in the trainer's place, reports as one, and runs the operator's own image: who chooses it chooses what is
examined. It needs neither the base model nor a GPU.
"""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.finetune_run import CandidateSpec
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.finetune_run.job_parts import (
    GRACE_SECONDS,
    QUEUE_LABEL,
    environment,
    failure_policy,
    standard_image,
)
from twin_operator.kinds.finetune_run.labels import labels
from twin_operator.kinds.finetune_run.trainer_job import parent_uri
from twin_operator.kinds.podspec.disk import JOB_SCRATCH, with_disk
from twin_operator.kinds.podspec.parts import (
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
    claim_in,
    claim_volumes,
    claims_of,
    place_mounts,
    place_of_folder,
    store_credentials,
    store_secret_mount,
    store_secret_volume,
    store_uri,
)
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}


def build_adoption_job(run: Run, candidate: CandidateSpec, twin: Twin, pool: Pool, images: Images) -> Manifest:
    """Return the Job."""
    queue = {QUEUE_LABEL: run.spec.queue_name} if run.spec.queue_name else {}
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": run.name, "labels": {**labels(run, "trainer"), **queue}},
        "spec": {
            "backoffLimit": run.spec.retries,
            "activeDeadlineSeconds": run.spec.deadline_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy("trainer"),
            **({"suspend": True} if run.spec.queue_name else {}),
            "template": {
                "metadata": {"labels": labels(run, "trainer")},
                "spec": with_disk(_pod(run, candidate, twin, pool, images)),
            },
        },
    }


def _pod(run: Run, candidate: CandidateSpec, twin: Twin, pool: Pool, images: Images) -> Manifest:
    store = claim_in(store_uri(pool))
    own = place_of_folder(f"{(store_uri(pool) or '').rstrip('/')}/{twin.name}", writable=True)
    # The folder above: the kubelet makes the one that a mount names where nothing was delivered.
    above = place_of_folder(candidate.delivered.rsplit("/", 2)[0])
    places = [own, above, place_of_folder(parent_uri(run, twin, pool))]
    claims = claims_of(pool, [place.claim for place in places if place is not None])
    return {
        "restartPolicy": "Never",
        "serviceAccountName": names.trainer_name(run.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **({"priorityClassName": run.spec.priority_class_name} if run.spec.priority_class_name else {}),
        **placement(pool),
        **pull_secrets(pool),
        "containers": [
            {
                "name": "trainer",
                "image": standard_image(pool, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.examiner.adopting"],
                "args": adoption_arguments(run, candidate, twin, pool),
                "env": environment(progress_name(run.name)),
                **store_credentials(pool),
                "resources": RESOURCES,
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    *place_mounts(claims, places, shared=store),
                    *store_secret_mount(pool),
                    token_mount(),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size=JOB_SCRATCH),
            *claim_volumes(claims, writable=store),
            *store_secret_volume(pool),
            token_volume(),
        ],
    }


def adoption_arguments(run: Run, candidate: CandidateSpec, twin: Twin, pool: Pool) -> list[str]:
    """Return its arguments."""
    spec, hidden = run.spec, candidate.held_out
    arguments: list[tuple[str, object]] = [
        ("run", run.name),
        ("twin", twin.name),
        ("store", store_uri(pool)),
        ("base-model-name", pool.spec.base_model.name),
        ("delivered", candidate.delivered),
        ("adapter-digest", candidate.digest),
        ("task", candidate.task),
        ("parent-uri", parent_uri(run, twin, pool)),
        ("parent-digest", spec.parent_digest),
        ("dataset-uri", spec.dataset.uri),
        ("dataset-digest", spec.dataset.digest),
        ("held-out-uri", hidden.uri if hidden else None),
        ("held-out-digest", hidden.digest if hidden else None),
    ]
    arguments += [("earlier", each) for each in candidate.earlier or []]
    return [f"--{name}={value}" for name, value in arguments if value is not None]
