"""The demo's burst: the pool is handed to the operator and taken back, and what it decided is printed as it fell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from bettertherapy_api.miner_pool import MinerPoolSpec
from demo import pages, scaling
from demo.doctors import DOCTORS
from demo.errors import DemoError
from demo.kube import Json
from demo.stage import Options, Stage
from demo.targets import CurrentTarget
from demo.timeline import Timeline
from kubectl_twin.text_console import TextConsole
from tests.unit.demo.test_rounds import kube_of

RECORDS = [
    {"time": "2026-12-01T09:16:02Z", "fromReplicas": 2, "toReplicas": 1, "reason": "ScaledDown",
     "signal": "WaitingRequests", "message": "no requests wait; one pod would do"},
    {"time": "2026-12-01T09:14:07Z", "fromReplicas": 1, "toReplicas": 2, "reason": "ScaledUp",
     "signal": "WaitingRequests", "message": "11.5 requests wait; one pod is for 4"},
]  # fmt: skip


def test_the_pool_is_the_operators_while_it_lasts_and_nobodys_after_a_failure(tmp_path: Path) -> None:
    kube = kube_of(tmp_path, "open(here / 'said', 'a').write(json.dumps(sys.argv[1:]) + chr(10))")
    with pytest.raises(RuntimeError), scaling.scaled_by_the_operator(kube):
        raise RuntimeError
    said = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert [json.loads(each[-1])["spec"]["autoscaling"] for each in said] == [scaling.SCALING, None]


def test_what_is_asked_for_is_valid_and_more_wait_than_one_engine_is_for() -> None:
    spec = MinerPoolSpec.model_validate(
        {"baseModel": {"name": "m", "uri": "hf://a/b"}, "autoscaling": scaling.SCALING, "engine": {"device": "CPU"}}
    )
    assert spec.autoscaling is not None
    engine_takes = 8
    assert scaling.PATIENTS - engine_takes > spec.autoscaling.waiting_per_replica


def test_decisions_are_printed_in_the_order_in_which_they_fell() -> None:
    pool: Json = {"status": {"desiredReplicas": 1, "replicas": 2, "readyReplicas": 2, "scalingHistory": RECORDS}}
    console = Console(width=80, record=True)
    pages.print_scaling(console, "Why:", scaling.history(pool))
    rows = [line.split()[:4] for line in console.export_text().splitlines() if line.startswith("09:")]
    assert rows == [["09:14:07", "1", "→", "2"], ["09:16:02", "2", "→", "1"]]
    assert (scaling.desired(pool), scaling.engines(pool), scaling.ready(pool)) == (1, 2, 2)
    assert scaling.history({}) == []
    assert scaling.desired({}) is None


def test_without_prometheus_it_says_so_and_changes_nothing(tmp_path: Path) -> None:
    kube = kube_of(tmp_path, "(here / 'said').touch()")
    options = Options(
        target=CurrentTarget(None), work=tmp_path, cache=tmp_path, registry="", tag="", until="scaling"
    )  # fmt: skip
    stage = Stage(kube=kube, images={}, options=options, timeline=Timeline(TextConsole()), prometheus=None)
    with pytest.raises(DemoError, match="Without a Prometheus"):
        scaling.show(stage, DOCTORS[0])
    assert not (tmp_path / "said").exists()
