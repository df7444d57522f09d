"""How a canary does against the version that serves: error rate and latency, from the miners' metrics in Prometheus.

The canary's counters are read as they stand, not as rates: its series begin with it, and a rate would miss whatever
came before their first sample. Missing or old data is never read as good or bad: it holds the canary where it is. No
request at all, in fresh data, is no reason to hold it: a twin that nobody asked would never get a new version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bettertherapy_api.doctor_twin import Rollout as RolloutSpec
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.errors import PrometheusError

FRESH_SECONDS: Final = 90
"""Older samples are stale: three scrapes at the usual interval of 30 s."""
JUDGED_REQUESTS: Final = 10
"""From so many requests on the error rate counts."""
JUDGED_ERRORS: Final = 3
"""From so many failed requests on the error rate counts, however few there were in all."""
JUDGED_LATENCIES: Final = 20
"""From so many requests on a 95th percentile means something."""


class Outlook(StrEnum):
    """What the analysis says of a canary."""

    GOOD = "Good"
    WORSE = "Worse"
    UNCLEAR = "Unclear"
    UNKNOWN = "Unknown"
    UNWATCHED = "Unwatched"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An outlook, with a reason and a sentence with the numbers."""

    outlook: Outlook
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What Prometheus knows. Latencies are 95th percentiles in seconds, None where there is none."""

    fresh_miners: int
    requests: Mapping[str, float] = field(default_factory=dict)
    """The canary's ended requests by code."""
    canary_seconds: float | None = None
    stable_seconds: float | None = None


UNWATCHED: Final = Analysis(
    outlook=Outlook.UNWATCHED, reason="NotAnalysed",
    message="steps go by time and verification alone: the operator has no Prometheus (prometheus.url of its chart)",
)  # fmt: skip


def queries(*, twin: str, canary: str, stable: str, window_seconds: int, matchers: str) -> dict[str, str]:
    """Return the PromQL of each part of a measurement."""
    more = f",{matchers}" if matchers else ""
    bucket = "bettertherapy_miner_request_seconds_bucket"
    tried, serving = (f'{{twin="{twin}",version="{version}"{more}}}[{window_seconds}s]' for version in (canary, stable))
    return {
        "fresh": f"count(time() - timestamp(bettertherapy_miner_pods_ready{{{matchers}}}) < {FRESH_SECONDS})",
        "requests": f"sum by (code) (max_over_time(bettertherapy_miner_requests_total{tried}))",
        "canary": f"histogram_quantile(0.95, sum by (le) (max_over_time({bucket}{tried})))",
        "stable": f"histogram_quantile(0.95, sum by (le) (rate({bucket}{serving})))",
    }


async def measure(
    prometheus: Prometheus, *, twin: str, canary: str, stable: str, window_seconds: int, matchers: str
) -> Measurement | str:
    """Ask Prometheus; returns what went wrong as a sentence when it doesn't answer."""
    asked = queries(twin=twin, canary=canary, stable=stable, window_seconds=window_seconds, matchers=matchers)
    try:
        answers = await asyncio.gather(*(prometheus.query(promql) for promql in asked.values()))
    except PrometheusError as error:
        return str(error)
    found = dict(zip(asked, answers, strict=True))
    return Measurement(
        fresh_miners=int(_only(found["fresh"]) or 0),
        requests={sample.labels.get("code", ""): sample.value for sample in found["requests"]},
        canary_seconds=_only(found["canary"]),
        stable_seconds=_only(found["stable"]),
    )


def _only(samples: list[Sample]) -> float | None:
    return samples[0].value if samples else None


def assess(  # noqa: PLR0911  # one return per finding
    measured: Measurement | str, limits: RolloutSpec, *, miners: int
) -> Analysis:
    """Return what the measurement says; `miners` is how many miner pods must have fresh samples."""
    if isinstance(measured, str):
        return Analysis(outlook=Outlook.UNKNOWN, reason="MetricsUnavailable", message=measured)
    if measured.fresh_miners < max(1, miners):
        return Analysis(
            outlook=Outlook.UNKNOWN, reason="MetricsStale",
            message=f"Prometheus has samples of the last {FRESH_SECONDS} s from {measured.fresh_miners} of "
            f"{max(1, miners)} miner pods: check that it scrapes them",
        )  # fmt: skip
    total = round(sum(measured.requests.values()))
    errors = round(sum(count for code, count in measured.requests.items() if _is_failure(code)))
    if total == 0:
        return Analysis(outlook=Outlook.GOOD, reason="NoTraffic", message="no request has reached it yet")
    percent = 100 * errors / total
    rate = f"{errors} of {total} requests failed ({percent:.2f}%, allowed {limits.max_error_percent}%)"
    if percent > limits.max_error_percent:
        judged = total >= JUDGED_REQUESTS or errors >= JUDGED_ERRORS
        outlook = Outlook.WORSE if judged else Outlook.UNCLEAR
        return Analysis(outlook=outlook, reason="ErrorRate", message=rate)
    canary, stable = measured.canary_seconds, measured.stable_seconds
    if canary is None or not stable or total < JUDGED_LATENCIES:
        return Analysis(outlook=Outlook.GOOD, reason="WithinLimits", message=f"{rate}; too few to compare latencies")
    ratio = 100 * canary / stable
    latency = (
        f"95% answered within {canary:.2f} s against {stable:.2f} s ({ratio:.0f}%, "
        f"allowed {limits.max_latency_ratio_percent}%)"
    )
    if ratio > limits.max_latency_ratio_percent:
        return Analysis(outlook=Outlook.WORSE, reason="Latency", message=f"{latency}; {rate}")
    return Analysis(outlook=Outlook.GOOD, reason="WithinLimits", message=f"{rate}; {latency}")


def _is_failure(code: str) -> bool:
    return code.startswith("5") or code == "broken"
