"""RoleBindings and ServiceAccounts P-engine and P-miner."""

from __future__ import annotations

from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.role import build_engine_role, build_miner_role
from twin_operator.kinds.miner_pool.role_binding import build_engine_role_binding, build_miner_role_binding
from twin_operator.kinds.miner_pool.service_account import build_engine_service_account, build_miner_service_account

ENGINE = (build_engine_service_account, build_engine_role, build_engine_role_binding)
MINER = (build_miner_service_account, build_miner_role, build_miner_role_binding)


def test_each_role_is_bound_to_the_account_of_its_name_in_the_pools_namespace() -> None:
    for build_account, build_role, build_binding in (ENGINE, MINER):
        account, binding = build_account(pool()), build_binding(pool())
        name = account["metadata"]["name"]
        assert binding["roleRef"]["name"] == build_role(pool(), configmaps=False)["metadata"]["name"] == name
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "clinic"}]


def test_no_pod_gets_a_token_that_it_does_not_mount_itself() -> None:
    for account in (build_engine_service_account(pool()), build_miner_service_account(pool())):
        assert account["automountServiceAccountToken"] is False
