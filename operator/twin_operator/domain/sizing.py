"""What a pool's status says of its size: the conditions ScalingActive and MetricsAvailable, and the last decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bettertherapy_api.miner_pool import MAX_SCALING_MESSAGE, Autoscaling, ScalingRecord
from twin_operator.domain.reasons import Reason
from twin_operator.domain.scaling import Decision, Outlook, Signal, Unmeasured, decide, stale
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.times import timestamp

RECORDS: Final = 10
"""So many decisions are kept."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What was decided on a pool's size, upon what."""

    before: int
    decision: Decision
    after: Decision
    """What would be decided next, the first one done: what the conditions say."""
    seen: Outlook | Unmeasured
    at: datetime
    former: tuple[Condition, ...] = ()
    """The conditions as they stand: they go on until something was measured."""

    @property
    def replicas(self) -> int:
        """So many engine pods there should be."""
        return self.decision.replicas

    @property
    def scaling_condition(self) -> Condition:
        """ScalingActive."""
        return self._carried("ScalingActive") or self.after.scaling.condition("ScalingActive", self.after.active)

    @property
    def metrics_condition(self) -> Condition:
        """MetricsAvailable."""
        if isinstance(self.seen, Unmeasured):
            said = self.seen.why.condition("MetricsAvailable", self.seen.truth)
            return self._carried("MetricsAvailable") or said
        if self.seen.missing:
            return stale(self.seen.missing).condition("MetricsAvailable", "False")
        fresh = Finding(Reason.METRICS_FRESH, "Prometheus has fresh samples of the pool's engines and miners")
        return fresh.condition("MetricsAvailable", "True")

    def _carried(self, kind: str) -> Condition | None:
        """Return the condition that another process wrote, while this one has only begun to measure."""
        begins = isinstance(self.seen, Unmeasured) and self.seen.truth == "Unknown" and self.before == self.replicas
        measured = any(each.type == "MetricsAvailable" for each in self.former)
        return next((each for each in self.former if each.type == kind), None) if begins and measured else None

    def history(self, former: tuple[ScalingRecord, ...]) -> list[ScalingRecord]:
        """Return the last decisions, newest first: each change, and each time that missing metrics held the size."""
        made = self.decision
        changed = made.replicas != self.before
        held = made.signal is Signal.METRICS and bool(made.why)
        known = bool(former) and (former[0].reason, former[0].to_replicas) == (made.scaling.reason, made.replicas)
        if not changed and (not held or known):
            return list(former[:RECORDS])
        record = ScalingRecord(
            time=timestamp(self.at), from_replicas=self.before, to_replicas=made.replicas,
            reason=str(made.scaling.reason), signal=str(made.signal) if made.signal else None,
            message=made.why[:MAX_SCALING_MESSAGE] or None,
        )  # fmt: skip
        # One that says anew why the same size is held takes the place of the one before: metrics that come and go push
        # no change out.
        again = bool(former) and not changed and _is_held(former[0], made.replicas)
        return [record, *former[1 if again else 0 :]][:RECORDS]


def _is_held(record: ScalingRecord, replicas: int) -> bool:
    return record.signal == Signal.METRICS and record.from_replicas == record.to_replicas == replicas


def size(
    spec: Autoscaling, *, before: int, seen: Outlook | Unmeasured, demanded: bool, capacity: Finding | None,
    at: datetime, former: tuple[Condition, ...] = (),
) -> Sizing:  # fmt: skip
    """Return what is decided on a pool of `before` engine pods."""
    first = decide(spec, replicas=before, seen=seen, demanded=demanded, capacity=capacity)
    after = first
    if first.replicas != before:
        after = decide(spec, replicas=first.replicas, seen=seen, demanded=demanded, capacity=capacity)
    return Sizing(before=before, decision=first, after=after, seen=seen, at=at, former=former)
