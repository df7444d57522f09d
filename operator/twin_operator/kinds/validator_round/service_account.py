"""ServiceAccount R-round: the identity of a round's pods at the API server."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Round
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.validator_round.labels import MEASURE, labels


def build_service_account(made: Round) -> Manifest:
    """Return R-round; its token is mounted only where the pod says so."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": names.round_account_name(made.name), "labels": labels(made, MEASURE)},
        "automountServiceAccountToken": False,
    }
