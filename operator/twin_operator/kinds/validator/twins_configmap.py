"""ConfigMap V-gateway-twins: which twins the gateway answers for, and which weights may answer under each name.

It is mounted as a folder, so that a change reaches running gateways when the kubelet next looks, without a restart.
"""

from __future__ import annotations

import orjson

from bettertherapy_api import names
from twin_operator.domain.answering import Answering, KnownTwin, read_known
from twin_operator.domain.objects import Validator
from twin_operator.engine.apply import controlled_by
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.validator.labels import GATEWAY, labels


def build_twins_configmap(validator: Validator, answering: Answering) -> Manifest:
    """Return the ConfigMap."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": names.gateway_twins_name(validator.name), "labels": labels(validator, GATEWAY)},
        "data": {names.TWINS_FILE: answering.document()},
    }


def twins_in(configmap: Manifest | None, *, owner: str) -> dict[str, KnownTwin]:
    """Return by UID what this very validator publishes already; whatever somebody else wrote there counts for nothing.

    `owner` is the validator's UID.
    """
    if configmap is None or not controlled_by(configmap, owner):
        return {}
    text = (configmap.get("data") or {}).get(names.TWINS_FILE)
    try:
        document = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return {}
    return read_known(document.get("twins")) if isinstance(document, dict) else {}
