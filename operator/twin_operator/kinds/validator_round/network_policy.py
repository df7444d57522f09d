"""NetworkPolicy R-round: nobody reaches a round's pods. Outwards nothing is limited: miners are anywhere."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Round
from twin_operator.engine.resources import NETWORK_POLICY, Manifest
from twin_operator.kinds.validator_round.labels import MEASURE, labels


def build_network_policy(made: Round) -> Manifest:
    """Return the policy of all the round's pods."""
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": {"name": names.round_account_name(made.name), "labels": labels(made, MEASURE)},
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_ROUND: made.name}},
            "policyTypes": ["Ingress"],
            "ingress": [],
        },
    }
