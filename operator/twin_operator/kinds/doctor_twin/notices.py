"""The events of a twin: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest


def twin_notices(before: Manifest, status: Manifest) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    now = {condition["type"]: condition for condition in status["conditions"]}
    notices = []
    active, old = status.get("activeVersion") or {}, before.get("activeVersion") or {}
    if active and active.get("servedName") != old.get("servedName"):
        instead = f" instead of {old['servedName']}" if old else ""
        notices.append(
            Notice(
                reason="VersionActivated", note=f"{active['servedName']} answers now{instead}",
                occasion=f"{active['servedName']}/{active.get('since')}",
            )
        )  # fmt: skip
    canary, tried = status.get("canaryVersion") or {}, before.get("canaryVersion") or {}
    if canary and canary.get("digest") != tried.get("digest"):
        name = canary["servedName"]
        notices.append(Notice(reason="CanaryStarted", note=f"{name} is loaded beside what serves", occasion=name))
    rollback = status.get("lastRollback") or {}
    if rollback and rollback != before.get("lastRollback"):
        notices.append(
            Notice(
                reason="RolledBack", note=f"{rollback['reason']}: {rollback['message']}", kind="Warning",
                occasion=rollback["time"],
            )
        )  # fmt: skip
    for kind, condition in now.items():
        was = known.get(kind, {})
        status_, reason, message = condition["status"], condition["reason"], condition["message"]
        if (was.get("status"), was.get("reason")) == (status_, reason):
            continue
        occasion = f"{kind}/{reason}/{condition['observedGeneration']}/{condition['lastTransitionTime']}"
        if kind == "AdaptersVerified" and status_ == "True" and reason == "Verified":
            notices.append(Notice(reason="AdapterVerified", note=message, occasion=occasion))
        elif kind == "AdaptersVerified" and status_ == "False" and reason != "Loading":
            notices.append(
                Notice(reason="AdapterFailed", note=f"{reason}: {message}", kind="Warning", occasion=occasion)
            )
        elif kind == "Degraded" and status_ == "True":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
        elif kind == "Degraded" and was.get("status") == "True" and status_ == "False":
            notices.append(Notice(reason=reason, note=message, occasion=occasion))
        elif kind == "Ready" and reason in ("NoPoolMatches", "BaseModelMismatch", "RankTooHigh", "SpecInvalid"):
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices
