"""RoleBinding R-round: gives the Role to the ServiceAccount of the same name."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Round
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator_round.labels import MEASURE, labels


def build_role_binding(made: Round) -> Manifest:
    """Return the binding of the Role to the ServiceAccount of the same name."""
    name = names.round_account_name(made.name)
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(made, MEASURE)},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": made.namespace}],
    }
