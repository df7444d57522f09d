"""The events of a pool: what changed between two statuses that a person would want to know."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.reasons import Reason
from twin_operator.engine.events import Notice
from twin_operator.engine.resources import Manifest

_WARNED: Final = frozenset({
    ("CapacityAvailable", Reason.SLOTS_OVERCOMMITTED), ("ScalingActive", Reason.METRICS_UNAVAILABLE),
    ("ScalingActive", Reason.METRICS_STALE), ("ScalingActive", Reason.CAPACITY_EXHAUSTED),
})  # fmt: skip


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
        elif (kind, reason) in _WARNED:
            notices.append(Notice(reason=reason, note=message, kind="Warning", occasion=occasion))
    return [*notices, *_size_notices(before, after), *_slow_notices(before, after)]


def _slow_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return an event for each engine pod that was found to be slow, and for each that is trusted again."""
    known, now = (
        {(each["uid"], each["since"]): each for each in status.get("slowReplicas") or []} for status in (before, after)
    )
    found = [
        Notice(
            reason=Reason.SLOW_REPLICA, kind="Warning", occasion=f"{uid}/{since}",
            note=f"engine pod {now[uid, since]['pod']} takes more than twice as long for a token as the others under "
            f"like load: twins placed on it move to the others, as far as those have LoRA slots",
        )
        for uid, since in now.keys() - known.keys()
    ]  # fmt: skip
    over = [
        Notice(
            reason="ReplicaTriedAgain", occasion=f"{uid}/{since}",
            note=f"engine pod {known[uid, since]['pod']}, which was slow since {since}, is gone, or gets twins again",
        )
        for uid, since in known.keys() - now.keys()
    ]  # fmt: skip
    return [*found, *over]


def _size_notices(before: Manifest, after: Manifest) -> list[Notice]:
    """Return an event for each change of the number of engine pods that was decided since."""
    known = before.get("scalingHistory") or []
    return [
        Notice(
            reason=record["reason"], occasion=f"{record['time']}/{record['fromReplicas']}/{record['toReplicas']}",
            note=f"from {record['fromReplicas']} to {record['toReplicas']} engine pods: {record.get('message', '')}",
        )
        for record in after.get("scalingHistory") or []
        if record not in known and record["fromReplicas"] != record["toReplicas"]
    ]  # fmt: skip


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
