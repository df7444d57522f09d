"""Times are told in the twin's own zone, by name."""

from __future__ import annotations

from kubectl_twin.decide import nothing_waits
from kubectl_twin.zones import UNIVERSAL, moment, zone_of

from .objects import tuned_twin
from .test_render import fine_tuning


def of_kathmandu() -> dict[str, object]:
    made = tuned_twin()
    made["spec"]["fineTune"]["timeZone"] = "Asia/Kathmandu"
    return made


def test_a_twin_of_kathmandu_is_told_kathmandus_time() -> None:
    assert fine_tuning(of_kathmandu())["next"] == "2026-03-02 07:58 Asia/Kathmandu (in 14 h 13 min)"
    assert "at 2026-03-02 07:58 Asia/Kathmandu." in nothing_waits(of_kathmandu())


def test_a_zone_that_nobody_named_or_knows_is_utc() -> None:
    unknown = tuned_twin()
    unknown["spec"]["fineTune"]["timeZone"] = "Mars/Olympus"
    assert zone_of(tuned_twin()) == zone_of(unknown) == UNIVERSAL
    assert moment("2026-02-26T02:30:59.5Z") == "2026-02-26 02:30"
    assert moment("soon") == moment(None) == "-"
