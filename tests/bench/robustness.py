"""Killed after every write, with every view of a successor; and each property of each spec changed there and back.

`python -m tests.bench.robustness`, or `robustness` as one of `python -m tests.bench`. The whole operator over an API
server in memory, in time that jumps; `make test` runs a sample of it, and a sample on a real API server.
"""

from __future__ import annotations

import logging
import sys
import time

from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.operator.kill_points import VIEWS, Ending, View, run_scenario
from tests.unit.operator.spec_walk import Walked, walk

_SHOWN = 5


def measure(options: Options) -> Result:
    """Go through all kill points and all properties; raises BenchmarkError when the scenario itself fails."""
    logging.disable(logging.CRITICAL)  # thousands of lines of operators that are killed on purpose
    try:
        begun = time.monotonic()
        undisturbed = run_scenario()
        killed = {view: _differing(undisturbed, view) for view in VIEWS}
        walked = walk()
    except AssertionError as error:
        raise BenchmarkError(f"the scenario doesn't come to its end: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    points = len(undisturbed.writes)
    return Result(
        name="robustness",
        title="An operator that is killed anywhere, and specs that change there and back",
        how=(
            "The whole operator over an API server in memory: a pool, a twin, a fine-tune that is promoted, one that "
            f"is rolled back, the twin deleted and made anew. It writes {points} times undisturbed. It was killed "
            "after each write, and once after all of its writes; its successor saw everything, had a store that was "
            "six writes old before it listed, or had watches that stood still for 20 s after it took over. Compared "
            "are all objects but events, and how often each was created and deleted. Then each property of the "
            f"specs of DoctorTwin, MinerPool and Validator was changed and changed back ({walked.done} properties; "
            f"that of a FineTuneRun can't change). {time.monotonic() - begun:.0f} s in all."
        ),
        figures=_figures(points, killed, walked),
        notes=_notes(killed, walked),
    )


def _differing(undisturbed: Ending, view: View) -> dict[str, list[str]]:
    """Return in what the endings differ, by where the operator was killed."""
    found = {}
    for number, write in enumerate(undisturbed.writes, start=1):
        ending = run_scenario(lambda done, number=number: done == number, view=view)  # type: ignore[misc]
        if differences := undisturbed.differs(ending):
            found[f"{number} ({write})"] = differences
    if differences := undisturbed.differs(run_scenario(lambda done: True, view=view)):
        found["every write"] = differences
    return found


def _figures(points: int, killed: dict[View, dict[str, list[str]]], walked: Walked) -> tuple[Figure, ...]:
    told = {"fresh": "sees all", "stale": "was behind before it listed", "still": "watches stand still afterwards"}
    kills = [
        _count(
            f"killed after each of {points} writes and after all", f"other endings; the successor {told[view]}", found
        )
        for view, found in killed.items()
    ]
    return (*kills, _count(f"{walked.done} properties there and back", "other endings", walked.faults))


def _count(subject: str, figure: str, found: dict[str, list[str]]) -> Figure:
    return Figure(
        subject=subject, figure=figure, unit="", spread=Spread.of([float(len(found))]), digits=0, target="0",
        met=not found,
    )  # fmt: skip


def _notes(killed: dict[View, dict[str, list[str]]], walked: Walked) -> tuple[str, ...]:
    notes = [
        f"killed after {where}, {view}: {differences[0][:300]}"
        for view, found in killed.items()
        for where, differences in list(found.items())[:_SHOWN]
    ]
    notes += [f"{name}: {differences[0][:300]}" for name, differences in list(walked.faults.items())[:_SHOWN]]
    return tuple(notes)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["robustness", *sys.argv[1:]]))
