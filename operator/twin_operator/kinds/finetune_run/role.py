"""Roles R-trainer and R-examiner: each reads and writes the one ConfigMap in which it reports, and nothing else."""

from __future__ import annotations

from bettertherapy_api.examination import examination_name
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_role(run: Run, name: str, component: str) -> Manifest:
    """Return the Role of `trainer` or `examiner`, limited by name to its ConfigMap."""
    report = examination_name(run.name) if component == "examiner" else progress_name(run.name)
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": name, "labels": labels(run, component)},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [report], "verbs": ["get", "patch"]}
        ],
    }
