"""CronJob V-datasets: brings yesterday's conversations, of every twin, to where the twins' fine-tunes read them.

Its pod has the ledger and the store, and neither the hotkey nor a token: the gateway, which anybody reaches, needs no
credentials of the store for it. One way for both kinds of ledger: an embedded one is opened beside its gateway, on the
same node, since its claim may be mounted on one node alone; SQLite lets several processes of a machine share its file.
"""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.miner_pool import Store
from bettertherapy_api.validator import FineTuneTasks
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import CRON_JOB, Manifest
from twin_operator.kinds.podspec.disk import with_disk
from twin_operator.kinds.podspec.parts import (
    container_security,
    empty_dir,
    env,
    mount,
    own_resources,
    pod_security,
    pull_secrets,
)
from twin_operator.kinds.podspec.sources import claim_in, claim_mounts, claim_volumes
from twin_operator.kinds.podspec.validators import (
    image_of,
    ledger_claim,
    ledger_url,
    on_ledgers_node,
    twins_volume,
)
from twin_operator.kinds.validator.labels import DATASETS, GATEWAY, labels
from twin_operator.settings import Images

RESOURCES: Final[Manifest] = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_ATTEMPTS_MORE: Final = 4
"""After the first, with growing pauses: some seven minutes, in which a database or a store may come back."""
DEADLINE_SECONDS: Final = 3600
_OPEN_IT: Final = (GATEWAY, DATASETS)
"""Components whose pods open an embedded ledger."""


def build_datasets_cronjob(validator: Validator, images: Images) -> Manifest | None:
    """Return the CronJob; None where nothing is to leave the ledger."""
    tasks = validator.spec.fine_tune_tasks
    if tasks is None:
        return None
    name = names.datasets_name(validator.name)
    return {
        "apiVersion": CRON_JOB.api_version,
        "kind": CRON_JOB.kind,
        "metadata": {"name": name, "labels": labels(validator, DATASETS)},
        "spec": {
            "schedule": tasks.schedule,
            "timeZone": tasks.time_zone,
            "suspend": tasks.suspend,
            "concurrencyPolicy": "Forbid",
            # Those that ended last tell how it went.
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": labels(validator, DATASETS)},
                "spec": {
                    "backoffLimit": _ATTEMPTS_MORE,
                    "activeDeadlineSeconds": DEADLINE_SECONDS,
                    "template": {
                        "metadata": {"labels": labels(validator, DATASETS)},
                        "spec": with_disk(_pod(validator, tasks, images, account=name)),
                    },
                },
            },
        },
    }


def datasets_claim(tasks: FineTuneTasks) -> str | None:
    """Return the claim that the conversations are put on, where one is."""
    return claim_in(tasks.store.uri)


def _pod(validator: Validator, tasks: FineTuneTasks, images: Images, *, account: str) -> Manifest:
    claim, embedded = datasets_claim(tasks), validator.embedded_ledger
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # A pod that failed stays, and with it its last words.
        "restartPolicy": "Never",
        "securityContext": pod_security(),
        **pull_secrets(validator),
        **({"affinity": on_ledgers_node(validator, _OPEN_IT)} if embedded else {}),
        "containers": [
            {
                "name": "datasets",
                "image": image_of(validator, images),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "neurons.ledger", "datasets"],
                "args": [
                    f"--store={tasks.store.uri}",
                    f"--twins-file={names.TWINS_DIR}/{names.TWINS_FILE}",
                    f"--zone={tasks.time_zone}",
                    *(["--hold-out"] if tasks.offers is not None and tasks.offers.deliveries is not None else []),
                ],
                "env": [env("HOME", "/tmp"), ledger_url(validator)],  # noqa: S108
                **_credentials(tasks.store),
                "resources": own_resources(tasks.resources, RESOURCES),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    mount("tmp", "/tmp"),  # noqa: S108
                    mount("twins", names.TWINS_DIR, read_only=True),
                    *([mount("state", names.STATE_DIR)] if embedded else []),
                    *(claim_mounts([claim], [claim], writable=claim) if claim is not None else []),
                ],
            }
        ],
        "volumes": [
            empty_dir("tmp", size="64Mi"),
            twins_volume(validator),
            *([ledger_claim(validator)] if embedded else []),
            *(claim_volumes([claim], writable=claim) if claim is not None else []),
        ],
    }


def _credentials(store: Store) -> Manifest:
    """Return the store's Secret as variables; it is read at each start, so that a rotation needs no mount."""
    return {"envFrom": [{"secretRef": {"name": store.secret_ref.name}}]} if store.secret_ref is not None else {}
