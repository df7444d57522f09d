"""Role V-gateway: each gateway writes its pod's report."""

from __future__ import annotations

from bettertherapy_api import names, report
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels


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
