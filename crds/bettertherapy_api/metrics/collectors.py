"""Makes a process's collectors of the contract's series; what isn't in it is refused."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.openmetrics import exposition

from bettertherapy_api.metrics.contract import CONTRACT
from bettertherapy_api.metrics.series import Kind, Process, Series


class ContractError(Exception):
    """A collector that the contract doesn't have."""


class Collectors:
    """The collectors of one process, in its registry."""

    def __init__(self, registry: CollectorRegistry, *, of: Process) -> None:
        # `_created` would double the number of series, and nothing reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry, self._of = registry, of

    def counter(self, series: Series) -> Counter:
        """Raises ContractError for a series that isn't this process's counter."""
        self._check(series, Kind.COUNTER)
        return Counter(series.name, series.help, series.labels, registry=self._registry)

    def gauge(self, series: Series) -> Gauge:
        """Raises ContractError for a series that isn't this process's gauge."""
        self._check(series, Kind.GAUGE)
        return Gauge(series.name, series.help, series.labels, registry=self._registry)

    def watch(self, series: Series, function: Callable[[], float]) -> None:
        """Have a gauge say at each scrape what the function returns then. Raises ContractError as `gauge`."""
        self.gauge(series).set_function(function)

    def histogram(self, series: Series) -> Histogram:
        """Raises ContractError for a series that isn't this process's histogram."""
        self._check(series, Kind.HISTOGRAM)
        return Histogram(series.name, series.help, series.labels, buckets=series.buckets, registry=self._registry)

    def _check(self, series: Series, kind: Kind) -> None:
        if CONTRACT.get(series.name) is not series:
            raise ContractError(f"{series.name} is not in the metrics contract (bettertherapy_api.metrics)")
        if series.of is not self._of:
            raise ContractError(f"{series.name} is exposed by the {series.of}, not by the {self._of}")
        if series.kind is not kind:
            raise ContractError(f"{series.name} is a {series.kind}, not a {kind}")


def openmetrics(registry: CollectorRegistry) -> bytes:
    """Return a registry in the form that can hold exemplars."""
    page: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return page
