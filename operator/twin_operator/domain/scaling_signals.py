"""How loaded pools are, from Prometheus: what is asked, once for all pools of a namespace, and the answers, checked.

Engines' series come with their agents' pages, requests and twins from the miners; each series is told by the `pod` that
it carries, so the pool's own list of pods says whose it is, and a pod that is gone counts for nothing. A figure that
can't be (negative, more than a counter holds; NaN never gets here) was not measured. Where several Prometheus replicas
stand behind one address or one query, the highest of their fresh figures counts: it can make a pool larger, never
smaller. How old a sample is, is told by the clock of the Prometheus that has it, not by ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from twin_operator.engine.prometheus import Sample

FRESH_SECONDS: Final = 90
"""Older samples are stale: three scrapes at the usual interval of 30 s, and more than a clock is likely to be wrong."""
_MOST: Final = 2.0**53
"""A float counts up to here: no figure is above it."""

_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_KV: Final = "vllm:kv_cache_usage_perc"
_HELD: Final = "bettertherapy_miner_held"
_IN_FLIGHT: Final = "bettertherapy_miner_in_flight"
_REQUESTS: Final = "bettertherapy_miner_requests_total"
_OF_TWINS: Final = 'twin!=""'
"""Questions for models that don't exist wake nobody."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A pool, as far as its samples are concerned."""

    engines: frozenset[str]
    """Names of its engine pods."""
    miners: frozenset[str]
    """Of its miner pods."""
    expected: frozenset[str] = frozenset()
    """Of those of both that are ready, so that samples of theirs must be there."""
    base: str = ""
    """Name of the base model, whose own requests take no LoRA slot."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One reading of one pool. Everything is a sum over its pods."""

    sampled_at: float
    """When the newest of its samples was taken, by Prometheus' clock: the same again is no second look."""
    waiting: float = 0.0
    """Requests that no engine works on yet: held by miners, or waiting inside engines."""
    held: float = 0.0
    """Those of them that miners hold, since no engine pod takes them."""
    running: float = 0.0
    """Requests that engines work on."""
    kv_percent: float = 0.0
    """KV cache in use, in percent of one engine's: two half-full ones are 100."""
    kv_fullest: float | None = None
    """Of the fullest engine; None where none says."""
    adapters: int = 0
    """Adapters with requests in flight: each wants a LoRA slot."""
    asked: Mapping[str, float] = field(default_factory=dict)
    """Requests that ended so far, by miner pod."""
    measured: int = 0
    """Engine pods with fresh samples."""
    missing: tuple[str, ...] = ()
    """Ready pods without: what is told is less than there is."""


def queries(matchers: str) -> dict[str, str]:
    """Return the PromQL of each part of a look at all pools that the matchers select."""
    more = f",{matchers}" if matchers else ""

    def fresh(series: str, condition: str = "") -> str:
        selected = f"{series}{{{(condition + more).lstrip(',')}}}"
        return f"({selected} and (time() - timestamp({selected}) < {FRESH_SECONDS}))"

    return {
        # An engine may count by data-parallel rank; replicas of Prometheus carry labels of their own.
        "running": f"sum by (pod) (max by (pod, engine, model_name) {fresh(_RUNNING)})",
        "waiting": f"sum by (pod) (max by (pod, engine, model_name) {fresh(_WAITING)})",
        "kv": f"max by (pod) {fresh(_KV)}",
        "held": f"max by (pod) {fresh(_HELD)}",
        "asked": f"sum by (pod) (max by (pod, twin, version, code, process) {fresh(_REQUESTS, _OF_TWINS)})",
        "in_flight": f"max by (pod, twin, version) ({fresh(_IN_FLIGHT)} > 0)",
        "sampled": f"max by (pod) (timestamp({_RUNNING}{{{matchers}}})) or max by (pod) "
        f"(timestamp({_HELD}{{{matchers}}}))",
    }


def looks(found: Mapping[str, Sequence[Sample]], places: Mapping[str, Place]) -> dict[str, Look | None]:
    """Return what the answers to `queries` say of each pool; None where they say nothing at all."""
    by_pod = {part: dict(_figures(found[part])) for part in ("running", "waiting", "kv", "held", "asked", "sampled")}
    flying: dict[str, set[str]] = {}
    for sample in found["in_flight"]:
        pod, version = _label(sample, "pod"), _label(sample, "version")
        if pod and version and 0 < sample.value <= _MOST:
            flying.setdefault(pod, set()).add(version)
    return {name: _look(by_pod, flying, place) for name, place in places.items()}


def _look(
    by_pod: Mapping[str, Mapping[str, float]], flying: Mapping[str, Collection[str]], place: Place
) -> Look | None:
    engines = {pod for pod in place.engines if pod in by_pod["running"] and pod in by_pod["waiting"]}
    miners = {pod for pod in place.miners if pod in by_pod["held"]}
    if not engines and not miners:
        return None
    # Usage is a share; a hundredth above 1 is how some versions round.
    kv = {pod: min(1.0, share) for pod, share in by_pod["kv"].items() if pod in engines and share <= 1.01}
    unfilled = engines - kv.keys() if kv else set()  # where no engine says, there is nothing to miss
    held = sum(by_pod["held"][pod] for pod in miners)
    return Look(
        sampled_at=max((by_pod["sampled"].get(pod, 0.0) for pod in engines | miners), default=0.0),
        waiting=held + sum(by_pod["waiting"][pod] for pod in engines),
        held=held,
        running=sum(by_pod["running"][pod] for pod in engines),
        kv_percent=100 * sum(kv.values()),
        kv_fullest=100 * max(kv.values()) if kv else None,
        adapters=len({version for pod in miners for version in flying.get(pod, ()) if version != place.base}),
        asked={pod: by_pod["asked"][pod] for pod in miners if pod in by_pod["asked"]},
        measured=len(engines),
        missing=tuple(sorted((place.expected - engines - miners) | (unfilled & place.expected))),
    )


def _figures(samples: Iterable[Sample]) -> Iterator[tuple[str, float]]:
    """Yield the figures that can be true, by pod; of several of one pod the highest is the last."""
    told = [(pod, sample.value) for sample in samples if (pod := _label(sample, "pod")) and 0 <= sample.value <= _MOST]
    yield from sorted(told)


def _label(sample: Sample, name: str) -> str:
    """Return a label, empty where there is none; Prometheus' are texts, other programs' may be anything."""
    value = sample.labels.get(name)
    return value if isinstance(value, str) else ""
