"""The two ConfigMaps that pods of the release before follow instead of RoutingSlices and PodReports."""

from __future__ import annotations

from twin_operator.domain.objects import Pool


def former_routing(pool: Pool) -> str:
    """Return the name of the ConfigMap that says what to hold and where to send."""
    return f"{pool.name}-routing"


def former_report(pool: Pool) -> str:
    """Return the name of the ConfigMap into which each agent writes."""
    return f"{pool.name}-report"
