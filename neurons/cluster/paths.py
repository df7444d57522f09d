"""Where the two kinds between control and data plane are, and the labels by which a pool's are followed."""

from __future__ import annotations

from bettertherapy_api import names, report, routing


def routing_slices(namespace: str) -> str:
    """Return the path of a namespace's RoutingSlices."""
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{routing.PLURAL}"


def pod_reports(namespace: str) -> str:
    """Return the path of a namespace's PodReports."""
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{report.PLURAL}"


def routing_labels(pool: str) -> dict[str, str]:
    """Return the labels of a pool's RoutingSlices."""
    return {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "routing"}


def report_labels(pool: str) -> dict[str, str]:
    """Return the labels of a pool's PodReports."""
    return {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "report"}


def miner_report_labels(pool: str) -> dict[str, str]:
    """Return the labels of the reports of a pool's miners."""
    return {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "miner-report"}
