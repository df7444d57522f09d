"""How often versions of the same lines were examined, and versions compared with the same anchor: the twin's memory,
which no trainer can reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bettertherapy_api.doctor_twin import MAX_ANCHORS, MAX_EXAMINED, AnchorLooks, ExaminedLines
from bettertherapy_api.finetune_run import Anchor
from bettertherapy_api.gate.budget import LOOKS, Look
from twin_operator.domain.objects import Run, Twin
from twin_operator.domain.task_versions import is_twins_own

_MAX_RUNS = 16


def attempt(twin: Twin, runs: Sequence[Run], *, dataset: str, uid: str) -> int:
    """Return which version on these lines it is that the run of that UID made, counted from 1. `runs` are the twin's.

    A run that is looked at again is the one that it was.
    """
    before = _memory(twin).get(dataset, ())
    before += tuple(run for found, run in _examined(runs) if found == dataset and run not in before)
    return before.index(uid) + 1 if uid in before else len(before) + 1


def remembered(twin: Twin, runs: Sequence[Run]) -> list[ExaminedLines]:
    """Return the twin's memory with what its runs came to since, the newest lines first."""
    before = _memory(twin)
    memory = dict(before)
    for dataset, uid in _examined(runs):
        known = memory.get(dataset, ())
        if uid not in known and len(known) < _MAX_RUNS:
            memory[dataset] = (*known, uid)
    # What is as it was keeps its place, or the status would never be the same twice.
    fresh = [dataset for dataset in memory if before.get(dataset) != memory[dataset]]
    order = [*reversed(fresh), *(dataset for dataset in before if dataset not in fresh)]
    return [ExaminedLines(dataset_digest=dataset, runs=list(memory[dataset])) for dataset in order[:MAX_EXAMINED]]


def is_remembered(twin: Twin, run: Run) -> bool:
    """Tell whether the twin knows of the run's examination, so that the run may be forgotten."""
    return _lines_remembered(twin, run) and _look_remembered(twin, run)


def look(twin: Twin, runs: Sequence[Run], *, anchor: Anchor, uid: str) -> Look:
    """Return how often versions were compared with the anchor, that of the run of that UID included. `runs` are the
    twin's."""
    known = next((each for each in compared(twin, runs) if each.digest == anchor.digest), None)
    if known is None:
        return Look()
    before = len(known.runs) - (uid in known.runs)
    # Of a run that is looked at again: what came of it is not known here, and one less promoted is the careful side.
    return Look(number=before + 1, promoted=max(0, known.promoted - (uid in known.runs)))


def compared(twin: Twin, runs: Sequence[Run]) -> list[AnchorLooks]:
    """Return the twin's memory of anchors with what its runs came to since, the newest first."""
    memory = {each.digest: each for each in twin.status.compared or []}
    fresh: dict[str | None, AnchorLooks] = {}
    for run in _over(runs):
        if run.spec.anchor is None or not is_twins_own(twin, run):
            continue
        digest = run.spec.anchor.digest
        known = fresh.get(digest) or memory.get(digest)
        so_far = known.runs if known is not None else []
        if run.uid in so_far or len(so_far) >= LOOKS:
            continue
        promoted = known.promoted if known is not None else 0
        if run.status.eval is not None and run.status.eval.verdict == "Promote":
            promoted += 1
        fresh[digest] = AnchorLooks(digest=digest, runs=[*so_far, run.uid], promoted=promoted)
    # What is as it was keeps its place, or the status would never be the same twice.
    return [*reversed(fresh.values()), *(each for digest, each in memory.items() if digest not in fresh)][:MAX_ANCHORS]


def _look_remembered(twin: Twin, run: Run) -> bool:
    if run.status.eval is None or run.spec.anchor is None or not is_twins_own(twin, run):
        return True
    memory = {each.digest: each.runs for each in twin.status.compared or []}
    known = memory.get(run.spec.anchor.digest, [])
    return run.uid in known or len(known) >= LOOKS or len(memory) >= MAX_ANCHORS


def _lines_remembered(twin: Twin, run: Run) -> bool:
    if run.status.eval is None or run.status.dataset is None:
        return True
    memory = _memory(twin)
    known = memory.get(run.status.dataset.digest or "", ())
    return run.uid in known or len(known) >= _MAX_RUNS or len(memory) >= MAX_EXAMINED


def _memory(twin: Twin) -> dict[str, tuple[str, ...]]:
    return {each.dataset_digest: tuple(each.runs) for each in twin.status.examined or []}


def _examined(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Yield dataset and UID of each run whose version was examined, the oldest first."""
    for run in _over(runs):
        if run.status.dataset is not None and run.status.dataset.digest:
            yield run.status.dataset.digest, run.uid


def _over(runs: Sequence[Run]) -> list[Run]:
    """Return those whose version was examined, the oldest first."""
    over = [run for run in runs if run.status.eval is not None]
    return sorted(over, key=lambda each: (each.status.completion_time or "", each.name))
