"""Role R-trainer: a trainer reads and writes its run's one ConfigMap."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_role(run: Run) -> Manifest:
    """Return the Role, limited by name to the progress ConfigMap."""
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": names.trainer_name(run.name), "labels": labels(run, "trainer")},
        "rules": [
            {
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [progress_name(run.name)],
                "verbs": ["get", "patch"],
            }
        ],
    }  # fmt: skip
