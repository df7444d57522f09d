"""How many engine pods a pool should have: a decision from what was seen of its load, its bounds and its present size.

Two windows, as Knative's KPA and AIBrix have them (https://knative.dev/docs/serving/autoscaling/kpa-specific): growth
goes by the *panic* window, shrinking by the *stable* one. Here the panic window is the last two scrapes, however far
apart they are: what doubles the load counts at the first, what lasts at the second, a flicker not at all. A smaller
size is taken when every recommendation of `stabilizationSeconds` allows it (their maximum, as HPA's downscale
stabilization), and all of that time was seen.

Each signal is the load of the whole pool over what one pod is for, so it says how many pods are needed whatever there
are: pods that are still starting are not asked for twice. Shrinking leaves room (ROOM): a size that has just been left
is not asked for again by the same load. A queue only shows that there are too few pods, never that there are too many,
so what engines *run* keeps pods too: by as much as one was seen to run when it let requests wait (`saturated`), or, so
long as none did, by one pod at a time.

Nothing is taken away upon what wasn't seen: without fresh samples the size is held, with some of them missing it may
only grow. Bounds hold always. `observe` and `outlook` are told the time, in seconds of any one clock; `decide` knows
none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from bettertherapy_api.miner_pool import Autoscaling
from twin_operator.domain.reasons import Reason
from twin_operator.domain.scaling_signals import FRESH_SECONDS, Look
from twin_operator.engine.conditions import Finding, Truth

PANIC_LOOKS: Final = 2
STABLE_SECONDS: Final = 60.0
"""Knative's stable window; shorter where a pool's stabilization is."""
ROOM: Final = 0.8
"""A smaller size must be loaded to this share of its targets at most."""
FULL_PART: Final = 0.8
"""An engine that runs this part of what miners give it at once is full: they keep an eighth for small twins."""
OLD_SECONDS: Final = 30.0
"""So long without an answer, nothing is known of now; and what was before it doesn't count as an unbroken view."""
_FALLS: Final = 2
"""A maximum that was lowered so often within the stabilization window swings: its lowest value holds meanwhile."""


class Signal(StrEnum):
    """What a decision goes by."""

    WAITING = "WaitingRequests"
    RUNNING = "RunningRequests"
    KV_CACHE = "KVCache"
    SLOTS = "SlotPressure"
    DEMAND = "HeldRequests"
    IDLE = "Idle"
    BOUNDS = "Bounds"
    METRICS = "Metrics"


@dataclass(frozen=True, kw_only=True)
class Need:
    """So many pods by one signal, and its figures in words."""

    replicas: int
    signal: Signal
    said: str


@dataclass(frozen=True)
class _High:
    at: float
    replicas: int


@dataclass(frozen=True)
class _Seen:
    at: float
    look: Look


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is remembered of a pool's load; a process begins with none, and then waits a whole window to shrink."""

    seen: tuple[_Seen, ...] = ()
    """Looks of the stable window, newest last."""
    highs: tuple[_High, ...] = ()
    """Recommendations of the stabilization window that no later one exceeds: the first is their maximum."""
    since: float | None = None
    """Since when nothing was missed."""
    answered_at: float | None = None
    active_at: float | None = None
    """When somebody was last seen to ask."""
    asked: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    """Ready pods without samples, and since when."""
    saturated: float | None = None
    """Requests that one engine ran when it let others wait."""
    replicas: int | None = None
    """The pool's size at the last look."""
    maxima: tuple[tuple[float, int], ...] = ()
    """The `max` of the stabilization window, with when it began to hold."""


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """Why nothing is known of a pool's load."""

    why: Finding
    truth: Truth = "False"


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the looks so far come to."""

    grow: Need
    """By the panic window."""
    shrink: Need
    """By the stable window, with room."""
    highest: int
    """The maximum of all recommendations of the stabilization window."""
    lasted: bool
    """Whether all of that window was seen."""
    quiet_seconds: float
    """How long nobody asked, as far as was seen."""
    replicas: int | None
    """The size that was looked at last."""
    held: float
    """Requests that miners hold."""
    incomplete: bool = False
    """Samples of some ready pod are missing: the load is at least what is told."""
    missing: tuple[str, ...] = ()
    """Pods whose samples have been missing for long."""
    ceiling: int | None = None
    """A lower maximum than the spec's, since that swings."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many pods, and why. The sentences for conditions hold no figure that changes with each look."""

    replicas: int
    scaling: Finding
    """For the condition ScalingActive."""
    active: Truth = "True"
    signal: Signal | None = None
    why: str = ""
    """With figures, for the history: empty where nothing is decided but to go on."""


def observe(
    memory: Memory, look: Look, *, spec: Autoscaling, slots: int, replicas: int, now: float, most: int | None = None
) -> Memory:
    """Return the memory with one more look; `replicas` is the pool's size, `slots` one engine's LoRA slots, `most` the
    requests that miners give one engine at once, None where they give it all.
    """
    broken = memory.answered_at is None or now - memory.answered_at > OLD_SECONDS
    since = now if broken or memory.since is None else memory.since
    woken = memory.replicas == 0 and replicas > 0
    busy = _is_active(memory, look) or broken or woken
    memory = replace(
        memory,
        since=since,
        answered_at=now,
        active_at=now if busy else memory.active_at,
        asked=dict(look.asked),
        missing={pod: memory.missing.get(pod, now) for pod in look.missing},
        replicas=replicas,
        maxima=_maxima(memory.maxima, spec, now),
    )
    if memory.seen and memory.seen[-1].look.sampled_at == look.sampled_at and not broken:
        return memory  # the same scrape again
    window = min(STABLE_SECONDS, float(spec.stabilization_seconds))
    before = () if broken else tuple(each for each in memory.seen if each.at > now - window)
    # Of a slow scrape, too, two looks make the panic window.
    before = before or (memory.seen[-1:] if not broken else ())
    saturated = _saturated(memory.saturated, look, spec, most)
    memory = replace(memory, seen=(*before, _Seen(now, look)), saturated=saturated)
    wanted = max(_grow(memory, spec, slots).replicas, _shrink(memory, spec, slots, replicas).replicas, spec.min)
    oldest = now - spec.stabilization_seconds
    highs = [each for each in memory.highs if each.at > oldest and each.replicas > wanted]
    return replace(memory, highs=(*highs, _High(now, wanted)))


def outlook(memory: Memory, *, spec: Autoscaling, slots: int, now: float) -> Outlook | None:
    """Return what was seen so far comes to; None where nothing was, or not lately."""
    if not memory.seen or memory.answered_at is None or now - memory.answered_at > OLD_SECONDS:
        return None
    look, size = memory.seen[-1].look, memory.replicas or 0
    oldest = now - spec.stabilization_seconds
    known_since = memory.since if memory.since is not None else now
    quiet_since = memory.active_at if memory.active_at is not None else known_since
    return Outlook(
        grow=_grow(memory, spec, slots),
        shrink=_shrink(memory, spec, slots, size),
        highest=max((each.replicas for each in memory.highs if each.at > oldest), default=size),
        lasted=known_since <= oldest,
        quiet_seconds=max(0.0, now - quiet_since),
        replicas=memory.replicas,
        held=look.held,
        incomplete=bool(look.missing),
        missing=tuple(sorted(pod for pod, since in memory.missing.items() if now - since > FRESH_SECONDS)),
        ceiling=_ceiling(memory.maxima, spec, now),
    )


def decide(  # noqa: PLR0911  # one return per rule, in the order in which they count
    spec: Autoscaling, *, replicas: int, seen: Outlook | Unmeasured, demanded: bool, capacity: Finding | None = None
) -> Decision:
    """Return the size that a pool of `replicas` pods should have.

    `demanded`: a miner reports that requests wait and no engine is there. `capacity`: what keeps pods that are wanted
    already from being placed.
    """
    most = spec.max if isinstance(seen, Unmeasured) or seen.ceiling is None else max(seen.ceiling, spec.min)
    if replicas > most:
        swings = most < spec.max
        said = "autoscaling.max was lowered again and again, so its lowest value holds" if swings else "autoscaling.max"
        return _changed(Reason.SCALED_DOWN, most, Signal.BOUNDS, f"{said} is {most}" if not swings else said)
    if replicas < spec.min:
        return _changed(Reason.SCALED_UP, spec.min, Signal.BOUNDS, f"autoscaling.min is {spec.min}")
    if replicas == 0 and (demanded or (isinstance(seen, Outlook) and seen.held > 0)):
        return _woken(seen, most)
    if isinstance(seen, Unmeasured):
        why = f"held at {replicas}: {seen.why.message}" if seen.truth == "False" else ""
        return Decision(
            replicas=replicas, scaling=_held(seen.why, replicas), active=seen.truth, signal=Signal.METRICS, why=why
        )  # fmt: skip
    if 0 < replicas < min(most, seen.grow.replicas):
        if capacity is not None:
            return _exhausted(replicas, seen.grow.signal, capacity)
        to = min(most, seen.grow.replicas)
        beyond = (
            f"; {seen.grow.replicas} pods would be needed, autoscaling.max is {most}" if to < seen.grow.replicas else ""
        )
        return _changed(Reason.SCALED_UP, to, seen.grow.signal, seen.grow.said + beyond)
    if seen.incomplete:
        return _incomplete(seen, replicas, most)
    if replicas == 0:
        return Decision(replicas=0, scaling=Finding(Reason.ASLEEP, "nobody asks: the next question wakes the pool"))
    if _fell_asleep(spec, seen, replicas) and not demanded:
        return _changed(Reason.SCALED_DOWN, 0, Signal.IDLE, f"nobody has asked for {spec.idle_seconds} s")
    fewest = max(spec.min, 1)
    lowest = max(seen.highest, fewest)
    if lowest < replicas and seen.lasted and seen.replicas == replicas:
        lasted = f"; enough for all that was seen for {spec.stabilization_seconds} s"
        return _changed(Reason.SCALED_DOWN, lowest, seen.shrink.signal, seen.shrink.said + lasted)
    return Decision(replicas=replicas, scaling=_steady(spec, seen, replicas, most=most, fewest=fewest))


def _changed(reason: Reason, replicas: int, signal: Signal, why: str) -> Decision:
    return Decision(replicas=replicas, scaling=Finding(reason, why), signal=signal, why=why)


def _woken(seen: Outlook | Unmeasured, most: int) -> Decision:
    if isinstance(seen, Outlook) and seen.held > 0:
        to = min(most, max(1, seen.grow.replicas))
        return _changed(Reason.WOKEN, to, Signal.DEMAND, f"{seen.held:.0f} requests wait at the miners")
    return _changed(Reason.WOKEN, 1, Signal.DEMAND, "a miner holds requests that no engine is there for")


def _exhausted(replicas: int, signal: Signal, capacity: Finding) -> Decision:
    said = f"more than {replicas} pods are needed, and not even those come up: {capacity.message}"
    return Decision(replicas=replicas, scaling=Finding(Reason.CAPACITY_EXHAUSTED, said), active="False", signal=signal)


def _incomplete(seen: Outlook, replicas: int, most: int) -> Decision:
    """Hold a size of which a part isn't seen; of pods that have just come, nothing is said."""
    if not seen.missing:
        return Decision(replicas=replicas, scaling=_fits(replicas, most))
    why = stale(seen.missing)
    return Decision(replicas=replicas, scaling=_held(why, replicas), active="False", signal=Signal.METRICS,
                    why=f"held at {replicas}: {why.message}")  # fmt: skip


def stale(missing: Sequence[str]) -> Finding:
    """Return what to say of ready pods without fresh samples."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return Finding(
        Reason.METRICS_STALE,
        f"Prometheus has no samples of the last {FRESH_SECONDS} s of {', '.join(missing[:3])}{more}: check that it "
        "scrapes them, and that their series carry `namespace` and `pod`",
    )


def _held(why: Finding, replicas: int) -> Finding:
    return Finding(why.reason, f"the pool stays at {replicas} engine pods: {why.message}")


def _fits(replicas: int, most: int) -> Finding:
    enough = f"{replicas} engine pod{'s are' if replicas != 1 else ' is'} enough"
    return Finding(Reason.STEADY, f"{enough}; autoscaling.max is {most}")


def _steady(spec: Autoscaling, seen: Outlook, replicas: int, *, most: int, fewest: int) -> Finding:
    if replicas == most and max(seen.highest, seen.grow.replicas) > most:
        return Finding(
            Reason.AT_MAXIMUM,
            f"more engine pods than autoscaling.max, {most}, are needed now or were within the last "
            f"{spec.stabilization_seconds} s: raise it, or let requests wait",
        )
    if max(seen.shrink.replicas, fewest) < replicas:
        return Finding(
            Reason.STABILIZING,
            f"fewer than {replicas} engine pods would do; the size follows once that has lasted for "
            f"autoscaling.stabilizationSeconds, {spec.stabilization_seconds}",
        )
    return _fits(replicas, most)


def _fell_asleep(spec: Autoscaling, seen: Outlook, replicas: int) -> bool:
    return spec.min == 0 and seen.replicas == replicas and seen.quiet_seconds >= spec.idle_seconds


def _is_active(memory: Memory, look: Look) -> bool:
    """Tell whether somebody asks, or has asked since the last look.

    A counter that is lower than before was begun anew, with what it counts since.
    """
    if look.waiting or look.running or look.adapters:
        return True
    return any(
        asked > 0 if (before := memory.asked.get(pod)) is None or asked < before else asked > before
        for pod, asked in look.asked.items()
    )


def _saturated(before: float | None, look: Look, spec: Autoscaling, most: int | None) -> float | None:
    """Return what one engine ran when requests queued in engines, or at miners for full ones: rising at once, falling
    slowly.

    At the beginning of a burst little runs yet.
    """
    # What miners hold while engines have places to give waits for something else: for a pod of its twin, say.
    full = most is not None and look.running >= FULL_PART * most * look.measured
    queued = look.waiting if full else look.waiting - look.held
    if not look.measured or look.running <= 0 or queued / look.measured <= spec.waiting_per_replica:
        return before
    ran = look.running / look.measured
    if ran < 1:
        return before  # an engine that lets others wait runs at least one
    return ran if before is None else max(ran, 0.9 * before + 0.1 * ran)


def _grow(memory: Memory, spec: Autoscaling, slots: int) -> Need:
    """Return the greatest need of the panic window. A single look is half of one, so that a flicker makes no pod."""
    looks = [each.look for each in memory.seen[-PANIC_LOOKS:]]
    return _greatest(_needs(looks, spec, slots, over=PANIC_LOOKS, room=1.0))


def _shrink(memory: Memory, spec: Autoscaling, slots: int, replicas: int) -> Need:
    """Return the greatest need of the stable window, with room, and what keeps the engines that run requests."""
    looks = [each.look for each in memory.seen]
    needs = _needs(looks, spec, slots, over=len(looks), room=ROOM)
    running = _mean([look.running for look in looks], len(looks))
    if running > 0 and memory.saturated is not None:
        said = f"{running:.1f} requests run, and an engine was seen to run {memory.saturated:.1f} before others waited"
        needs.append(_need(Signal.RUNNING, running / (ROOM * memory.saturated), said))
    elif running > 0:
        needs.append(Need(replicas=max(1, replicas - 1), signal=Signal.RUNNING, said=f"{running:.1f} requests run"))
    return _greatest(needs)


def _needs(looks: Sequence[Look], spec: Autoscaling, slots: int, *, over: int, room: float) -> list[Need]:
    waiting = _mean([look.waiting for look in looks], over)
    kv = _mean([look.kv_percent for look in looks], over)
    adapters = _mean([look.adapters for look in looks], over)
    return [
        _need(
            Signal.WAITING, waiting / (room * spec.waiting_per_replica),
            f"{waiting:.1f} requests wait; one pod is for {spec.waiting_per_replica}",
        ),
        _need(
            Signal.KV_CACHE, kv / (room * spec.kv_cache_percent),
            f"KV caches in use are {kv:.0f}% of one engine's; one pod is for {spec.kv_cache_percent}%",
        ),
        _need(
            Signal.SLOTS, 100 * adapters / (room * slots * spec.slot_pressure_percent),
            f"{adapters:.1f} twins' versions are active; one pod has {slots} LoRA slots, for "
            f"{spec.slot_pressure_percent}% of them",
        ),
    ]  # fmt: skip


def _need(signal: Signal, pods: float, said: str) -> Need:
    # A hair's breadth above a whole number is how floats divide.
    return Need(replicas=math.ceil(min(pods, 1e6) - 1e-9), signal=signal, said=said)


def _greatest(needs: Sequence[Need]) -> Need:
    return max(needs, key=lambda need: need.replicas)


def _mean(values: Sequence[float], over: int) -> float:
    return sum(values) / over


def _maxima(before: tuple[tuple[float, int], ...], spec: Autoscaling, now: float) -> tuple[tuple[float, int], ...]:
    """Return the maxima of the stabilization window; the last one before it still held when it began."""
    if not before or before[-1][1] != spec.max:
        before = (*before, (now, spec.max))
    oldest = now - spec.stabilization_seconds
    begun = [place for place, (at, _) in enumerate(before) if at <= oldest]
    return before[begun[-1] if begun else 0 :]


def _ceiling(maxima: tuple[tuple[float, int], ...], spec: Autoscaling, now: float) -> int | None:
    oldest = now - spec.stabilization_seconds
    falls = sum(later < earlier and at > oldest for (_, earlier), (at, later) in itertools.pairwise(maxima))
    return min(most for _, most in maxima) if falls >= _FALLS else None
