"""Labels by which a run's objects are found."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Run
from twin_operator.kinds.podspec.parts import common_labels


def labels(run: Run, component: str) -> dict[str, str]:
    """Return the labels of one of the run's objects; none of the pool's, which would take them for its own."""
    return {
        names.LABEL_RUN: run.name,
        names.LABEL_TWIN: run.spec.twin_ref.name,
        names.LABEL_COMPONENT: component,
        **common_labels(run.name, component),
    }
