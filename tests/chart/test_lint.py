"""Helm's own linter, for the charts with every set of values that is shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CHARTS = Path(__file__).resolve().parents[2] / "charts"
CASES = [(chart.parent, None) for chart in sorted(CHARTS.glob("*/Chart.yaml"))]
CASES += [(path.parents[1], path) for path in sorted(CHARTS.glob("*/ci/*-values.yaml"))]


@pytest.mark.parametrize(("chart", "values"), CASES, ids=lambda value: value.name if value else "defaults")
def test_lint_passes(chart: Path, values: Path | None, helm: Callable) -> None:
    helm("lint", "--strict", str(chart), *(["-f", str(values)] if values else []))
