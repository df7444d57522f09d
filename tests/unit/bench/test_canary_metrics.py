"""The stand-in for Prometheus answers the operator's own queries, from what a real miner exposes."""

from __future__ import annotations

import pytest

from neurons.miner.metrics import Metrics
from tests.bench.canary_metrics import MINER_POD, answer
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
    assert said["ratings"] == said["before"] == []
    assert sorted((labels["code"], value) for labels, value in said["serving"]) == [("200", 40.0)]
    canary, serving = (
        {labels["le"]: value for labels, value in said[name]} for name in ("canary_seconds", "serving_seconds")
    )
    assert (canary["0.5"], canary["1.0"], canary["+Inf"]) == (0.0, 10.0, 10.0)
    assert (serving["0.1"], serving["0.25"], serving["+Inf"]) == (0.0, 40.0, 40.0)


def test_without_requests_there_is_no_histogram() -> None:
    asked = queries([Trial(twin="dr-a", canary=B, stable=A)], window_seconds=60, matchers="")
    assert answer(asked["canary_seconds"], Metrics().render().decode()) == []
    with pytest.raises(ValueError, match="not one of"):
        answer("up", "")
