"""CronJob V-rounds: makes a ValidatorRound when one is due, and can do nothing else.

The round is named after the time for which the CronJob's Job was made, so that a pod that is tried again makes it once.
What the round does is the operator's business, as with one that a person makes by hand.
"""

from __future__ import annotations

from typing import Final

import orjson

from bettertherapy_api import names, validator_round
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import CRON_JOB, Manifest
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.parts import (
    container_security,
    empty_dir,
    env,
    mount,
    pod_security,
    pull_secrets,
    token_mount,
    token_volume,
)
from twin_operator.kinds.podspec.validators import image_of
from twin_operator.kinds.resources import VALIDATOR
from twin_operator.kinds.validator.labels import ROUNDS, labels
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
DEADLINE_SECONDS: Final = 600
LATE_SECONDS: Final = 3600
"""After an outage a round that was due is still made so much later; then the next one comes anyway."""
_ATTEMPTS_MORE: Final = 5
_JOB_LABEL: Final = "batch.kubernetes.io/job-name"


def build_rounds_cronjob(validator: Validator, images: Images) -> Manifest | None:
    """Return the CronJob; None where no round is made by a schedule."""
    rounds = validator.spec.rounds
    if rounds is None:
        return None
    return {
        "apiVersion": CRON_JOB.api_version,
        "kind": CRON_JOB.kind,
        "metadata": {"name": names.rounds_name(validator.name), "labels": labels(validator, ROUNDS)},
        "spec": {
            "schedule": rounds.schedule,
            "timeZone": rounds.time_zone,
            "suspend": rounds.suspend,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATE_SECONDS,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": labels(validator, ROUNDS)},
                "spec": {
                    "backoffLimit": _ATTEMPTS_MORE,
                    "activeDeadlineSeconds": DEADLINE_SECONDS,
                    "template": {
                        "metadata": {"labels": labels(validator, ROUNDS)},
                        "spec": with_disk(_pod(validator, images)),
                    },
                },
            },
        },
    }


def round_made(validator: Validator) -> Manifest:
    """Return the ValidatorRound that is made, but for its name."""
    rounds = validator.spec.rounds
    return {
        "apiVersion": names.API_VERSION,
        "kind": validator_round.KIND,
        "metadata": {
            "namespace": validator.namespace,
            "labels": {names.LABEL_VALIDATOR: validator.name},
            # Goes with its validator. Without blockOwnerDeletion, for which the pod would need more rights.
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION, "kind": VALIDATOR.kind, "name": validator.name,
                    "uid": validator.uid, "controller": True,
                }
            ],
        },
        "spec": {
            "validatorRef": {"name": validator.name},
            **({"deadlineSeconds": max(60, rounds.deadline_seconds)} if rounds is not None else {}),
        },
    }  # fmt: skip


def _pod(validator: Validator, images: Images) -> Manifest:
    job_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{_JOB_LABEL}']"}}
    return {
        "serviceAccountName": names.rounds_name(validator.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # A pod that failed stays, and with it its last words.
        "restartPolicy": "Never",
        "securityContext": pod_security(),
        **pull_secrets(validator),
        "containers": [
            {
                "name": "rounds",
                "image": image_of(validator, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.validator.round_creation"],
                "env": [
                    env("HOME", "/tmp"),  # noqa: S108
                    env("ROUND", orjson.dumps(round_made(validator), option=orjson.OPT_SORT_KEYS).decode()),
                    env("VALIDATOR", validator.name),
                    {"name": "JOB_NAME", "valueFrom": job_name},
                ],
                "resources": RESOURCES,
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [mount("tmp", "/tmp"), token_mount()],  # noqa: S108
            }
        ],
        "volumes": [empty_dir("tmp", size="16Mi"), token_volume()],
    }
