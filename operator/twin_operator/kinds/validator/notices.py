"""The events of a validator: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from twin_operator.domain.reasons import Reason
from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest

_PASSING = (
    Reason.GATEWAYS_STARTING.value, Reason.ROLLING_OUT.value, Reason.PREPARING_LEDGER.value,
    Reason.DATASETS_SUSPENDED.value, Reason.ROUNDS_OFF.value, Reason.ROUNDS_SUSPENDED.value,
    Reason.WEIGHTS_NOT_ASKED.value,
)  # fmt: skip
_WARNING = ("Ready", "TwinsPublished", "ChainReachable", "LedgerReachable", "DatasetsWritten", "WeightsSet")


def validator_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    notices = []
    for condition in after["conditions"]:
        old = known.get(condition["type"], {})
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        if (old.get("status"), old.get("reason")) == (status, reason) or reason in _PASSING:
            continue
        occasion = f"{kind}/{reason}/{condition['lastTransitionTime']}"
        if kind == "Ready" and status == "True":
            notices.append(Notice(reason="ValidatorReady", note=message, occasion=occasion))
        elif kind in _WARNING and status == "False":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices
