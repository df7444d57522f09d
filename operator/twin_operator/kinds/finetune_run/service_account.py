"""ServiceAccounts R-trainer and R-examiner: the identities of a run's pods at the API server."""

from __future__ import annotations

from twin_operator.domain.objects import Run
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_service_account(run: Run, name: str, component: str) -> Manifest:
    """Return the account of `trainer` or `examiner`; its token is mounted only where the pod says so."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": name, "labels": labels(run, component)},
        "automountServiceAccountToken": False,
    }
