"""ConfigMap P-report: made empty by the operator, filled by the agents, each its own key."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import labels


def build_report_configmap(pool: Pool) -> Manifest:
    """Return the ConfigMap without data: stating any would take the agents' keys from them."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.report_name(pool.name), "labels": labels(pool, "report")},
    }
