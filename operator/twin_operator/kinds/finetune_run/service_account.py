"""ServiceAccount R-trainer: the identity of a run's pod at the API server."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_service_account(run: Run) -> Manifest:
    """Return R-trainer; its token is mounted only where the pod says so."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": names.trainer_name(run.name), "labels": labels(run, "trainer")},
        "automountServiceAccountToken": False,
    }
