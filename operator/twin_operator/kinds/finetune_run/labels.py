"""Labels by which a run's objects are found."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Run


def labels(run: Run, component: str) -> dict[str, str]:
    """Return the labels of one of the run's objects; none of the pool's, which would take them for its own."""
    return {
        names.LABEL_RUN: run.name,
        names.LABEL_TWIN: run.spec.twin_ref.name,
        names.LABEL_COMPONENT: component,
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        "app.kubernetes.io/part-of": "bettertherapy",
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": run.name,
    }
