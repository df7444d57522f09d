"""RoleBinding V-gateway: gives the Role to the ServiceAccount of the same name."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels


def build_role_binding(validator: Validator) -> Manifest:
    """Return the binding."""
    name = names.gateway_name(validator.name)
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(validator, GATEWAY)},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": validator.namespace}],
    }
