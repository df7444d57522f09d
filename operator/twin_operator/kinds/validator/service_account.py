"""ServiceAccount V-gateway: the identity by which a gateway writes its pod's report, which is all that it may."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels


def build_service_account(validator: Validator) -> Manifest:
    """Return the account of the gateway's pods and of the one that makes the ledger's tables."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": names.gateway_name(validator.name), "labels": labels(validator, GATEWAY)},
        "automountServiceAccountToken": False,
    }
