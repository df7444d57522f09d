"""min_compute.yml and subnet_links.py: no less than what is made reserves, and no link that leads nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from subnet_links import SUBNET_LINKS
from twin_operator.kinds.validator.gateway_deployment import RESOURCES as GATEWAY
from twin_operator.kinds.validator_round.jobs import RESOURCES as ROUND

ROOT = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((ROOT / "min_compute.yml").read_text())["compute_spec"]
_UNITS = {"Mi": 1 / 1024, "Gi": 1.0, "m": 0.001}


def quantity(text: object) -> float:
    """In cores, or in GiB."""
    said = str(text)
    unit = next((unit for unit in _UNITS if said.endswith(unit)), "")
    return float(said.removesuffix(unit)) * _UNITS.get(unit, 1.0)


def memory(resources: dict[str, Any]) -> float:
    return quantity(resources["limits"]["memory"])


@pytest.mark.parametrize("size", sorted(SPEC["validator"]))
def test_a_validator_has_room_for_its_gateways_and_a_round(size: str) -> None:
    spec = SPEC["validator"][size]
    gateways = spec["replicas"]["gateways"]
    assert spec["memory"]["min_ram"] >= gateways * memory(GATEWAY) + memory(ROUND)
    cores = gateways * quantity(GATEWAY["requests"]["cpu"]) + quantity(ROUND["requests"]["cpu"])
    assert spec["cpu"]["min_cores"] >= cores


def test_the_trial_miner_has_room_for_the_pool_of_its_chart() -> None:
    values = yaml.safe_load((ROOT / "charts/twin-miner/ci/cpu-values.yaml").read_text())["pool"]
    spec = SPEC["miner"]["cpu_trial"]
    assert spec["memory"]["min_ram"] >= memory(values["resources"])
    assert spec["replicas"] == {"engines": values["replicas"], "miners": values["miner"]["replicas"]}


@pytest.mark.parametrize("size", [f"{role}/{name}" for role in SPEC for name in SPEC[role]])
def test_what_is_recommended_is_no_less_than_what_is_needed(size: str) -> None:
    role, name = size.split("/")
    spec = SPEC[role][name]
    for part, unit in (("cpu", "cores"), ("memory", "ram"), ("storage", "space")):
        assert spec[part][f"recommended_{unit}"] >= spec[part][f"min_{unit}"] > 0
    gpu = spec["gpu"]
    assert not gpu["required"] or gpu["recommended_vram"] >= gpu["min_vram"]


@pytest.mark.parametrize("link", SUBNET_LINKS, ids=lambda link: link["name"])
def test_every_link_leads_to_a_file(link: dict[str, str]) -> None:
    assert (ROOT / link["url"]).is_file()
