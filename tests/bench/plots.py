"""The plots of docs/benchmarks.md, drawn from a benchmark's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.best_of import GAIN
from tests.bench.results import ROOT

IMAGES: Final = ROOT / "docs" / "images"


def draw(result: Mapping[str, Any], folder: Path = IMAGES) -> str | None:
    """Draw what a benchmark has a plot for and return the Markdown that shows it; None where it has none."""
    if result["name"] != "best_of":
        return None
    points = _points(result)
    if len(points) < 2:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    _draw_trade(points, result["how"].partition(",")[0], folder / "candidates.svg")
    said = "; ".join(f"{number}: {gain[1]:+.1f} points at {seconds[1]:.2f} s" for number, gain, seconds in points)
    return f"![Score gained and latency by the number of candidates. {said}](images/candidates.svg)"


def _points(result: Mapping[str, Any]) -> list[tuple[int, tuple[float, float, float], tuple[float, float, float]]]:
    """Return (candidates, gain in points, latency in seconds), the latter two as low, middle, high."""
    spreads: dict[tuple[int, str], tuple[float, float, float]] = {}
    for figure in result["figures"]:
        if (named := re.fullmatch(r"through a miner, (\d+) candidates?", figure["subject"])) is not None:
            spread = figure["spread"]
            spreads[int(named[1]), figure["figure"]] = (spread["minimum"], spread["median"], spread["maximum"])
    gains = {number: spread for (number, figure), spread in spreads.items() if figure == GAIN} | {1: (0.0, 0.0, 0.0)}
    latencies = {number: spread for (number, figure), spread in spreads.items() if figure == "latency"}
    return [(number, gains[number], latencies[number]) for number in sorted(gains.keys() & latencies.keys())]


def _draw_trade(
    points: list[tuple[int, tuple[float, float, float], tuple[float, float, float]]], model: str, path: Path
) -> None:
    # Costs half a second, which nobody pays who only measures.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "bettertherapy", "font.size": 10, "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        seconds = [latency[1] for _, _, latency in points]
        gained = [gain[1] for _, gain, _ in points]
        below = [gain[1] - gain[0] for _, gain, _ in points]
        above = [gain[2] - gain[1] for _, gain, _ in points]
        axes.errorbar(seconds, gained, yerr=(below, above), marker="o", capsize=4, linewidth=1.2, color="#1f5fa8")
        for number, gain, latency in points:
            axes.annotate(f"{number}", (latency[1], gain[1]), xytext=(7, -12), textcoords="offset points")
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.set_xlabel("latency of an answer, median, in seconds")
        axes.set_ylabel("score above 1 candidate's, in points\n(mean, 95% interval)")
        axes.set_title(f"Candidates: accuracy against latency\n{model}", fontsize=10, loc="left")
        axes.grid(visible=True, linewidth=0.3)
        figure.savefig(path, metadata={"Date": None})
