"""Labels by which a round's objects are found."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from twin_operator.domain.objects import Round
from twin_operator.kinds.podspec.parts import common_labels

MEASURE: Final = "round"
WEIGHTS: Final = "round-weights"
RECOMPUTE: Final = "round-recompute"
PROGRESS: Final = "progress"
COMPONENTS: Final = (MEASURE, WEIGHTS, RECOMPUTE)
"""Of a round's pods."""


def labels(made: Round, component: str) -> dict[str, str]:
    """Return the labels of one of the round's objects."""
    return {names.LABEL_ROUND: made.name, names.LABEL_COMPONENT: component, **common_labels(made.name, component)}


def pod_labels(made: Round, component: str) -> dict[str, str]:
    """Return the labels of one of its pods; the validator's says beside which gateway it may run."""
    return {names.LABEL_VALIDATOR: made.validator, **labels(made, component)}
