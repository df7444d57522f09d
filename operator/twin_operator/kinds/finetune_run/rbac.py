"""What a trainer may do at the API server: read and write its run's one ConfigMap."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_service_account(run: Run) -> Manifest:
    """Return R-trainer; its token is mounted only where the pod says so."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": names.trainer_name(run.name), "labels": labels(run, "trainer")},
        "automountServiceAccountToken": False,
    }


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


def build_role_binding(run: Run) -> Manifest:
    """Return the binding of the Role to the ServiceAccount of the same name."""
    name = names.trainer_name(run.name)
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(run, "trainer")},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": run.namespace}],
    }
