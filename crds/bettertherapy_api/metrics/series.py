"""What a series is: name, type, labels, unit, help, who exposes and who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OTHER: Final = "_other"
"""Value of the labels `twin` and `version` for all beyond the bound (`bounds`). No object can have such a name."""


class Process(StrEnum):
    """Which process exposes a series."""

    OPERATOR = "operator"
    MINER = "miner"
    AGENT = "agent"
    GATEWAY = "gateway"
    ENGINE = "engine"
    """vLLM's own, which the agent passes on."""
    PROMETHEUS = "Prometheus"
    """What Prometheus itself says of what it scrapes."""


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Reader(StrEnum):
    """What of ours reads series."""

    CANARY = "canary analysis"
    ROUNDS = "rounds"
    AUTOSCALER = "autoscaler"
    PLACEMENT = "placement"
    PILOT = "auto-pilot"
    """What finds slow replicas, and twins that leave their baseline."""
    ALERTS = "alerts"
    DASHBOARDS = "dashboards"
    TOP = "kubectl twin top"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One family. A counter's name ends in `_total`, as it is exposed; a histogram's is without `_bucket`."""

    name: str
    kind: Kind
    of: Process
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """`seconds`, `bytes`, `ratio`; empty: a number of what the name says."""
    read_by: tuple[Reader, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without +Inf."""

    @property
    def bucket(self) -> str:
        """Name of a histogram's cumulative counts, which have the label `le`."""
        return f"{self.name}_bucket"

    @property
    def count(self) -> str:
        """Name of a histogram's number of observations."""
        return f"{self.name}_count"

    @property
    def sum(self) -> str:
        """Name of a histogram's sum."""
        return f"{self.name}_sum"

    def exposed(self) -> dict[str, frozenset[str]]:
        """Return each name under which Prometheus keeps it, with its labels."""
        own = frozenset(self.labels)
        if self.kind is Kind.HISTOGRAM:
            return {self.bucket: own | {"le"}, self.count: own, self.sum: own}
        return {self.name: own}
