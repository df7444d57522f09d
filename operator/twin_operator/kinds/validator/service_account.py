"""ServiceAccount V-gateway: the identity by which a gateway writes its pod's report, which is all that it may; and
V-datasets, which has no rights here: a cloud's store may know it; and V-rounds, which may make ValidatorRounds.
"""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator.labels import DATASETS, GATEWAY, ROUNDS, labels


def build_service_account(validator: Validator) -> Manifest:
    """Return the account of the gateway's pods and of the one that makes the ledger's tables."""
    return _account(validator, names.gateway_name(validator.name), GATEWAY)


def build_datasets_service_account(validator: Validator) -> Manifest | None:
    """Return the account of the pods that bring conversations to the store; None where none does."""
    if validator.spec.fine_tune_tasks is None:
        return None
    return _account(validator, names.datasets_name(validator.name), DATASETS)


def build_rounds_service_account(validator: Validator) -> Manifest | None:
    """Return the account of the pods that make ValidatorRounds; None where none does."""
    if validator.spec.rounds is None:
        return None
    return _account(validator, names.rounds_name(validator.name), ROUNDS)


def _account(validator: Validator, name: str, component: str) -> Manifest:
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": name, "labels": labels(validator, component)},
        "automountServiceAccountToken": False,
    }
