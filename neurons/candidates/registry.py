"""The scorers by name: our own, and those that installed packages offer under an entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Final

from neurons.candidates.agreement import Agreement
from neurons.candidates.candidate import Scorer
from neurons.candidates.choosing import Weighted
from neurons.candidates.likelihood import Likelihood
from neurons.candidates.support import Support

ENTRY_POINTS: Final = "bettertherapy.candidate_scorers"
"""Group of entry points: a name, and a callable without arguments that returns a Scorer."""
BUILT_IN: Final[dict[str, Callable[[], Scorer]]] = {
    "agreement": Agreement,
    "likelihood": Likelihood,
    "support": Support,
}
MAX_WEIGHT: Final = 1000.0


class ScorerSettingError(ValueError):
    """The setting names no scorers; the message is a sentence."""


def read_scorers(text: str) -> tuple[Weighted, ...]:
    """Read `agreement:2,likelihood` (a weight of 1 where none is given). Raises ScorerSettingError."""
    found: dict[str, Weighted] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        if not name:
            raise ScorerSettingError(f"{text[:200]!r} names no scorer: write NAME or NAME:WEIGHT, with commas between")
        if name in found:
            raise ScorerSettingError(f"the scorer {name[:60]!r} is named twice")
        found[name] = Weighted(name, _made(name), _weight(name, weight))
    return tuple(found.values())


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text or "1")
    except ValueError:
        weight = -1.0
    if not 0 < weight <= MAX_WEIGHT:
        raise ScorerSettingError(f"the weight of {name[:60]!r} is {text[:20]!r}: it must be above 0, at most 1000")
    return weight


def _made(name: str) -> Scorer:
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        return built_in()
    offered = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted({*BUILT_IN, *offered}))
        raise ScorerSettingError(
            f"there is no scorer {name[:60]!r}: {known}. A plug-in is an installed package with an entry point in the "
            f"group {ENTRY_POINTS}"
        )
    try:
        scorer: Scorer = offered[name].load()()
        usable = isinstance(scorer.needs_logprobs, bool) and callable(scorer.score)
    except Exception as error:
        raise ScorerSettingError(f"the scorer {name[:60]!r} can't be made: {type(error).__name__}: {error}") from error
    if not usable:
        raise ScorerSettingError(f"the scorer {name[:60]!r} has no `needs_logprobs` or no `score`")
    return scorer
