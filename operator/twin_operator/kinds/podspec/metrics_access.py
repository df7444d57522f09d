"""Who may open connections to a port for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api.metrics_peer import MetricsPeer
from twin_operator.engine.resources import Manifest

PROMETHEUS_LABELS: Final = {"app.kubernetes.io/name": "prometheus"}


def metrics_rule(named: Sequence[MetricsPeer] | None, *, port: int) -> Manifest:
    """Return a NetworkPolicy's rule for those that are named; for Prometheus by its usual label where nobody is."""
    usual = [{"namespaceSelector": {}, "podSelector": {"matchLabels": PROMETHEUS_LABELS}}]
    return {"from": [peer.to_dict() for peer in named or []] or usual, "ports": [{"port": port, "protocol": "TCP"}]}
