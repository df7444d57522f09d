"""What benchmarks hand back, and the page made of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.document import write_document
from tests.bench.results import Figure, Result, Spread, percentile


def test_the_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([float(value) for value in range(1, 201)], 99) == 198.0
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0], 99) == 1.0


def test_the_page_has_every_figure_with_its_spread_its_target_and_its_command(tmp_path: Path) -> None:
    figure = Figure(
        subject="twin", figure="swap", unit="s", digits=1, spread=Spread.of([1.0, 2.0, 4.0]), p99=4.0,
        target="p99 ≤ 2 s", met=False,
    )  # fmt: skip
    result = Result(
        name="swap", title="Swaps", how="By hand.", figures=(figure,), notes=("A note.",),
        command="make bench BENCH_ARGS='swap'", versions={"vLLM": "0.1"},
    )  # fmt: skip
    write_document([asdict(result)], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| twin | swap | 2.0 (1.0 to 4.0); p99 4.0 s | 3 | p99 ≤ 2 s (missed) |" in page
    for text in ("By hand.", "A note.", "vLLM 0.1", "`make bench BENCH_ARGS='swap'`", "not how fast they are"):
        assert text in page


def test_what_another_machine_measured_stays_on_the_page(tmp_path: Path) -> None:
    page, figure = tmp_path / "page.md", Figure(subject="a", figure="b", unit="s", digits=1, spread=Spread.of([1.0]))

    def result(title: str, how: str) -> dict[str, Any]:
        return asdict(
            Result(
                name="n",
                title=title,
                how=how,
                figures=(figure,),
                notes=(),
                command="c",
                versions={"vLLM": "0.1"},
                measured_at="2026-01-01T00:00:00Z",
            )
        )

    write_document([result("Swaps", "Once."), result("Heals", "Then.")], page)
    before = page.read_text()
    write_document([result("Heals", "Again.")], page)
    assert page.read_text() == before.replace("Then.", "Again.")
    write_document([], page)
    assert page.read_text().count("## ") == 3
