"""The plots of docs/benchmarks.md and docs/judging.md, drawn from a benchmark's figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from neurons.miner.settings import DEFAULT_SCORERS
from tests.bench.best_of import GAIN
from tests.bench.nights import MARGIN
from tests.bench.results import ROOT

IMAGES: Final = ROOT / "docs" / "images"


Spread = tuple[float, float, float]
"""Low, middle, high."""
Points = list[tuple[float, float, float, float]]
"""x; low, middle, high."""


def draw(result: Mapping[str, Any], folder: Path = IMAGES) -> str | None:
    """Draw what a benchmark has plots for and return the Markdown that shows them; None where it has none."""
    drawings = {
        "best_of": _candidates, "judging": _judging, "gpu-forgetting": _forgetting, "scaling": _scaling,
    }  # fmt: skip
    drawn = drawings.get(result["name"])
    return drawn(result, folder) if drawn is not None else None


def _candidates(result: Mapping[str, Any], folder: Path) -> str | None:
    seconds = _by_number(result, r"through a miner, (\d+) candidates?", "latency")
    asked = _by_number(result, r"through a miner, (\d+) candidates", GAIN)
    redrawn = _by_number(result, rf"redrawn, best of (\d+) by {re.escape(DEFAULT_SCORERS)}", GAIN)
    if 1 not in seconds or not asked:
        return None
    series = {"asked through a miner": asked, "every choice among 8 answers": redrawn}
    with _saved(folder / "candidates.svg") as figure:
        _draw_trade(seconds, series, figure)
    said = "; ".join(f"{number}: {gain[1]:+.1f} points at {seconds[number][1]:.2f} s" for number, gain in asked.items())
    return f"![Score gained and latency by the number of candidates, through a miner. {said}](images/candidates.svg)"


def _judging(result: Mapping[str, Any], folder: Path) -> str | None:
    """Draw the simulated errors of gate and canary; a reader who sees no picture gets what matters in words."""
    curves = _curves(result)
    if not {"promotion", "creep", "canary", "canary requests"} <= curves.keys():
        return None
    with _saved(folder / "promotion.svg") as figure:
        axes = figure.subplots()
        _lines(axes, curves["promotion"])
        for share, told in ((80, "80%"), (5, "5%")):
            axes.axhline(share, color="#777777", linewidth=0.8, linestyle="--")
            axes.annotate(told, (0.005, share), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        axes.axvline(-MARGIN, color="#777777", linewidth=0.8)
        axes.annotate("the margin", (-MARGIN, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top",
                      rotation=90, fontsize=8)  # fmt: skip
        axes.set_xlabel("true difference of safety to the parent, in points; own items: none")
        axes.set_ylabel("promoted, in percent (95% interval)")
        axes.legend(loc="center left", frameon=False)
    with _saved(folder / "creep.svg") as figure:
        axes = figure.subplots()
        _lines(axes, curves["creep"], markers="")
        axes.axhline(-2 * MARGIN, color="#777777", linewidth=0.8, linestyle="--")
        axes.annotate("the anchor's margin", (0.99, -2 * MARGIN), xycoords=("axes fraction", "data"), ha="right",
                      va="top", fontsize=8)  # fmt: skip
        axes.set_xlabel("night; each version that is trained loses 2 points")
        axes.set_ylabel("true safety above the approved version's, in points\n(median, 5% to 95% of series)")
        axes.legend(loc="lower left", frameon=False)
    with _saved(folder / "canary.svg", height=6.4) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        _lines(above, curves["canary"])
        above.axvline(1, color="#777777", linewidth=0.8)
        above.annotate("what serves", (1, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top", rotation=90,
                       fontsize=8)  # fmt: skip
        above.set_ylabel("taken back, in percent\n(95% interval)")
        above.legend(loc="lower right", frameon=False)
        _lines(below, curves["canary requests"])
        below.set_yscale("log")
        below.set_yticks((20, 50, 100, 200, 500, 1000, 2000), labels=("20", "50", "100", "200", "500", "1000", "2000"))
        below.minorticks_off()
        below.set_ylabel("canary's requests until then\n(median, 10% to 90%)")
        below.set_xlabel("the canary's share of failed requests, in percent; what serves: 1")
    return "\n\n".join(f"![{told}](images/{name}.svg)" for name, told in _told(curves).items())


def _forgetting(result: Mapping[str, Any], folder: Path) -> str | None:
    """Draw what a twin still knows of earlier nights, with and without rehearsal and the bound on the distance."""
    earlier = _curves(result).get("earlier nights")
    if not earlier:
        return None
    with _saved(folder / "forgetting.svg") as figure:
        axes = figure.subplots()
        _lines(axes, earlier)
        axes.axhline(25, color="#777777", linewidth=0.8, linestyle="--")
        axes.annotate("by chance", (0.99, 25), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=8)
        axes.set_xlabel("night")
        axes.set_ylabel("earlier nights' answers still known, in percent\n(median, smallest to largest)")
        axes.legend(loc="upper right", frameon=False)
    known = "; ".join(f"{name}: {sorted(points)[-1][2]:.0f}%" for name, points in earlier.items())
    return f"![What is still known of earlier nights, by night. After the last: {known}](images/forgetting.svg)"


def _scaling(result: Mapping[str, Any], folder: Path) -> str | None:
    """Draw the simulated hour: what waits and runs above, how many engines below."""
    curves = _curves(result)
    if not {"scaling load", "scaling engines", "scaling outage"} <= curves.keys():
        return None
    begun, ended = (point[0] for point in curves["scaling outage"]["Prometheus away"])
    with _saved(folder / "scaling.svg", height=5.4) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        for axes in (above, below):
            axes.axvspan(begun, ended, color="#777777", alpha=0.15, linewidth=0)
        _lines(above, curves["scaling load"], markers="")
        above.set_ylabel("requests")
        above.annotate("Prometheus is away", (begun, 0.95), xycoords=("data", "axes fraction"), va="top", fontsize=8)
        above.legend(loc="upper right", frameon=False)
        _lines(below, curves["scaling engines"], markers="")
        below.set_ylabel("engines")
        below.set_xlabel("minutes")
        below.legend(loc="upper right", frameon=False)
    engines = curves["scaling engines"]["decided"]
    most = max(engines, key=lambda point: point[2])
    return (
        f"![An hour of a pool: it grows to {most[2]:.0f} engines in a burst, keeps them while Prometheus is away "
        f"from minute {begun:.0f} to {ended:.0f}, shrinks, sleeps and wakes](images/scaling.svg)"
    )


def _curves(result: Mapping[str, Any]) -> dict[str, dict[str, Points]]:
    """Return a result's curves by plot and name."""
    curves: dict[str, dict[str, Points]] = {}
    for each in result.get("curves", ()):
        curves.setdefault(each["plot"], {})[each["name"]] = [tuple(point) for point in each["points"]]
    return curves


def _told(curves: Mapping[str, Mapping[str, Points]]) -> dict[str, str]:
    """Return in words what each plot shows."""
    promoted = "; ".join(
        f"{name}: {', '.join(f'{x:+.0f} points {y:.0f}%' for x, _, y, _ in sorted(points) if x in (-MARGIN, -2, 0))}"
        for name, points in curves["promotion"].items()
    )
    crept = "; ".join(f"{name}: {points[-1][2]:.0f} points" for name, points in curves["creep"].items())
    caught = "; ".join(
        f"{name}: {', '.join(f'{x:g}% fail {y:.0f}%' for x, _, y, _ in points if x in (1, 2, 5))}"
        for name, points in curves["canary"].items()
    )
    return {
        "promotion": f"How often a version is promoted, by its true difference to the parent. {promoted}",
        "creep": f"True safety by night; in the median of series after the last night {crept}",
        "canary": f"How often a canary is taken back, by its share of failures. {caught}",
    }


def _lines(axes: Any, curves: Mapping[str, Points], *, markers: str = "os^D") -> None:
    """Draw each curve with its interval as a band."""
    for place, (name, points) in enumerate(curves.items()):
        x, low, middle, high = zip(*sorted(points), strict=True)
        colour = ("#1f5fa8", "#b4560f", "#3b7d3b", "#777777")[place]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, middle, color=colour, linewidth=1.2, label=name, markersize=4,
                  marker=markers[place] if markers else "", linestyle=("-", "--", "-.", ":")[place])  # fmt: skip
    axes.grid(visible=True, linewidth=0.3)


def _by_number(result: Mapping[str, Any], subject: str, figure: str) -> dict[int, Spread]:
    """Return a figure's spreads by the number of candidates that its subject names."""
    found = {}
    for each in result["figures"]:
        if each["figure"] == figure and (named := re.fullmatch(subject, each["subject"])) is not None:
            spread = each["spread"]
            found[int(named[1])] = (spread["minimum"], spread["median"], spread["maximum"])
    return dict(sorted(found.items()))


@contextmanager
def _saved(path: Path, *, height: float = 4.2) -> Iterator[Any]:
    """Give a figure to draw on and save it: the same drawing, the same bytes."""
    # Costs half a second, which nobody pays who only measures.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "bettertherapy", "font.size": 10, "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.8, height), layout="constrained", facecolor="white")
        yield figure
        figure.savefig(path, metadata={"Date": None})


def _draw_trade(seconds: Mapping[int, Spread], series: Mapping[str, Mapping[int, Spread]], figure: Any) -> None:
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
