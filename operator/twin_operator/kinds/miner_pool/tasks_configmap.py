"""ConfigMap P-tasks: what the pool's miners are told of validators' tasks."""

from __future__ import annotations

from bettertherapy_api.task_states import KEY, PublishedTasks, tasks_name
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.podspec.parts import labels


def build_tasks_configmap(pool: Pool, tasks: PublishedTasks) -> Manifest:
    """Return the ConfigMap."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": tasks_name(pool.name), "labels": labels(pool, "tasks")},
        "data": {KEY: tasks.to_json()},
    }
