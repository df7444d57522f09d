"""De-identification: recall and precision per class and language, and what a message costs.

Notes are made by a seed, their names held out from the recognisers' lists (tests/unit/privacy/notes.py). Whoever mends
the recognisers looks at what the first seed misses; so a second one, with names of other countries, tells what that was
worth beyond them. What it misses is for a reader of the table, and for no list of names.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from neurons.privacy import Deidentifier
from neurons.privacy.gazetteer import gazetteer
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.unit.privacy.measuring import Score, add
from tests.unit.privacy.notes import LANGUAGES, OTHER_LOCALES, notes

SEED: Final = 20_261
OTHER_SEED: Final = 31_339
_TOLD_OF_OTHERS: Final = ("name", "place", "vehiclePlate")
"""Classes whose forms are made of names; numbers and dates are the same in both."""
TARGET_MS: Final = 20.0
RECALL: Final = 99.0
PRECISION: Final = 90.0


def measure(options: Options) -> Result:
    """Measure."""
    before = _memory()
    deidentifier = Deidentifier.load(known=gazetteer(without_held_out=True))
    waited: list[float] = []
    worked: list[float] = []
    scores: dict[str, defaultdict[str, Score]] = {language: defaultdict(Score) for language in LANGUAGES}
    for note in notes(options.notes, seed=SEED):
        begun, begun_work = time.perf_counter(), time.process_time()
        found = deidentifier.find(note.text)
        waited.append((time.perf_counter() - begun) * 1000)
        worked.append((time.process_time() - begun_work) * 1000)  # of both threads
        add(scores[note.language], note.text, note.spans, [(each.kind.value, each.start, each.end) for each in found])
    others: dict[str, defaultdict[str, Score]] = {language: defaultdict(Score) for language in LANGUAGES}
    for note in notes(options.notes, seed=OTHER_SEED, locales=OTHER_LOCALES):
        found = deidentifier.find(note.text)
        add(others[note.language], note.text, note.spans, [(each.kind.value, each.start, each.end) for each in found])
    figures = [
        Figure(
            subject="one process", figure="time of one note", unit="ms", spread=Spread.of(waited), digits=1,
            p99=percentile(waited, 99), target=f"p50 at most {TARGET_MS:g} ms",
            met=Spread.of(waited).median <= TARGET_MS,
        ),
        Figure(
            subject="one process", figure="processor time of one note", unit="ms", spread=Spread.of(worked), digits=1,
            p99=percentile(worked, 99),
        ),
        *_figures(scores),
        *_figures(
            {
                f"other names, {language}": defaultdict(
                    Score, {kind: score for kind, score in by_kind.items() if kind in _TOLD_OF_OTHERS}
                )
                for language, by_kind in others.items()
            }
        ),
    ]  # fmt: skip
    return Result(
        name="deidentification",
        title="De-identification",
        how=(
            f"{options.notes} notes made by the seed {SEED}: half English, a quarter romanised Nepali, a quarter "
            "Devanagari, an eighth without any identifier. Names are Faker's, and the half of our Nepali ones that the "
            "measured recognisers don't know; the sentences around them are ours. **Forms that these notes showed "
            "were mended, so their figures say little of other texts.** Other names: as many notes by the seed "
            f"{OTHER_SEED}, with Faker's names of {', '.join(OTHER_LOCALES)}; nothing was mended by what they miss, "
            "but their sentences, Nepali names and quarters are of the same lists. Recall and precision by token, as "
            "presidio-evaluator counts them; a token counts as found when it was removed as whatever class."
        ),
        figures=tuple(figures),
        notes=(f"Loading took the process from {before:.0f} to {_memory():.0f} MB.",),
    )


def _figures(scores: dict[str, defaultdict[str, Score]]) -> list[Figure]:
    figures = []
    for language, by_kind in scores.items():
        for kind, score in sorted(by_kind.items()):
            subject = f"{language}: {kind}"
            if score.spans:
                figures += [
                    _share(subject, "recall", score.recall, score.tokens, RECALL),
                    _share(subject, "whole identifiers removed", score.span_recall, score.spans, None),
                ]
            if score.predicted:
                figures.append(_share(subject, "precision", score.precision, score.predicted, PRECISION))
    return figures


def _share(subject: str, figure: str, share: float, count: int, target: float | None) -> Figure:
    value = 100 * share
    return Figure(
        subject=subject, figure=f"{figure} (of {count})", unit="%", spread=Spread(value, value, value, 1), digits=1,
        target=None if target is None else f"≥ {target:g}%", met=None if target is None else value >= target,
    )  # fmt: skip


def _memory() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
