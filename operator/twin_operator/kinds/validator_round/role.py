"""Role R-round: a round's pods read and write its one ConfigMap."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.round_progress import progress_name
from twin_operator.domain.objects import Round
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.validator_round.labels import MEASURE, labels


def build_role(made: Round) -> Manifest:
    """Return the Role, limited by name to the progress ConfigMap."""
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": names.round_account_name(made.name), "labels": labels(made, MEASURE)},
        "rules": [
            {
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [progress_name(made.name)],
                "verbs": ["get", "patch"],
            }
        ],
    }  # fmt: skip
