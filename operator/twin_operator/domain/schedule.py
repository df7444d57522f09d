"""When a twin's fine-tunes are due: its cron expression in its time zone, moved by a stable hash inside a window.

Many twins keep the default schedule; the hash spreads them, so that they don't all start at the same minute. Nothing
here asks for the time: it is an argument.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from bettertherapy_api.doctor_twin import FineTune

_EPSILON = timedelta(seconds=1)


class ScheduleError(ValueError):
    """The cron expression or the time zone means nothing; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One twin's due times, in UTC."""

    cron: str
    zone: ZoneInfo
    spread: int
    """The twin's hash; what is left of it inside the window is how much later than its cron time it starts."""
    window_seconds: int

    def after(self, moment: datetime) -> datetime:
        """Return the first due time after `moment`; raises ScheduleError when there is none."""
        before = self._cron_time(moment, reverse=True)
        if before is not None and (due := self._due(before)) > moment:
            return due
        following = self._cron_time(moment)
        if following is None:
            raise ScheduleError(f"schedule {self.cron!r} never comes")
        return self._due(following)

    def latest(self, moment: datetime) -> datetime | None:
        """Return the last due time that is not after `moment`."""
        before = self._cron_time(moment + _EPSILON, reverse=True)
        while before is not None and (due := self._due(before)) > moment:
            before = self._cron_time(before, reverse=True)
        return None if before is None else due

    def includes(self, moment: datetime) -> bool:
        """Tell whether `moment` is a due time of this schedule, and not one of a former schedule."""
        return self.latest(moment) == moment

    def _due(self, cron_time: datetime) -> datetime:
        following = self._cron_time(cron_time)
        gap = (following - cron_time).total_seconds() if following is not None else self.window_seconds
        # Never beyond the next cron time: due times keep their order.
        return cron_time + timedelta(seconds=self.spread % max(1, int(min(self.window_seconds, gap))))

    def _cron_time(self, moment: datetime, *, reverse: bool = False) -> datetime | None:
        try:
            found = next(CronSim(self.cron, moment.astimezone(self.zone), reverse=reverse), None)
        except CronSimError as error:
            raise ScheduleError(f"schedule {self.cron!r} is no cron expression: {error}") from error
        return found.astimezone(UTC) if found is not None else None


def next_time(cron: str, zone: str, *, after: datetime) -> datetime | None:
    """Return when a CronJob of this schedule runs next; None where the schedule or the time zone mean nothing."""
    try:
        found = next(CronSim(cron, after.astimezone(ZoneInfo(zone))), None)
    except (CronSimError, ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return found.astimezone(UTC) if found is not None else None


def schedule_of(fine_tune: FineTune, *, namespace: str, twin: str, window_seconds: int) -> Schedule:
    """Return the twin's schedule; raises ScheduleError when it means nothing."""
    try:
        zone = ZoneInfo(fine_tune.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones, such as America
        raise ScheduleError(
            f"timeZone {fine_tune.time_zone!r} is unknown: use an IANA name such as Asia/Kathmandu"
        ) from error
    digest = hashlib.sha256(f"{namespace}/{twin}".encode()).digest()
    schedule = Schedule(
        cron=fine_tune.schedule, zone=zone, spread=int.from_bytes(digest[:8], "big"), window_seconds=window_seconds
    )
    schedule.after(datetime(2000, 1, 1, tzinfo=UTC))
    return schedule
