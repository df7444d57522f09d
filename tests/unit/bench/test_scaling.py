"""The simulated hour shows what a pool is to do: grow, keep what it has, shrink, sleep, wake."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tests.bench.plots import draw
from tests.bench.scaling import OUTAGE, SCRAPE, SIMULATED, Second, _curves, simulated


def hour() -> list[Second]:
    return list(simulated())


def test_it_grows_within_a_scrape_loses_nothing_in_the_outage_and_sleeps_and_wakes() -> None:
    seen = hour()
    crossed = next(each.at for each in seen if each.waiting > SIMULATED.waiting_per_replica)
    grown = next(each.at for each in seen if each.decided > 1)
    assert grown - crossed <= SCRAPE + 5
    during = {each.decided for each in seen[slice(*OUTAGE)]}
    assert during == {seen[OUTAGE[0] - 1].decided}
    assert [each.changed for each in seen if each.changed][-2:] == ["ScaledDown", "Woken"]
    sizes = [each.decided for each in seen]
    most = sizes.index(max(sizes))
    asleep = sizes.index(0)
    assert sizes[:most] == sorted(sizes[:most])
    assert sizes[most:asleep] == sorted(sizes[most:asleep], reverse=True)


def test_the_same_hour_is_simulated_and_drawn_alike_each_time(tmp_path: Path) -> None:
    drawn = []
    for folder in ("a", "b"):
        curves = [asdict(each) for each in _curves(hour())]
        told = draw({"name": "scaling", "curves": curves}, tmp_path / folder)
        assert told is not None
        assert "keeps them while Prometheus is away from minute 25 to 35" in told
        drawn.append((tmp_path / folder / "scaling.svg").read_bytes())
    assert drawn[0] == drawn[1]
