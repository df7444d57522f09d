"""Service P-miner."""

from __future__ import annotations

from bettertherapy_api import names
from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.service import build_service


def test_it_leads_from_port_80_to_the_pools_miners() -> None:
    service = build_service(pool())
    assert service["metadata"]["name"] == "p-miner"
    assert service["spec"]["selector"] == {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}
    [port] = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, 8080)
