"""The events of a round: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from typing import Final

from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest

_GOOD: Final = frozenset({("Complete", "True"), ("WeightsSubmitted", "True")})
_BAD: Final = frozenset({("Failed", "True"), ("QuorumReached", "False"), ("MetricsFresh", "False")})
_QUIET: Final = frozenset({"WeightsNotAsked"})


def round_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    notices = []
    for condition in after["conditions"]:
        old = known.get(condition["type"], {})
        if (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"]):
            continue
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        occasion = f"{kind}/{reason}/{condition['lastTransitionTime']}"
        if (kind, status) in _GOOD:
            notices.append(Notice(reason=kind, note=message, occasion=occasion))
        elif (kind, status) in _BAD or (kind == "WeightsSubmitted" and status == "False" and reason not in _QUIET):
            notices.append(Notice(reason=kind, note=f"{reason}: {message}", kind="Warning", occasion=occasion))
        elif kind == "Running" and reason == "Retrying":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices
