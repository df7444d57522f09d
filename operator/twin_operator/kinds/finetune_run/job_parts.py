"""What the Jobs of trainer and examiner have in common."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.examination import PROMPT_KEY
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.finetune_run.facts import KILLED
from twin_operator.kinds.podspec.parts import env
from twin_operator.settings import Images

TRY_AGAIN: Final = 75
"""The programs' exit status for what may pass."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONFIG_DIR: Final = "/etc/bettertherapy/run"
GRACE_SECONDS: Final = 60
"""Time to write a checkpoint when the pod is taken away."""


def failure_policy(container: str) -> Manifest:
    """Try again what may pass, as often as the run says; a limit of memory that was hit is no such thing, but ends with
    the same status as a kill, and so is told apart by the run's plan."""

    def codes(operator: str, values: list[int]) -> Manifest:
        return {"containerName": container, "operator": operator, "values": values}

    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Count", "onExitCodes": codes("In", [TRY_AGAIN, *KILLED])},
            {"action": "FailJob", "onExitCodes": codes("NotIn", [0, TRY_AGAIN, *KILLED])},
        ]
    }


def standard_image(pool: Pool, images: Images) -> str:
    """Return the operator's image for the pool's device: torch of the other would compute on the CPU, beside an idle
    GPU."""
    return images.trainer_cpu if pool.spec.engine.device == "CPU" else images.trainer_gpu


def prompt_volume(configmap: str) -> Manifest:
    """The prompt alone. Not optional: without it the twin would be taught, and asked, otherwise than patients ask."""
    items = [{"key": PROMPT_KEY, "path": PROMPT_KEY}]
    return {"name": "config", "configMap": {"name": configmap, "items": items}}


def environment(configmap: str) -> list[Manifest]:
    """Return the variables that say who it is and where it reports."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    return [
        env("HOME", "/tmp"),  # noqa: S108
        env("HF_HUB_OFFLINE", "1"),
        env("PROGRESS_CONFIGMAP", configmap),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def is_file(uri: str, digest: str | None) -> bool:
    """Tell whether a dataset's URI names one file and no folder; what ends as files do is taken for one."""
    return digest is not None or "." in uri.rpartition("/")[2]
