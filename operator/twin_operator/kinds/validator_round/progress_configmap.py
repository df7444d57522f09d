"""ConfigMap R-progress: made by the operator with the round's order, filled by its Jobs."""

from __future__ import annotations

from bettertherapy_api.round_progress import ORDER_KEY, progress_name
from twin_operator.domain.objects import Round
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.validator_round.labels import PROGRESS, labels


def build_progress_configmap(made: Round, *, order: str) -> Manifest:
    """Return the ConfigMap; the Jobs' own keys are not stated, so they stay their own."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": progress_name(made.name), "labels": labels(made, PROGRESS)},
        "data": {ORDER_KEY: order},
    }
