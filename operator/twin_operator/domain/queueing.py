"""Which run may start: a pool has so many trainers at once, a twin one run at a time; the oldest that waits is next.

Examinations of what miners made come after all of the twins' own: a hundred of them may be delivered in a day, and no
night must wait for them. Those for which there is no time are given up, and count neither way.

A thousand runs may wait, so the question is answered without looking at all of them where the pool has no room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from twin_operator.domain.objects import Pool, Run
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding


def may_not_start(
    run: Run, *, pool: Pool, under_way: int, of_twin: Sequence[Run], waiting: Callable[[], Iterable[Run]],
    is_busy: Callable[[Run], bool],
) -> Finding | None:  # fmt: skip
    """Return why this run must wait; None when it is its turn.

    `under_way` trainers, each with its runs, have started in the pool and not ended. `of_twin` are the other runs of
    the same twin that have not ended, wherever they run. `waiting` gives the runs that wait for the pool, in any order;
    it is asked only when there is room. `is_busy` tells whether another run of that run's twin is under way.
    """
    twin = run.spec.twin_ref.name
    if any(other.started for other in of_twin):
        return Finding(Reason.TWIN_BUSY, f"another run of DoctorTwin {twin} is under way; a twin has one run at a time")
    first = min(of_twin, key=place, default=run)
    if place(first) < place(run):
        alike = is_examination(first) == is_examination(run)
        ahead = (
            f"an older run of DoctorTwin {twin} waits before it" if alike
            else f"run {first.name} of DoctorTwin {twin} goes first"
        )  # fmt: skip
        return Finding(Reason.TWIN_BUSY, f"{ahead}; a twin has one run at a time")
    limit = pool.fine_tune.max_concurrent_runs
    room = limit - under_way
    if room > 0 and _ahead(run, waiting(), is_busy, enough=room) < room:
        return None
    # Without its place in the line: that changes with each run that ends, and a thousand waiting ones would be written.
    turn = (
        "twins' own runs go first, then examinations of miners' versions, each the oldest first"
        if is_examination(run)
        else "the oldest that waits is next"
    )
    return Finding(
        Reason.POOL_BUSY, f"MinerPool {pool.name} runs {limit} at once (spec.fineTune.maxConcurrentRuns); {turn}"
    )


def in_line(waiting: Iterable[Run], of_twin: Callable[[Run], Iterable[Run]]) -> Iterator[Run]:
    """Yield those of `waiting` whose twins have no run under way and no older one that waits, the oldest first.

    `of_twin` gives all runs of a run's twin, wherever they are.
    """
    for run in sorted(waiting, key=place):
        others = [other for other in of_twin(run) if other.uid != run.uid and not other.ended]
        if not any(other.started or place(other) < place(run) for other in others):
            yield run


def _ahead(run: Run, waiting: Iterable[Run], is_busy: Callable[[Run], bool], *, enough: int) -> int:
    """Return how many twins have a run that is older and could start; counted up to `enough`."""
    older = sorted((each for each in waiting if place(each) < place(run)), key=place)
    twins: set[str] = set()
    for each in older:
        if each.spec.twin_ref.name not in twins and not is_busy(each):
            twins.add(each.spec.twin_ref.name)
            if len(twins) >= enough:
                break
    return len(twins)


def is_examination(run: Run) -> bool:
    """Tell whether a run only examines what somebody else made."""
    return run.spec.candidate is not None


def place(run: Run) -> tuple[bool, str, str]:
    """Return by what runs are ordered: the oldest first, and examinations of miners' versions after all others."""
    return is_examination(run), run.created, run.name
