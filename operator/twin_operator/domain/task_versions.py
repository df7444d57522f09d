"""Which versions of validators' tasks a twin takes up: those that its doctor chose, and no others. Pure.

Whatever else came of a task says nothing of the twin: neither is it its last gate, nor does it spend of the error that
the anchor shares among the twin's own nights.
"""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Run, Twin


def is_chosen(twin: Twin, digest: str) -> bool:
    """Tell whether the twin's doctor approved this very version."""
    return twin.annotations.get(names.APPROVE_ANNOTATION) == digest


def is_twins_own(twin: Twin, run: Run) -> bool:
    """Tell whether a run is the twin's: any but a validator's task whose version nobody chose."""
    if run.spec.task is None:
        return True
    made = run.status.artifact
    promoted = run.condition("Promoted")
    return made is not None and (is_chosen(twin, made.digest) or (promoted is not None and promoted[0] == "True"))
