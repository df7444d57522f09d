"""When a pool's engines may be replaced: in its maintenance window, and after other pools where the operator is the
cause. Pure: the time is an argument.

Why: an operator of a new release brings new default images. If all pools took them at once, a bad image would take
every pool down, and a cluster without spare GPUs would be blocked by all of them. So such updates go pool by pool, each
after the one before has proven itself for a while. What a pool's own spec asks for goes at once. Where no engine is
ready, or a replacement has begun and isn't over, a window protects nothing: what comes then may be what mends it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bettertherapy_api.update_strategy import UpdateStrategy
from twin_operator.domain.objects import LEAST_AT_HAND
from twin_operator.domain.reasons import Reason
from twin_operator.domain.schedule import Schedule, ScheduleError

_LOOK_AGAIN: Final = timedelta(seconds=15)
"""How soon a pool that waits for another looks again; the end of a rollout isn't an event of the pool that waits."""
_NAMED: Final = 3
_DOUBT: Final = timedelta(hours=1)
"""So long after an update broken engines count as broken by it, where nobody says since when they are."""


class Cause(enum.StrEnum):
    """What a change of the engines' pods comes from."""

    POOL = "Pool"
    """The pool's own spec, or its creation."""
    OPERATOR = "Operator"
    """Anything else: another release's images or pods, or more adapters than the engines keep at hand."""


class Stage(enum.StrEnum):
    """How far a pool is with the update that the operator caused."""

    SETTLED = "Settled"
    WAITING = "Waiting"
    """Its engines run something else than they should, and nothing but its turn is missing."""
    ROLLING = "Rolling"


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One pool's part in the updates that the operator caused."""

    namespace: str
    name: str
    stage: Stage
    finished: datetime | None = None
    """When its last such update was complete, or since when it has all its pods again."""
    begun: bool = False
    """Pods of such an update are being brought up, seen for certain: no mere change of scale looks like it."""
    down: bool = False
    """Since it was complete, engines have ceased to be ready."""
    broke: datetime | None = None
    """When so many had that the Deployment counts as unavailable; None if that isn't known."""

    @property
    def place(self) -> tuple[str, str]:
        """Its place among those that wait."""
        return self.namespace, self.name


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many pools take an update that the operator caused, and how fast one after another. An operator's setting."""

    pools: int = 1
    """At most so many at a time."""
    delay_seconds: int = 60
    """How long one must have run with it before the next begins."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Why an update waits."""

    reason: Reason
    message: str
    look_again: datetime
    """When to decide anew, if nothing else happens."""


def update_held(
    pool: Rollout,
    *,
    strategy: UpdateStrategy | None,
    cause: Cause,
    others: Collection[Rollout],
    pace: Pace,
    now: datetime,
    any_time: bool = False,
) -> Held | None:
    """Return why the pool's pending update must wait, or None when it may go. `now` is in UTC.

    `any_time`: the maintenance window doesn't count, since there is nothing left for it to protect.
    """
    if not any_time and (held := window_held(strategy, now)) is not None:
        return held
    return turn_held(pool, others=others, pace=pace, now=now) if cause is Cause.OPERATOR else None


def window_held(strategy: UpdateStrategy | None, now: datetime) -> Held | None:
    """Return why the maintenance window holds an update back, or None when it is open or there is none."""
    window = strategy.maintenance_window if strategy else None
    if window is None:
        return None
    try:
        zone = ZoneInfo(window.time_zone)
        schedule = Schedule(cron=window.schedule, zone=zone, spread=0, window_seconds=1)
        opened, opens = schedule.latest(now), schedule.after(now)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        wrong = (
            str(error)
            if isinstance(error, ScheduleError)
            else f"timeZone {window.time_zone!r} is unknown: use an IANA name such as Asia/Kathmandu"
        )
        return Held(
            reason=Reason.MAINTENANCE_WINDOW_INVALID,
            message="an update of the engines waits for ever, because engine.updateStrategy.maintenanceWindow means "
            f"nothing: {wrong}",
            look_again=now + timedelta(days=1),
        )
    if opened is not None and now < opened + timedelta(seconds=window.seconds):
        return None
    return Held(
        reason=Reason.AWAITING_MAINTENANCE_WINDOW,
        message=f"an update of the engines waits for the maintenance window, which opens at "
        f"{opens.astimezone(zone):%Y-%m-%d %H:%M %Z} ({opens:%Y-%m-%dT%H:%M:%SZ}); until then they run as before",
        look_again=opens,
    )


def unproven(pool: Rollout, *, pace: Pace, now: datetime) -> bool:
    """Tell whether the pool's pods have yet to show that the operator's last update of them is good.

    They have once all were ready for the delay. Pods that broke within it do so only when they are mended; those that
    broke later did for reasons of their own, and speak against no release.
    """
    if pool.stage is Stage.ROLLING:
        return True
    return pool.finished is not None and (now < pool.finished + _delay(pace) or _broken(pool, pace=pace, now=now))


def turn_held(pool: Rollout, *, others: Collection[Rollout], pace: Pace, now: datetime) -> Held | None:
    """Return which pools the update waits for, or None when it is this pool's turn.

    Those that wait go by namespace and name, so that two pools that are decided at the same moment never both go. A
    pool that is on its way already, and now gets a still newer update, waits for no one: it has its place, and that
    update may be what mends it. Two such pools would else wait for each other. One that only may be on its way (it was
    scaled a moment ago) waits for those that are.
    """
    if pool.begun or _broken(pool, pace=pace, now=now):
        return None
    going = {each.place for each in others if each.stage is Stage.ROLLING or _broken(each, pace=pace, now=now)}
    ahead = {each.place for each in others if each.stage is Stage.WAITING and each.place < pool.place} - going
    if pool.stage is Stage.ROLLING:
        ahead = set()
    before = [*sorted(going), *sorted(ahead)]
    if len(before) >= pace.pools:
        return Held(
            reason=Reason.UPDATE_HELD,
            message=f"a new release's update of the engines waits for {_listed(before)}: at most {pace.pools} "
            f"{'pool is' if pace.pools == 1 else 'pools are'} updated at a time; until then the engines run as before",
            look_again=now + _LOOK_AGAIN,
        )
    if pool.stage is Stage.ROLLING:
        return None
    recent = max(
        (each for each in others if each.finished is not None),
        key=lambda each: (each.finished, each.place),
        default=None,
    )
    if recent is None or recent.finished is None:
        return None
    due = recent.finished + _delay(pace)
    if now >= due:
        return None
    return Held(
        reason=Reason.UPDATE_HELD,
        message=f"a new release's update of the engines waits until {_listed([recent.place])} has run with it for "
        f"{pace.delay_seconds} s; until then the engines run as before",
        look_again=due,
    )


def _broken(pool: Rollout, *, pace: Pace, now: datetime) -> bool:
    """Tell whether the update was complete and its pods broke before they had proven it."""
    if pool.finished is None or not pool.down:
        return False
    if pool.broke is None:
        return now < pool.finished + max(_delay(pace), _DOUBT)
    return pool.broke < pool.finished + _delay(pace)


def _delay(pace: Pace) -> timedelta:
    return timedelta(seconds=pace.delay_seconds)


def _listed(places: list[tuple[str, str]]) -> str:
    named = ", ".join(f"{namespace}/{name}" for namespace, name in places[:_NAMED])
    more = len(places) - _NAMED
    return f"MinerPool {named}" + (f" and {more} more" if more > 0 else "")


# -- adapters at hand


def adapters_at_hand(held: int, *, max_loras: int, running: int | None, updating: bool) -> int:
    """Return `--max-cpu-loras`: how many adapters an engine keeps in memory; others are read from disk when asked for.

    vLLM fills this room only as adapters are used, so having more of it costs nothing; having less costs a third of the
    speed. But another number restarts the engines. So it is a power of two of at least 64 and `max_loras`, and follows
    `held` (adapters that a pod must hold) only when the engines are replaced anyway (`updating`), or when `held` is
    more than twice the number that they are `running` with.
    """
    wanted = max(LEAST_AT_HAND, 1 << (max(held, max_loras, 1) - 1).bit_length())
    if running is None or updating or running < max_loras or held > 2 * running:
        return wanted
    return running
