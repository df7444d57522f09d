"""The plots of docs/benchmarks.md, drawn from a benchmark's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from neurons.miner.settings import DEFAULT_SCORERS
from tests.bench.best_of import GAIN
from tests.bench.results import ROOT

IMAGES: Final = ROOT / "docs" / "images"


Spread = tuple[float, float, float]
"""Low, middle, high."""


def draw(result: Mapping[str, Any], folder: Path = IMAGES) -> str | None:
    """Draw what a benchmark has a plot for and return the Markdown that shows it; None where it has none."""
    if result["name"] != "best_of":
        return None
    seconds = _by_number(result, r"through a miner, (\d+) candidates?", "latency")
    asked = _by_number(result, r"through a miner, (\d+) candidates", GAIN)
    redrawn = _by_number(result, rf"redrawn, best of (\d+) by {re.escape(DEFAULT_SCORERS)}", GAIN)
    if 1 not in seconds or not asked:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    series = {"asked through a miner": asked, "every choice among 8 answers": redrawn}
    _draw_trade(seconds, series, folder / "candidates.svg")
    said = "; ".join(f"{number}: {gain[1]:+.1f} points at {seconds[number][1]:.2f} s" for number, gain in asked.items())
    return f"![Score gained and latency by the number of candidates, through a miner. {said}](images/candidates.svg)"


def _by_number(result: Mapping[str, Any], subject: str, figure: str) -> dict[int, Spread]:
    """Return a figure's spreads by the number of candidates that its subject names."""
    found = {}
    for each in result["figures"]:
        if each["figure"] == figure and (named := re.fullmatch(subject, each["subject"])) is not None:
            spread = each["spread"]
            found[int(named[1])] = (spread["minimum"], spread["median"], spread["maximum"])
    return dict(sorted(found.items()))


def _draw_trade(seconds: Mapping[int, Spread], series: Mapping[str, Mapping[int, Spread]], path: Path) -> None:
    # Costs half a second, which nobody pays who only measures.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "bettertherapy", "font.size": 10, "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.8, 4.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for place, (name, gains) in enumerate(series.items()):
            shown = {1: (0.0, 0.0, 0.0), **{number: gain for number, gain in gains.items() if number in seconds}}
            axes.errorbar(
                # Side by side, so that one's interval doesn't hide the other's.
                [seconds[number][1] * (1 + 0.006 * place) for number in shown],
                [gain[1] for gain in shown.values()],
                yerr=(
                    [gain[1] - gain[0] for gain in shown.values()],
                    [gain[2] - gain[1] for gain in shown.values()],
                ),
                marker="os"[place], capsize=4, linewidth=1.2, color=("#1f5fa8", "#b4560f")[place], label=name,
            )  # fmt: skip
        low, _ = axes.get_ylim()
        for number, latency in seconds.items():
            axes.annotate(f"{number}", (latency[1], low), xytext=(0, 4), textcoords="offset points", ha="center")
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.set_xlabel("latency of an answer, median, in seconds; above it: candidates")
        axes.set_ylabel("score above 1 candidate's, in points\n(mean, 95% interval)")
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(loc="upper left", frameon=False)
        figure.savefig(path, metadata={"Date": None})
