"""How many emergencies are found, and how many false alarms, per language, style and kind; milliseconds a message.

The sets: `test` was written before the rules and mended by once, `second` was written after that and mended by, too;
`development` is what the rules were tuned on. `unseen` and `unseen-after` are another author's, who had not read the
rules; the first has been looked at for mending since, the second has been run and not used. `blind` was written by a
third author before that one had read the rules or the sets; it is run, and never mended by; `blind-two` likewise, by a
fourth, of what a doctor's chat meets in a year. What the first runs found stands in docs/emergencies.md. All but the
blind ones have been learned from since, by the classifier.
Processor time of one thread with words that were met before, as in a gateway that runs for a while.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from neurons.emergency import Assessment, assess
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread, percentile

SETS: Final = Path(__file__).parents[1] / "unit" / "emergency" / "sets"


def read_set(name: str) -> list[dict[str, Any]]:
    """Return the labelled messages of a set."""
    return [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def found_in(rows: list[dict[str, Any]]) -> tuple[list[Assessment], list[float]]:
    """Return what is said of each, and the milliseconds that it took."""
    said, took = [], []
    for row in rows:
        assess(row["messages"])
        began = time.process_time()
        said.append(assess(row["messages"]))
        took.append((time.process_time() - began) * 1000)
    return said, took


def measure(options: Options) -> Result:
    """Measure all sets; `options` has nothing that matters here."""
    del options
    figures: list[Figure] = []
    for name in ("development", "test", "second", "unseen", "unseen-after", "blind", "blind-two"):
        rows = read_set(name)
        said, took = found_in(rows)
        counts: Counter[tuple[str, bool, bool]] = Counter()
        for row, each in zip(rows, said, strict=True):
            for label in ("all", row["language"], row["style"], *row["kinds"]):
                counts[label, bool(row["kinds"]), each.is_emergency] += 1
        for label in dict.fromkeys(key[0] for key in counts):
            hit, missed = counts[label, True, True], counts[label, True, False]
            false, quiet = counts[label, False, True], counts[label, False, False]
            if hit + missed:
                figures.append(_share(name, f"{label}: recall, of {hit + missed}", hit / (hit + missed)))
            if false + quiet:
                figures.append(_share(name, f"{label}: false alarms, of {false + quiet}", false / (false + quiet)))
        spread = Spread.of(took)
        figures.append(Figure(subject=name, figure="one message", unit="ms", spread=spread, p99=percentile(took, 99)))
    return Result(
        name="emergency",
        title="Emergencies in patients' messages",
        how="Labelled messages, one after another, in one process; processor time.",
        figures=tuple(figures),
        notes=("All sets but the blind ones have been mended by or learned from: theirs are not of unseen messages.",),
        command="make bench BENCH_ARGS=emergency",
    )


def _share(subject: str, figure: str, share: float) -> Figure:
    return Figure(subject=subject, figure=figure, unit="%", spread=Spread.of([100 * share]), digits=1)
