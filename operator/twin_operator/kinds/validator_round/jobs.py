"""Jobs R, R-weights and R-…: ask and score, set the weights, reckon once more; one image, one way to the ledger.

An embedded ledger is opened beside its gateway, on the same node, since its claim may be mounted on one node alone;
SQLite lets several processes of a machine share its file. The hotkey is mounted where something is signed and nowhere
else, and the store of the fine-tunes not at all: the CronJob V-datasets writes that.
"""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.round_progress import ORDER_DIR, ORDER_KEY, TRY_AGAIN, progress_name
from bettertherapy_api.validator import JUDGE_KEY, Rounds
from twin_operator.domain.objects import Round, Validator
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.parts import (
    container_security,
    empty_dir,
    env,
    mount,
    own_resources,
    pod_security,
    pull_secrets,
    token_mount,
    token_volume,
)
from twin_operator.kinds.podspec.sources import claim_in, claim_mounts, claim_volumes
from twin_operator.kinds.podspec.validators import (
    image_of,
    ledger_claim,
    ledger_url,
    on_ledgers_node,
    secret_volume,
    twins_volume,
)
from twin_operator.kinds.validator_round.labels import COMPONENTS, MEASURE, RECOMPUTE, WEIGHTS, labels, pod_labels
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
SMALL: Final[Manifest] = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""Of what asks no miner and judges no answer."""
KILLED: Final = (137, 143, 255)
"""Exit statuses of a process that somebody ended, as at trainers."""
CONTAINER: Final = "round"
WEIGHTS_SECONDS: Final = 6 * 3600
"""Of setting weights: two epochs of 72 minutes until they are revealed, the subnet's rate limit, and a chain that is
away for a while."""
WEIGHTS_ATTEMPTS: Final = 30
RECOMPUTE_SECONDS: Final = 1800
_GATEWAY: Final = "gateway"
_GRACE_SECONDS: Final = 30
"""Time to write down what has arrived when the pod is taken away."""


def build_round_job(made: Round, validator: Validator, images: Images, *, prometheus_url: str | None) -> Manifest:
    """Return the Job that asks and scores."""
    rounds = validator.spec.rounds or Rounds()
    command = (
        "run",
        # A round waits for an answer as long as a patient does.
        f"--answer-seconds={validator.spec.gateway.deadline_seconds}",
        f"--ask-share={rounds.spread_percent / 100:g}",
    )
    return _job(
        made, validator, images, name=made.name, component=MEASURE, command=command, signs=True,
        resources=own_resources(rounds.resources, RESOURCES), deadline=made.spec.deadline_seconds,
        retries=made.spec.retries, prometheus_url=prometheus_url,
    )  # fmt: skip


def build_weights_job(made: Round, validator: Validator, images: Images, *, prometheus_url: str | None) -> Manifest:
    """Return the Job that sets the weights and waits until they are revealed."""
    return _job(
        made, validator, images, name=names.round_weights_name(made.name), component=WEIGHTS, command=("weights",),
        signs=True, resources=SMALL, deadline=WEIGHTS_SECONDS, retries=WEIGHTS_ATTEMPTS, prometheus_url=prometheus_url,
    )  # fmt: skip


def build_recompute_job(made: Round, validator: Validator, images: Images, *, token: str) -> Manifest:
    """Return the Job that reckons the scores once more, from what is stored."""
    return _job(
        made, validator, images, name=names.round_recompute_name(made.name, token), component=RECOMPUTE,
        command=("recompute", f"--token={token}"), signs=False, resources=SMALL, deadline=RECOMPUTE_SECONDS, retries=2,
        prometheus_url=None,
    )  # fmt: skip


def _job(
    made: Round, validator: Validator, images: Images, *, name: str, component: str, command: tuple[str, ...],
    signs: bool, resources: Manifest, deadline: int, retries: int, prometheus_url: str | None,
) -> Manifest:  # fmt: skip
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": name, "labels": labels(made, component)},
        "spec": {
            "backoffLimit": retries,
            "activeDeadlineSeconds": deadline,
            # Two at once would ask every miner twice.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _failure_policy(),
            "template": {
                "metadata": {"labels": pod_labels(made, component)},
                "spec": with_disk(
                    _pod(
                        made, validator, images, command=command, signs=signs, resources=resources,
                        prometheus_url=prometheus_url,
                    )
                ),
            },
        },
    }  # fmt: skip


def _failure_policy() -> Manifest:
    """Try again what may pass; what was taken away from outside is not counted."""

    def codes(operator: str, values: list[int]) -> Manifest:
        return {"containerName": CONTAINER, "operator": operator, "values": values}

    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Count", "onExitCodes": codes("In", [TRY_AGAIN, *KILLED])},
            {"action": "FailJob", "onExitCodes": codes("NotIn", [0, TRY_AGAIN, *KILLED])},
        ]
    }


def _pod(
    made: Round, validator: Validator, images: Images, *, command: tuple[str, ...], signs: bool,
    resources: Manifest, prometheus_url: str | None,
) -> Manifest:  # fmt: skip
    embedded = validator.embedded_ledger
    own = (validator.spec.rounds or Rounds()).challenges
    claim = claim_in(own.uri) if own is not None and signs else None
    verb, *more = command
    return {
        "serviceAccountName": names.round_account_name(made.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # A pod that failed stays, and with it its last words.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": pod_security(),
        **pull_secrets(validator),
        **({"affinity": on_ledgers_node(validator, (_GATEWAY, *COMPONENTS))} if embedded else {}),
        "containers": [
            {
                "name": CONTAINER,
                "image": image_of(validator, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.validator.rounds", verb],
                "args": [f"--order={ORDER_DIR}/{ORDER_KEY}", *more],
                "env": [
                    *_identity(made),
                    ledger_url(validator),
                    *([env("PROMETHEUS_URL", prometheus_url)] if prometheus_url else []),
                    *(_judge(validator) if signs else []),
                ],
                "resources": resources,
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("order", ORDER_DIR, read_only=True),
                    *([mount("wallet", names.WALLET_DIR, read_only=True)] if signs else []),
                    *([mount("twins", names.TWINS_DIR, read_only=True)] if signs else []),
                    *([mount("state", names.STATE_DIR)] if embedded else []),
                    *(claim_mounts([claim], [claim]) if claim is not None else []),
                    token_mount(),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size="256Mi"),
            {
                "name": "order",
                "configMap": {
                    "name": progress_name(made.name), "items": [{"key": ORDER_KEY, "path": ORDER_KEY}],
                    "defaultMode": 0o444,
                },
            },
            # All of it, so that a coldkey in it is found and refused.
            *([secret_volume("wallet", validator.spec.wallet_secret_ref.name)] if signs else []),
            *([twins_volume(validator)] if signs else []),
            *([ledger_claim(validator)] if embedded else []),
            *(claim_volumes([claim]) if claim is not None else []),
            token_volume(),
        ],
    }  # fmt: skip


def _identity(made: Round) -> list[Manifest]:
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    return [
        env("HOME", "/tmp"),  # noqa: S108
        env("PROGRESS_CONFIGMAP", progress_name(made.name)),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def _judge(validator: Validator) -> list[Manifest]:
    """Return the variable with the key of the judge's server, where it has one."""
    judge = validator.spec.scoring.judge if validator.spec.scoring is not None else None
    if judge is None or judge.secret_ref is None:
        return []
    return [
        {
            "name": "JUDGE_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": judge.secret_ref.name, "key": JUDGE_KEY}},
        }
    ]
