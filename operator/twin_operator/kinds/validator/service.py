"""Service V-gateway: the address that patients' pages and clients ask."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import SERVICE, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels, selector_labels


def build_service(validator: Validator) -> Manifest:
    """Return the Service in front of the gateways."""
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {"name": names.gateway_name(validator.name), "labels": labels(validator, GATEWAY)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(validator, GATEWAY),
            "ports": [
                {
                    "name": "http", "port": names.GATEWAY_SERVICE_PORT, "targetPort": names.GATEWAY_PORT,
                    "protocol": "TCP", "appProtocol": "http",
                }
            ],
        },
    }  # fmt: skip
