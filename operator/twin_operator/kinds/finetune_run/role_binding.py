"""RoleBindings R-trainer and R-examiner: give each Role to the ServiceAccount of the same name."""

from __future__ import annotations

from twin_operator.domain.objects import Run
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_role_binding(run: Run, name: str, component: str) -> Manifest:
    """Return the binding of the Role to the ServiceAccount of the same name."""
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(run, component)},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": run.namespace}],
    }
