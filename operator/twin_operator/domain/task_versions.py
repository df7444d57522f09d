"""Which versions of validators' tasks a twin takes up: those that its doctor chose, and no others. Pure.

Whatever else came of a task says nothing of the twin: neither is it its last gate, nor does it spend of the error that
the anchor shares among the twin's own nights.
"""

from __future__ import annotations

from collections.abc import Sequence

from bettertherapy_api import names
from twin_operator.domain.objects import Run, Twin
from twin_operator.engine.times import moment


def is_chosen(twin: Twin, digest: str) -> bool:
    """Tell whether the twin's doctor approved this very version."""
    return twin.annotations.get(names.APPROVE_ANNOTATION) == digest


def is_twins_own(twin: Twin, run: Run) -> bool:
    """Tell whether a run is the twin's: any but a validator's task whose version nobody chose."""
    if not run.of_task:
        return True
    made = run.status.artifact
    promoted = run.condition("Promoted")
    return made is not None and (is_chosen(twin, made.digest) or (promoted is not None and promoted[0] == "True"))


def better_than(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the candidate that did best, of all that passed from the same parent, if it is another one.

    By its score over the parent's; of equals the one that was examined first. Those on which the doctor or the rollout
    has decided are out.
    """
    if run.spec.candidate is None:
        return None
    rivals = [
        each
        for each in (run, *(each for each in runs if each.uid != run.uid and not _is_decided(each)))
        if each.spec.candidate is not None
        and each.status.verdict == "Promote"
        and each.spec.parent_digest == run.spec.parent_digest
    ]
    best = max(rivals, key=lambda each: (_gain(each), -_age(each)), default=None)
    return best if best is not None and best.uid != run.uid else None


def waits_for_choice(run: Run, runs: Sequence[Run]) -> bool:
    """Tell whether a task's version that nobody chose is kept beyond its time: the best one that the doctor may choose.

    Of a hundred that miners made in a day for one twin, the others go.
    """
    return run.spec.candidate is not None and better_than(run, runs) is None


def _is_decided(run: Run) -> bool:
    return any((run.condition(kind) or ("",))[0] == "True" for kind in ("Promoted", "Rejected"))


def _gain(run: Run) -> int:
    gate = run.status.eval
    found = next((each for each in (gate.metrics if gate else None) or [] if each.name == "score"), None)
    if found is None:
        return -101
    return found.value_percent - (found.baseline_percent if found.baseline_percent is not None else 0)


def _age(run: Run) -> float:
    return moment(run.status.completion_time).timestamp() if run.status.completion_time else float("inf")
