"""Times as a twin's people read them: in the zone of its fine-tunes (spec.fineTune.timeZone), which is named."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple


class Zone(NamedTuple):
    """A time zone and what it is called."""

    name: str
    info: tzinfo


UNIVERSAL: Final = Zone("UTC", UTC)


def zone_of(twin: dict[str, Any]) -> Zone:
    """Return the twin's own zone; UTC where it names none, or one that this machine does not know."""
    name = str((twin["spec"].get("fineTune") or {}).get("timeZone") or "Etc/UTC")
    if name in ("UTC", "Etc/UTC"):
        return UNIVERSAL
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most commands show no time

    try:
        return Zone(name, ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return UNIVERSAL


def moment(time: str | None, zone: Zone = UNIVERSAL) -> str:
    """Return an RFC 3339 time for a table, in that zone and to the minute; a dash for none."""
    try:
        read = datetime.fromisoformat(time or "")
    except ValueError:
        return "-"
    return f"{(read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(zone.info):%Y-%m-%d %H:%M}"
