"""Where the two kinds between control and data plane are, and the labels by which they are followed."""

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


def gateway_report_labels(validator: str) -> dict[str, str]:
    """Return the labels of the reports of a validator's gateways: none of a pool's, which would take them for its."""
    return {names.LABEL_VALIDATOR: validator, names.LABEL_COMPONENT: "gateway-report"}
