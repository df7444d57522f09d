"""The events of a run: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest


def run_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    notices = []
    for condition in after["conditions"]:
        old = known.get(condition["type"], {})
        if (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"]):
            continue
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        occasion = f"{kind}/{reason}/{condition['lastTransitionTime']}"
        if status == "True" and kind in ("Published", "Evaluated", "Promoted"):
            notices.append(Notice(reason=kind, note=message, occasion=occasion))
        elif status == "True" and kind in ("Rejected", "Failed"):
            notices.append(Notice(reason=kind, note=f"{reason}: {message}", kind="Warning", occasion=occasion))
        elif kind == "DataReady" and reason == "TooFewInteractions":
            notices.append(Notice(reason="Skipped", note=message, occasion=occasion))
        elif kind == "Running" and reason == "Retrying":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices
