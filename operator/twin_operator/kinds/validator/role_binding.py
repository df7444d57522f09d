"""RoleBindings V-gateway and V-rounds: give each Role to the ServiceAccount of the same name."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, ROUNDS, labels


def build_role_binding(validator: Validator) -> Manifest:
    """Return the gateways' binding."""
    return _binding(validator, names.gateway_name(validator.name), GATEWAY)


def build_rounds_role_binding(validator: Validator) -> Manifest | None:
    """Return the binding of what makes ValidatorRounds; None where none is made."""
    if validator.spec.rounds is None:
        return None
    return _binding(validator, names.rounds_name(validator.name), ROUNDS)


def _binding(validator: Validator, name: str, component: str) -> Manifest:
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(validator, component)},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": validator.namespace}],
    }
