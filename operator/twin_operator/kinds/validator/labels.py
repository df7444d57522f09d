"""Labels by which a validator's objects are found."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator

GATEWAY = "gateway"
LEDGER = "ledger"


def selector_labels(validator: Validator, component: str) -> dict[str, str]:
    """Return the labels by which a component's pods are found; never changed, since a Deployment's selector can't."""
    return {names.LABEL_VALIDATOR: validator.name, names.LABEL_COMPONENT: component}


def labels(validator: Validator, component: str) -> dict[str, str]:
    """Return the labels of one of the validator's objects; none of a pool's, which would take them for its own."""
    return {
        **selector_labels(validator, component),
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        "app.kubernetes.io/part-of": "bettertherapy",
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": validator.name,
    }
