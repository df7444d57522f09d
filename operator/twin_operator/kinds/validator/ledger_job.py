"""Job V-ledger-…: makes or changes the tables of a database; an embedded ledger's are made by the gateway itself.

Apart from the gateway, so that patients are answered while the database is away: what is recorded waits in the
gateway's queue. It is tried until it succeeds, and once for each way in which its pod is made: a Job's can't be
changed, so that one with another image, Secret or pull secret is another Job.
"""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from bettertherapy_api import names
from bettertherapy_api.validator import LEDGER_OWNER_URI_KEY
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.parts import container_security, empty_dir, env, mount, pod_security, pull_secrets
from twin_operator.kinds.podspec.validators import image_of, ledger_url
from twin_operator.kinds.validator.labels import LEDGER, labels
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
_FOR_EVER: Final = 1_000_000
"""Attempts; the kubelet waits up to five minutes between two."""


def build_ledger_job(validator: Validator, images: Images) -> Manifest | None:
    """Return the Job; None for an embedded ledger."""
    ledger = validator.spec.ledger
    if ledger is None or ledger.uri_secret_ref is None:
        return None
    template: Manifest = {
        "metadata": {"labels": labels(validator, LEDGER)},
        "spec": with_disk(
            {
                "serviceAccountName": names.gateway_name(validator.name),
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "restartPolicy": "OnFailure",
                "securityContext": pod_security(),
                **pull_secrets(validator),
                "containers": [
                    {
                        "name": "ledger",
                        "image": image_of(validator, images),
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-m", "neurons.ledger", "migrate"],
                        "env": [
                            env("HOME", "/tmp"),  # noqa: S108
                            ledger_url(validator),
                            _owner_url(ledger.uri_secret_ref.name),
                        ],
                        "resources": RESOURCES,
                        "securityContext": container_security(),
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [mount("tmp", "/tmp")],  # noqa: S108
                    }
                ],
                "volumes": [empty_dir("tmp", size="64Mi")],
            }
        ),
    }
    made_from = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": f"{validator.name}-ledger-{made_from}", "labels": labels(validator, LEDGER)},
        "spec": {"backoffLimit": _FOR_EVER, "template": template},
    }


def _owner_url(secret: str) -> Manifest:
    """Return the variable with the address by the tables' owner, where the Secret has one: no other pod is given it."""
    key = {"name": secret, "key": LEDGER_OWNER_URI_KEY, "optional": True}
    return {"name": "LEDGER_OWNER_URL", "valueFrom": {"secretKeyRef": key}}
