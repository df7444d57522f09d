"""Roles V-gateway and V-rounds: each gateway writes its pod's report, and what makes rounds makes rounds."""

from __future__ import annotations

from bettertherapy_api import names, report, validator_round
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, ROUNDS, labels


def build_role(validator: Validator) -> Manifest:
    """Return the gateways' Role. That none writes another pod's report is for the admission policy to see to."""
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": names.gateway_name(validator.name), "labels": labels(validator, GATEWAY)},
        "rules": [
            {
                "apiGroups": [names.GROUP], "resources": [report.PLURAL],
                "verbs": ["create", "get", "patch", "delete"],
            }
        ],
    }  # fmt: skip


def build_rounds_role(validator: Validator) -> Manifest | None:
    """Return the Role that may create ValidatorRounds, and neither read nor change one; None where none is made."""
    if validator.spec.rounds is None:
        return None
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": names.rounds_name(validator.name), "labels": labels(validator, ROUNDS)},
        "rules": [{"apiGroups": [names.GROUP], "resources": [validator_round.PLURAL], "verbs": ["create"]}],
    }
