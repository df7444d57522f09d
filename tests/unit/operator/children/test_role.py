"""Roles P-engine and P-miner: least privilege."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.role import build_engine_role, build_miner_role

READ = ["get", "list", "watch"]


def ours(resource: str, *verbs: str) -> dict[str, Any]:
    return {"apiGroups": ["bettertherapy.io"], "resources": [resource], "verbs": list(verbs)}


def configmaps(named: list[str], *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": named, "verbs": list(verbs)}


def test_an_agent_reads_slices_and_writes_reports_but_lists_none() -> None:
    assert build_engine_role(pool(), configmaps=False)["rules"] == [
        ours("routingslices", *READ),
        ours("podreports", "create", "get", "patch", "delete"),
    ]


def test_a_miner_without_a_subnet_reads_and_writes_nothing() -> None:
    assert build_miner_role(pool(), configmaps=False)["rules"] == [
        ours("routingslices", *READ),
        ours("podreports", *READ),
    ]


def test_a_miner_of_a_pool_that_may_sleep_writes_its_report() -> None:
    for mode in ("Operator", "External"):
        sleeper = pool(autoscaling={"mode": mode, "min": 0})
        assert build_miner_role(sleeper, configmaps=False)["rules"][1] == ours(
            "podreports", *READ, "create", "patch", "delete"
        )
    awake = pool(autoscaling={"mode": "Operator", "min": 1})
    assert build_miner_role(awake, configmaps=False)["rules"][1] == ours("podreports", *READ)


def test_a_miner_on_a_subnet_writes_its_report() -> None:
    on_subnet = pool(miner={"walletSecretRef": {"name": "hotkey"}})
    assert build_miner_role(on_subnet, configmaps=False)["rules"] == [
        ours("routingslices", *READ),
        ours("podreports", *READ, "create", "patch", "delete"),
    ]


def test_a_miner_that_takes_tasks_reads_what_became_of_them() -> None:
    taking = pool(miner={"walletSecretRef": {"name": "hotkey"}, "tasks": {"accept": True}})
    assert build_miner_role(taking, configmaps=False)["rules"][2:] == [configmaps(["p-tasks"], "get")]
    idle = pool(miner={"walletSecretRef": {"name": "hotkey"}, "tasks": {"accept": False}})
    assert build_miner_role(idle, configmaps=False)["rules"][2:] == []


def test_pods_of_the_release_before_keep_their_two_configmaps() -> None:
    assert build_engine_role(pool(), configmaps=True)["rules"][2:] == [
        configmaps(["p-routing"], *READ),
        configmaps(["p-report"], "get", "patch"),
    ]
    assert build_miner_role(pool(), configmaps=True)["rules"][2:] == [configmaps(["p-routing", "p-report"], *READ)]
