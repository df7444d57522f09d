"""Requests by chance to every HTTP door (agent, miner, gateway, pages, local chain): what fails, what hangs.

`python -m tests.bench.fuzz`, or `fuzz` as one of `python -m tests.bench`. The suite sends some hundreds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.doors.fuzzing import Outcome, drawn, send_all
from tests.unit.doors.http_processes import all_doors

_SHOWN = 5


def measure(options: Options) -> Result:
    """Send `fuzz_requests`, the same number to each process."""
    outcomes = asyncio.run(_outcomes(options.fuzz_requests))
    notes = [
        f"{name}: {json.dumps({str(status): count for status, count in sorted(outcome.statuses.items())})}"
        for name, outcome in outcomes.items()
    ]
    for name, outcome in outcomes.items():
        notes += [f"{name} hung on {request[:200]!r}" for request in outcome.hung[:_SHOWN]]
        notes += [f"{name} answered {status} to {each[:200]!r}" for status, each, _ in outcome.failed[:_SHOWN]]
    return Result(
        name="fuzz",
        title="Requests by chance to every HTTP door",
        how=(
            "An agent before a stand-in engine, a miner with a hotkey, a gateway with its pages and a ledger, and the "
            f"local chain, each a process; {options.fuzz_requests} requests made by hypothesis: paths, headers and "
            "bodies like those that they take, with anything in any place, and malformed ones. A 5xx counts that is no "
            "engine's failure or absence told in words, and an answer that doesn't come within 20 s."
        ),
        figures=tuple(_figures(outcomes)),
        notes=tuple(notes),
    )


async def _outcomes(count: int) -> dict[str, Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        async with all_doors(Path(folder)) as doors:
            each = -(-count // len(doors))
            return {door.name: await send_all(door, drawn(door, each)) for door in doors.values()}


def _figures(outcomes: dict[str, Outcome]) -> list[Figure]:
    sent = sum(sum(outcome.statuses.values()) + len(outcome.hung) for outcome in outcomes.values())
    counts = (
        ("5xx that are not the engine's", sum(len(outcome.failed) for outcome in outcomes.values())),
        ("answers that didn't come", sum(len(outcome.hung) for outcome in outcomes.values())),
    )
    return [
        Figure(
            subject=f"{sent} requests", figure=figure, unit="", digits=0, spread=Spread.of([float(count)]), target="0",
            met=count == 0,
        )
        for figure, count in counts
    ]  # fmt: skip


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["fuzz", *sys.argv[1:]]))
