"""The events of a pool: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from datetime import datetime

from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest


def pool_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return the events for what changed between two statuses."""
    known = {condition["type"]: condition for condition in before.get("conditions") or []}
    notices = []
    for condition in after["conditions"]:
        old = known.get(condition["type"], {})
        if (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"]):
            continue
        occasion = f"{condition['type']}/{condition['reason']}/{condition['lastTransitionTime']}"
        kind, status, reason, message = (condition[part] for part in ("type", "status", "reason", "message"))
        if kind == "Ready" and status == "True":
            notices.append(Notice(reason="PoolReady", note=message, occasion=occasion))
        elif kind == "Ready" and reason not in ("EnginesStarting", "RollingOut", "MinerStarting"):
            name = "Wedged" if reason == "EngineWedged" else reason
            notices.append(Notice(reason=name, note=message, kind="Warning", occasion=occasion))
        elif kind == "CapacityAvailable" and reason == "SlotsOvercommitted":
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return notices


def restart_notices(facts: PoolFacts, *, since: datetime) -> list[Notice]:
    """Return an event for each restart of an engine after `since`."""
    after = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        Notice(
            reason="EngineRestarted", kind="Warning", occasion=f"{restart.pod_uid}/{restart.count}",
            note=f"the engine of pod {restart.pod} restarted (exit code {restart.exit_code}, {restart.reason}); its "
            "adapters are loaded and verified again",
        )
        for pod in facts.engines
        for restart in pod.restarts
        if restart.finished_at >= after
    ]  # fmt: skip
