"""How busy twins have been, from what miners count in Prometheus: rough classes that don't change with every sample.

A class is a power of two of thousandths of a request in flight, on average over the window. It stays until the average
is more than twice or less than half of it, so a plan that rests on classes comes to rest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from twin_operator.engine.prometheus import Sample

WINDOW_SECONDS: Final = 600
_MOST: Final = 2.0**40
"""Thousandths of a request in flight that are believed."""
_IN_FLIGHT: Final = "bettertherapy_miner_in_flight"
_PAGE: Final = "bettertherapy_miner_pods_ready"
"""Every miner's page has it, whoever was asked."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What is known of a pool's twins."""

    by_twin: Mapping[str, int]
    """Classes by the twins' names."""
    others: int | None = None
    """Of all others: 0 where they were seen to be idle, None where nobody can say."""

    def of(self, twin: str) -> int | None:
        """Return a twin's class; None: not measured."""
        return self.by_twin.get(twin, self.others)


UNMEASURED: Final = Activity(by_twin={})


def queries(matchers: str) -> dict[str, str]:
    """Return the PromQL for all pools that the matchers select. Of several Prometheus replicas the highest counts."""
    return {
        "in_flight": f"sum by (pod, twin) (max by (pod, twin, version) "
        f"(avg_over_time({_IN_FLIGHT}{{{matchers}}}[{WINDOW_SECONDS}s])))",
        "pages": f"count by (pod) ({_PAGE}{{{matchers}}})",
    }


def activity(
    found: Mapping[str, Iterable[Sample]], *, miners: Collection[str], twins: Collection[str], former: Activity
) -> Activity:
    """Return what the answers to `queries` say of a pool with these miner pods and these twins.

    Where the page of a miner is missing, or what is counted names no twin of the pool (series may be summed up beyond a
    bound), a twin that isn't named is not known to be idle.
    """
    sums: dict[str, float] = {}
    summed_up = False
    for sample in found["in_flight"]:
        value = sample.value * 1000
        if sample.labels.get("pod") not in miners or not 0 < value <= _MOST:
            continue
        twin = sample.labels.get("twin") or ""
        if twin in twins:
            sums[twin] = sums.get(twin, 0.0) + value
        else:
            summed_up = True
    pages = {sample.labels.get("pod") for sample in found["pages"]}
    whole = bool(miners) and pages.issuperset(miners) and not summed_up
    if not sums and not whole:
        return UNMEASURED
    return Activity(
        by_twin={twin: _class_of(value, former.by_twin.get(twin)) for twin, value in sorted(sums.items())},
        others=0 if whole else None,
    )


def _class_of(value: float, former: int | None) -> int:
    if former is not None and former / 2 <= value <= former * 2:
        return former
    return 1 << max(0, round(math.log2(value)))
