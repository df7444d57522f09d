"""Service P-miner: the pool's public address."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import labels, selector_labels


def build_service(pool: Pool) -> Manifest:
    """Return the Service in front of the miners."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.miner_name(pool.name), "labels": labels(pool, "miner")},
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(pool, "miner"),
            "ports": [
                {
                    "name": "http", "port": names.MINER_SERVICE_PORT, "targetPort": names.MINER_PORT,
                    "protocol": "TCP", "appProtocol": "http",
                }
            ],
        },
    }  # fmt: skip
