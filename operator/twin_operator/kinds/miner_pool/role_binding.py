"""RoleBindings P-engine and P-miner: each gives the Role to the ServiceAccount of the same name."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.podspec.parts import labels


def build_engine_role_binding(pool: Pool) -> Manifest:
    """Return the agents' binding."""
    return _binding(pool, names.engine_name(pool.name), "engine")


def build_miner_role_binding(pool: Pool) -> Manifest:
    """Return the miners' binding."""
    return _binding(pool, names.miner_name(pool.name), "miner")


def _binding(pool: Pool, name: str, component: str) -> Manifest:
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": name, "labels": labels(pool, component)},
        "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
        "subjects": [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": pool.namespace}],
    }
