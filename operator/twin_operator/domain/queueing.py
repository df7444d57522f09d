"""Which run may start: one at a time for a twin, so many at once in a pool, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twin_operator.domain.objects import Pool
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding


@dataclass(frozen=True, kw_only=True, order=True)
class Ticket:
    """A run that has not ended, in its place in the queue: by age, then by name."""

    created: str
    name: str
    twin: str
    started: bool
    twin_busy: bool = False
    """Another run of the same twin, in whichever pool, is under way."""


def may_not_start(run: str, tickets: Sequence[Ticket], pool: Pool) -> Finding | None:
    """Return why this run, whose ticket is among `tickets`, must wait; None when it is its turn."""
    own = next(ticket for ticket in tickets if ticket.name == run)
    if own.twin_busy:
        return Finding(
            Reason.TWIN_BUSY, f"another run of DoctorTwin {own.twin} is under way; a twin has one run at a time"
        )
    limit = pool.fine_tune.max_concurrent_runs
    under_way = sum(ticket.started for ticket in tickets)
    line = waiting_line(tickets)
    if own not in line:
        return Finding(
            Reason.TWIN_BUSY, f"an older run of DoctorTwin {own.twin} waits before it; a twin has one run at a time"
        )
    if line.index(own) < limit - under_way:
        return None
    # Without its place in the line: that changes with each run that ends, and a thousand waiting ones would be written.
    return Finding(
        Reason.POOL_BUSY,
        f"MinerPool {pool.name} runs {limit} at once (spec.fineTune.maxConcurrentRuns); the oldest that waits is next",
    )


def waiting_line(tickets: Sequence[Ticket]) -> list[Ticket]:
    """Return those that could start now, in their order: the oldest of each twin that has no run under way."""
    busy = {ticket.twin for ticket in tickets if ticket.started}
    line = []
    for ticket in sorted(tickets):
        if ticket.started or ticket.twin_busy or ticket.twin in busy:
            continue
        busy.add(ticket.twin)
        line.append(ticket)
    return line
