"""What engine pods and miner pods may do at the API server: read two ConfigMaps, and agents write one."""

from __future__ import annotations

from collections.abc import Sequence

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import ROLE, ROLE_BINDING, Manifest
from twin_operator.kinds.podspec.parts import labels


def build_service_accounts(pool: Pool) -> list[Manifest]:
    """Return P-engine and P-miner; no pod mounts their tokens unless it says so itself."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "labels": labels(pool, component)},
            "automountServiceAccountToken": False,
        }
        for name, component in _components(pool)
    ]


def build_roles(pool: Pool) -> list[Manifest]:
    """Return the Roles, limited by name to the pool's own two ConfigMaps."""
    routing, report = names.routing_name(pool.name), names.report_name(pool.name)
    rules = {
        "engine": [_rule([routing], ["get", "list", "watch"]), _rule([report], ["get", "patch"])],
        "miner": [_rule([routing, report], ["get", "list", "watch"])],
    }
    return [
        {
            "apiVersion": ROLE.api_version,
            "kind": "Role",
            "metadata": {"name": name, "labels": labels(pool, component)},
            "rules": rules[component],
        }
        for name, component in _components(pool)
    ]


def build_role_bindings(pool: Pool) -> list[Manifest]:
    """Return the bindings of each Role to the ServiceAccount of the same name."""
    return [
        {
            "apiVersion": ROLE_BINDING.api_version,
            "kind": "RoleBinding",
            "metadata": {"name": name, "labels": labels(pool, component)},
            "roleRef": {"apiGroup": ROLE.group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": pool.namespace}],
        }
        for name, component in _components(pool)
    ]


def _components(pool: Pool) -> list[tuple[str, str]]:
    return [(names.engine_name(pool.name), "engine"), (names.miner_name(pool.name), "miner")]


def _rule(configmaps: Sequence[str], verbs: Sequence[str]) -> Manifest:
    return {
        "apiGroups": [""], "resources": ["configmaps"], "resourceNames": list(configmaps), "verbs": list(verbs),
    }  # fmt: skip
