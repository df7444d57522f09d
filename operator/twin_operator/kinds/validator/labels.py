"""Labels by which a validator's objects are found."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.kinds.podspec.parts import common_labels

GATEWAY = "gateway"
LEDGER = "ledger"
DATASETS = "datasets"
ROUNDS = "rounds"


def selector_labels(validator: Validator, component: str) -> dict[str, str]:
    """Return the labels by which a component's pods are found; never changed, since a Deployment's selector can't."""
    return {names.LABEL_VALIDATOR: validator.name, names.LABEL_COMPONENT: component}


def labels(validator: Validator, component: str) -> dict[str, str]:
    """Return the labels of one of the validator's objects; none of a pool's, which would take them for its own."""
    return {**selector_labels(validator, component), **common_labels(validator.name, component)}
