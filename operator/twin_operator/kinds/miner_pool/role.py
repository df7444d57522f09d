"""Roles P-engine and P-miner: both read routing slices; each writes its report, miners read the agents'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.task_states import tasks_name
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import ROLE, Manifest
from twin_operator.kinds.miner_pool.former_release import former_report, former_routing
from twin_operator.kinds.miner_pool.miner_deployment import takes_tasks
from twin_operator.kinds.podspec.parts import labels

_READ: Final = ("get", "list", "watch")


def build_engine_role(pool: Pool, *, configmaps: bool) -> Manifest:
    """Return the agents' Role. That an agent writes no other pod's report is for the admission policy to see to.

    `configmaps` while pods of the release before run, which know the two ConfigMaps only.
    """
    rules = [_rule("routingslices", _READ), _rule("podreports", ("create", "get", "patch", "delete"))]
    if configmaps:
        rules += [
            _configmaps([former_routing(pool)], _READ),
            _configmaps([former_report(pool)], ("get", "patch")),
        ]
    return _role(pool, names.engine_name(pool.name), "engine", rules)


def build_miner_role(pool: Pool, *, configmaps: bool) -> Manifest:
    """Return the miners' Role; `configmaps` as above. A miner on a subnet has something to report, and one that is to
    wake its pool.

    What became of tasks stands in a ConfigMap of its own.
    """
    reporting = pool.spec.miner.wallet_secret_ref is not None or pool.may_sleep
    reports = (*_READ, "create", "patch", "delete") if reporting else _READ
    rules = [_rule("routingslices", _READ), _rule("podreports", reports)]
    if configmaps:
        rules.append(_configmaps([former_routing(pool), former_report(pool)], _READ))
    if takes_tasks(pool):
        rules.append(_configmaps([tasks_name(pool.name)], ("get",)))
    return _role(pool, names.miner_name(pool.name), "miner", rules)


def _role(pool: Pool, name: str, component: str, rules: Sequence[Manifest]) -> Manifest:
    return {
        "apiVersion": ROLE.api_version,
        "kind": ROLE.kind,
        "metadata": {"name": name, "labels": labels(pool, component)},
        "rules": list(rules),
    }


def _rule(resource: str, verbs: Sequence[str]) -> Manifest:
    return {"apiGroups": [names.GROUP], "resources": [resource], "verbs": list(verbs)}


def _configmaps(named: Sequence[str], verbs: Sequence[str]) -> Manifest:
    return {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": list(named), "verbs": list(verbs)}
