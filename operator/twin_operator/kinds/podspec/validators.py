"""What all pods have in common that work for a validator: image, ledger, subnet, and the node of an embedded ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.validator import LEDGER_URI_KEY
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import env
from twin_operator.settings import Images

EMBEDDED_URL: Final = f"sqlite:///{names.STATE_DIR}/ledger.db"


def image_of(validator: Validator, images: Images) -> str:
    """Return the neuron image."""
    return validator.spec.gateway.image or images.neuron


def network_of(validator: Validator) -> str:
    """Return the chain's name or URL as a process takes it."""
    return names.network_of(validator.spec.chain.network, validator.namespace)


def ledger_url(validator: Validator) -> Manifest:
    """Return the variable with the ledger's address."""
    ledger = validator.spec.ledger
    if ledger is None or ledger.uri_secret_ref is None:
        return env("LEDGER_URL", EMBEDDED_URL)
    return {
        "name": "LEDGER_URL",
        "valueFrom": {"secretKeyRef": {"name": ledger.uri_secret_ref.name, "key": LEDGER_URI_KEY}},
    }


def ledger_claim(validator: Validator) -> Manifest:
    """Return the volume that an embedded ledger is on."""
    return {"name": "state", "persistentVolumeClaim": {"claimName": names.gateway_state_name(validator.name)}}


def on_ledgers_node(validator: Validator, components: Sequence[str]) -> Manifest:
    """Return the affinity to the node of an embedded ledger, whose claim may be mounted on one node alone.

    `components` are those whose pods open it, the pod's own among them: it counts itself, so that any node will do
    where none of them runs.
    """
    either = {"key": names.LABEL_COMPONENT, "operator": "In", "values": list(components)}
    selector = {"matchLabels": {names.LABEL_VALIDATOR: validator.name}, "matchExpressions": [either]}
    return {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
            ]
        }
    }


def secret_volume(volume: str, name: str, *items: str, optional: bool = False) -> Manifest:
    """Return a Secret's volume, with these keys alone where some are named: no pod gets more than it needs.

    `optional`: the container starts without them and says itself what is missing; else the kubelet waits for it.
    """
    picked = {"items": [{"key": item, "path": item} for item in items]} if items else {}
    missing = {"optional": True} if optional else {}
    return {"name": volume, "secret": {"secretName": name, "defaultMode": 0o440, **picked, **missing}}


def twins_volume(validator: Validator) -> Manifest:
    """Return the volume that says which twins the gateway answers for."""
    return {
        "name": "twins",
        "configMap": {"name": names.gateway_twins_name(validator.name), "defaultMode": 0o444},
    }
