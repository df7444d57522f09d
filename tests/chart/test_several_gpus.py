"""A model of 70 billion parameters is a matter of values: on the GPUs of one node, and on those of several."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.miner_pool import MinerPoolSpec
from tests.unit.operator.children.pods import children, containers, pod_of

VALUES = Path(__file__).resolve().parents[2] / "charts/twin-miner/values-large.yaml"
Manifest = dict[str, Any]


def spec_of(render: Callable[..., list[Manifest]], values: Path) -> Manifest:
    (made,) = [each["spec"] for each in render("twin-miner", "-f", str(values)) if each["kind"] == "MinerPool"]
    MinerPoolSpec.model_validate(made)
    return dict(made)


def test_the_values_spread_an_engine_over_the_gpus_of_a_node(render: Callable[..., Any]) -> None:
    engine = containers(pod_of(children(**spec_of(render, VALUES))["Deployment", "p-engine"]))["engine"]
    assert "--tensor-parallel-size=4" in engine["args"]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == 4


@pytest.fixture
def on_two_nodes(tmp_path: Path) -> Path:
    """The values with what their head says: the lines about `group`, and half of the GPUs."""
    text = VALUES.read_text().replace("nvidia.com/gpu: 4", "nvidia.com/gpu: 2")
    changed = re.sub(r"# (group: .*)", r"\1", text)
    assert changed != text
    (tmp_path / "values.yaml").write_text(changed)
    return tmp_path / "values.yaml"


def test_a_line_more_spreads_it_over_two_nodes(render: Callable[..., Any], on_two_nodes: Path) -> None:
    group = children(**spec_of(render, on_two_nodes))["LeaderWorkerSet", "p-engine"]["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    arguments = containers(group["workerTemplate"]["spec"])["engine"]["args"]
    assert {"--tensor-parallel-size=2", "--pipeline-parallel-size=2"} <= set(arguments)
