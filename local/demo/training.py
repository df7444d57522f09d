"""Training one adapter as a Kubernetes Job, with the trainer that the daily fine-tune uses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from demo.doctors import BASE_MODEL, HYPERPARAMETERS, Doctor
from demo.errors import DemoError
from demo.files import MOUNT
from demo.kube import Json, Kube, hopeless, troubled_pods
from demo.pods import POD_SECURITY, container_security

_START_TIMEOUT_S = 180.0
_TRAIN_TIMEOUT_S = 1200
_POLL_S = 0.5


@dataclass(frozen=True)
class Adapter:
    """A trained adapter in the store."""

    uri: str
    digest: str
    rank: int


def train(
    kube: Kube,
    doctor: Doctor,
    *,
    namespace: str,
    image: str,
    recipe: str,
    models_claim: str,
    store_claim: str,
    on_progress: Callable[[str], None],
) -> Adapter:
    """Run the Job to its end and return what it published.

    Raises:
        DemoError: it could not start or failed; with its events and the end of its log.
    """
    name = f"train-{doctor.twin}-{recipe[:8]}"
    kube.kubectl("delete", "job", name, "-n", namespace, "--ignore-not-found", "--cascade=foreground", timeout=120)
    dataset = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"conversations.jsonl": doctor.conversations.read_text(encoding="utf-8")},
    }
    kube.apply(dataset, _job(doctor, name, namespace, image=image, models_claim=models_claim, store_claim=store_claim))
    selector = f"batch.kubernetes.io/job-name={name}"
    pod = _started(kube, namespace, selector, on_progress)
    _follow(kube, namespace, pod, on_progress)
    return _result(kube, namespace, name, selector)


def parse_result(message: str) -> Adapter | None:
    """Return what the trainer's last words say it published; None when it failed."""
    try:
        said = json.loads(message.strip().splitlines()[-1])
        return Adapter(uri=said["uri"], digest=said["digest"], rank=int(said["rank"]))
    except (ValueError, LookupError, TypeError):
        return None


def progress_of(line: str) -> str | None:
    """Return what a line of the trainer's log says about its progress, for a person."""
    try:
        said = json.loads(line)
        if said.get("event") == "step":
            return f"step {said['step']} of {said['steps']}, loss {said['loss']:.2f}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return None


def _started(kube: Kube, namespace: str, selector: str, on_progress: Callable[[str], None]) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        for pod in kube.items("pods", "-n", namespace, "-l", selector):
            if pod.get("status", {}).get("phase") in {"Running", "Succeeded", "Failed"}:
                return str(pod["metadata"]["name"])
            if hopeless(pod):
                deadline = 0
        on_progress("starting")
        time.sleep(_POLL_S)
    raise DemoError(
        "The training pod did not start",
        evidence=troubled_pods(kube, namespace, selector),
        remedy="the events above say what it waits for (the image, a volume, room on a node); then run the demo again",
    )


def _follow(kube: Kube, namespace: str, pod: str, on_progress: Callable[[str], None]) -> None:
    on_progress("loading the model")
    process = kube.popen("logs", "--follow", pod, "-n", namespace)
    try:
        for line in process.stdout or ():
            progress = progress_of(line.decode(errors="replace"))
            if progress is not None:
                on_progress(progress)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _result(kube: Kube, namespace: str, name: str, selector: str) -> Adapter:
    deadline = time.monotonic() + _TRAIN_TIMEOUT_S
    while time.monotonic() < deadline:
        job = kube.get("job", name, "-n", namespace) or {}
        ended = {c["type"] for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"} & {
            "Complete",
            "Failed",
        }
        if ended:
            messages = _last_words(kube, namespace, selector)
            for message in messages:
                adapter = parse_result(message)
                if adapter is not None and "Complete" in ended:
                    return adapter
            break
        time.sleep(_POLL_S)
    else:
        messages = [f"not done after {_TRAIN_TIMEOUT_S} s"]
    raise DemoError(
        f"Training failed: {' / '.join(message for message in messages if message) or 'it left no message'}",
        evidence=troubled_pods(kube, namespace, selector),
        remedy=f"`kubectl logs -n {namespace} job/{name}` has all of its log; running the demo again trains again",
    )


def _last_words(kube: Kube, namespace: str, selector: str) -> list[str]:
    words = []
    for pod in kube.items("pods", "-n", namespace, "-l", selector):
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            ended = (container.get("state") or {}).get("terminated") or {}
            words.append(str(ended.get("message") or ended.get("reason") or ""))
    return words


def _job(doctor: Doctor, name: str, namespace: str, *, image: str, models_claim: str, store_claim: str) -> Json:
    arguments = [
        "train",
        f"--base-model={MOUNT}/{models_claim}/{BASE_MODEL}",
        f"--base-model-name={BASE_MODEL}",
        "--dataset=/dataset/conversations.jsonl",
        "--output=/tmp/adapter",
        f"--twin={doctor.twin}",
        f"--store=pvc://{store_claim}/adapters",
        f"--run={name}",
        *(f"--{key}={value}" for key, value in HYPERPARAMETERS.items()),
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "trainer", "app.kubernetes.io/part-of": "bettertherapy"},
        },
        "spec": {
            "backoffLimit": 1,
            "activeDeadlineSeconds": _TRAIN_TIMEOUT_S,
            # Only 75 (try again) is worth another pod; any other failure would be the same again.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "trainer", "operator": "NotIn", "values": [75]},
                    }
                ]
            },
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "trainer"}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": POD_SECURITY,
                    "containers": [
                        {
                            "name": "trainer",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python", "-m", "neurons.trainer"],
                            "args": arguments,
                            "env": [
                                {"name": "HOME", "value": "/tmp"},
                                {"name": "HF_HUB_OFFLINE", "value": "1"},
                                {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
                            ],
                            "resources": {
                                "requests": {"cpu": "250m", "memory": "2Gi"},
                                "limits": {"memory": "6Gi"},
                            },
                            "securityContext": container_security(),
                            "volumeMounts": [
                                {"name": "dataset", "mountPath": "/dataset", "readOnly": True},
                                {"name": "models", "mountPath": f"{MOUNT}/{models_claim}", "readOnly": True},
                                {"name": "store", "mountPath": f"{MOUNT}/{store_claim}"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "dataset", "configMap": {"name": name}},
                        {"name": "models", "persistentVolumeClaim": {"claimName": models_claim, "readOnly": True}},
                        {"name": "store", "persistentVolumeClaim": {"claimName": store_claim}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }
