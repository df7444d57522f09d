"""What a plot shows is what the figures say."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.bench.best_of import GAIN
from tests.bench.plots import draw


def figure(subject: str, what: str, low: float, middle: float, high: float) -> dict[str, Any]:
    return {"subject": subject, "figure": what, "spread": {"minimum": low, "median": middle, "maximum": high}}


def result(*figures: dict[str, Any], name: str = "best_of") -> dict[str, Any]:
    return {"name": name, "how": "a model, at some temperature", "figures": list(figures)}


ONE = figure("through a miner, 1 candidate", "latency", 0.1, 0.25, 0.5)
FOUR = (
    figure("through a miner, 4 candidates", "latency", 0.1, 0.31, 0.6),
    figure("through a miner, 4 candidates", GAIN, 2.0, 7.2, 12.5),
)
PATIENT = figure("through a miner, 4 candidates, all waited for", GAIN, 2.0, 8.3, 12.5)


def test_each_number_of_candidates_is_named_with_its_gain_and_its_latency(tmp_path: Path) -> None:
    shown = draw(result(ONE, *FOUR, PATIENT), tmp_path)
    assert shown is not None
    assert "4: +7.2 points at 0.31 s]" in shown
    texts = {"".join(text.itertext()).strip() for text in ET.parse(tmp_path / "candidates.svg").iter() if text.text}
    assert {"1", "4", "asked through a miner"} <= texts


def test_the_same_figures_draw_the_same_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw(result(ONE, *FOUR), tmp_path / folder)
    assert (tmp_path / "a" / "candidates.svg").read_bytes() == (tmp_path / "b" / "candidates.svg").read_bytes()


def simulated(**changed: list[list[float]]) -> dict[str, Any]:
    curves = {
        "promotion": [[0.0, 79.0, 84.0, 88.0], [-5.0, 1.0, 3.0, 5.0]],
        "creep": [[0.0, 0.0, 0.0, 0.0], [60.0, -12.0, -7.0, -4.0]],
        "canary": [[1.0, 0.0, 1.0, 2.0], [5.0, 90.0, 93.0, 95.0]],
        "canary requests": [[5.0, 35.0, 105.0, 265.0]],
    } | changed
    told = [{"plot": plot, "name": f"some {plot}", "points": points} for plot, points in curves.items() if points]
    return {"name": "judging", "figures": [], "curves": told}


def test_what_was_simulated_is_told_in_words_beside_its_plots(tmp_path: Path) -> None:
    shown = draw(simulated(), tmp_path)
    assert shown is not None
    for said in ("some promotion: -5 points 3%, +0 points 84%]", "some creep: -7 points]", "1% fail 1%, 5% fail 93%]"):
        assert said in shown
    for name in ("promotion", "creep", "canary"):
        assert f"(images/{name}.svg)" in shown
        texts = {"".join(text.itertext()).strip() for text in ET.parse(tmp_path / f"{name}.svg").iter() if text.text}
        assert f"some {name}" in texts


def test_the_same_simulation_draws_the_same_files(tmp_path: Path) -> None:
    for folder, high in (("a", 88.0), ("b", 88.0), ("c", 99.0)):
        draw(simulated(promotion=[[0.0, 79.0, 84.0, high], [-5.0, 1.0, 3.0, 5.0]]), tmp_path / folder)
    one, same, other = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("a", "b", "c")
    )
    assert len(one) == 3
    assert one == same
    assert one["promotion.svg"] != other["promotion.svg"], "the interval isn't drawn: the test shows nothing"


def test_nothing_is_drawn_of_a_simulation_without_all_of_its_curves(tmp_path: Path) -> None:
    assert draw(simulated(creep=[]), tmp_path) is None
    assert draw({"name": "judging", "figures": []}, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_nothing_is_drawn_of_one_way_alone_or_of_another_benchmark(tmp_path: Path) -> None:
    assert draw(result(ONE), tmp_path) is None
    assert draw(result(ONE, *FOUR, name="proxy"), tmp_path) is None
    assert not list(tmp_path.iterdir())
