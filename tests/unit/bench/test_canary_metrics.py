"""The stand-in for Prometheus answers the operator's own queries, from what a real miner exposes."""

from __future__ import annotations

import pytest

from neurons.miner.metrics import Metrics
from tests.bench.canary_metrics import MINER_POD, answer, histogram_quantile
from twin_operator.domain.canary_analysis import Trial, queries

A, B = "dr-a-aaaaaaaa", "dr-a-bbbbbbbb"


def test_it_knows_the_queries_and_tells_versions_apart() -> None:
    metrics = Metrics()
    metrics.pods_ready.set(2)
    for version, seconds, codes in ((A, 0.2, ["200"] * 40), (B, 0.8, ["200"] * 9 + ["500"])):
        for code in codes:
            metrics.count("dr-a", version, code)
            metrics.series("dr-a", version).request_seconds.observe(seconds)
    asked = queries([Trial(twin="dr-a", canary=B, stable=A)], window_seconds=60, matchers='namespace="n"')
    said = {name: answer(promql, metrics.render().decode()) for name, promql in asked.items()}
    assert said["fresh"] == [({"pod": MINER_POD}, 1.0)]
    assert sorted((labels["code"], value) for labels, value in said["requests"]) == [("200", 9.0), ("500", 1.0)]
    assert said["ratings"] == []
    [(_, canary)], [(_, stable)] = said["canary"], said["stable"]
    assert 0.5 < canary <= 1.0
    assert 0.1 < stable <= 0.25


def test_without_requests_there_is_no_quantile() -> None:
    asked = queries([Trial(twin="dr-a", canary=B, stable=A)], window_seconds=60, matchers="")
    assert answer(asked["canary"], Metrics().render().decode()) == []
    with pytest.raises(ValueError, match="not one of"):
        answer("up", "")


def test_a_quantile_is_linear_inside_its_bucket() -> None:
    buckets = {0.1: 50, 0.5: 100, float("inf"): 100}
    assert histogram_quantile(0.75, buckets) == pytest.approx(0.3)
    assert histogram_quantile(0.95, {0.1: 0, float("inf"): 5}) == 0.1
