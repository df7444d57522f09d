"""LeaderWorkerSet P-engine: engines that span several nodes, made of the Deployment that they would be on one node.

The leader is the Deployment's pod. A worker is made of it: the same base model, image, arguments and adapters, without
an agent, a door or a drain, since it only computes what the leader tells it. All pods of a group start together, and
one that restarts takes its group with it: an engine that lost a part of itself answers nothing. Nobody but the leader
bears the label of engine pods, so twins are placed on leaders, leaders alone report and prove, and a pool's replicas
are groups.
"""

from __future__ import annotations

import copy
from typing import Final

from bettertherapy_api import names
from twin_operator.domain.engine_groups import ENGINE_WORKER
from twin_operator.engine.resources import LEADER_WORKER_SET, Manifest
from twin_operator.kinds.podspec.parts import TOKEN_VOLUME

WORKER_INDEX: Final = "LWS_WORKER_INDEX"
"""Variable that the LeaderWorkerSet's controller sets: 1 to the number of workers."""
_SERVE: Final = ["python3", "-m", "vllm.entrypoints.cli.main", "serve"]
"""vLLM's own program: the OpenAI server's module knows no --headless."""
_LEADERS_OWN: Final = ("--model=", "--uds=", "--node-rank=", "--shutdown-timeout=")
_AGENTS_OWN: Final = frozenset({"run", "agent-tmp", names.POOL_TOKENS_VOLUME, TOKEN_VOLUME})
"""Volumes that only an agent, and who talks to it, needs."""


def group_of(deployment: Manifest, *, nodes: int) -> Manifest:
    """Return the LeaderWorkerSet whose leaders are the Deployment's pods."""
    spec = deployment["spec"]
    return {
        "apiVersion": LEADER_WORKER_SET.api_version,
        "kind": LEADER_WORKER_SET.kind,
        "metadata": deployment["metadata"],
        "spec": {
            "replicas": spec["replicas"],
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": _rollout(spec["strategy"])},
            "leaderWorkerTemplate": {
                "size": nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": spec["template"],
                "workerTemplate": worker_template(spec["template"]),
            },
        },
    }


def worker_template(leader: Manifest) -> Manifest:
    """Return the template of the pods that compute with a leader."""
    template = copy.deepcopy(leader)
    metadata, pod = template["metadata"], template["spec"]
    metadata["labels"] = {
        **metadata["labels"], names.LABEL_COMPONENT: ENGINE_WORKER, "app.kubernetes.io/name": ENGINE_WORKER,
    }  # fmt: skip
    pod["initContainers"] = [each for each in pod.get("initContainers") or [] if each["name"] != "agent"]
    pod["containers"] = [_worker(each) if each["name"] == "engine" else each for each in pod["containers"]]
    pod["volumes"] = [each for each in pod.get("volumes") or [] if each["name"] not in _AGENTS_OWN]
    return template


def _worker(engine: Manifest) -> Manifest:
    arguments = engine["args"]
    model = next(each.removeprefix("--model=") for each in arguments if each.startswith("--model="))
    kept = [each for each in arguments if not each.startswith(_LEADERS_OWN)]
    rest = {key: value for key, value in engine.items() if key not in ("livenessProbe", "lifecycle")}
    return {
        **rest,
        "command": _SERVE,
        "args": [model, *kept, f"--node-rank=$({WORKER_INDEX})", "--headless"],
        "volumeMounts": [each for each in engine["volumeMounts"] if each["name"] not in _AGENTS_OWN],
    }


def _rollout(strategy: Manifest) -> Manifest:
    """Return the Deployment's strategy in the words of a LeaderWorkerSet, which counts groups."""
    if strategy["type"] == "Recreate":
        return {"maxUnavailable": "100%", "maxSurge": 0}
    return {key: strategy["rollingUpdate"][key] for key in ("maxUnavailable", "maxSurge")}
