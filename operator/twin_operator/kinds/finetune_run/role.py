"""Roles R-trainer and R-examiner: each reads and writes the ConfigMaps in which it reports, one for each of its runs,
and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from bettertherapy_api.examination import examination_name
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_role(run: Run, name: str, component: str, *, along: Sequence[str] = ()) -> Manifest:
    """Return the Role of `trainer` or `examiner`, limited by name to its ConfigMap and those of the runs `along`."""
    named = examination_name if component == "examiner" else progress_name
    reports = [named(each) for each in (run.name, *along)]
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": name, "labels": labels(run, component)},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": reports, "verbs": ["get", "patch"]}
        ],
    }
