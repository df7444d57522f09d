"""The operator's series: its own work, and the conditions of the objects that it looks after."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.metrics.series import Kind, Process, Reader, Series


def _counter(name: str, text: str, *labels: str, unit: str = "", read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_operator_{name}_total", kind=Kind.COUNTER, of=Process.OPERATOR, help=text, labels=labels,
        unit=unit, read_by=read_by,
    )  # fmt: skip


def _gauge(name: str, text: str, *labels: str, unit: str = "", read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_operator_{name}", kind=Kind.GAUGE, of=Process.OPERATOR, help=text, labels=labels,
        unit=unit, read_by=read_by,
    )  # fmt: skip


def _seconds(
    name: str, text: str, *labels: str, buckets: tuple[float, ...], read_by: tuple[Reader, ...] = ()
) -> Series:
    return Series(
        name=f"bettertherapy_operator_{name}_seconds", kind=Kind.HISTOGRAM, of=Process.OPERATOR, help=text,
        labels=labels, unit="seconds", buckets=buckets, read_by=read_by,
    )  # fmt: skip


RECONCILES: Final = _counter(
    "reconciles", "Reconciliations by kind and result (ok, error).", "kind", "result",
    read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
RECONCILE_SECONDS: Final = _seconds(
    "reconcile", "Duration of one reconciliation in seconds.", "kind",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10), read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
QUEUE_DEPTH: Final = _gauge("queue_depth", "Keys that wait for a worker.", read_by=(Reader.DASHBOARDS,))
QUEUE_WAIT_SECONDS: Final = _seconds(
    "queue_wait", "Time a key waited for a worker, in seconds.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30), read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
IS_LEADER: Final = _gauge(
    "is_leader", "1 while this replica holds the Lease.", read_by=(Reader.ALERTS, Reader.DASHBOARDS)
)
API_WRITES: Final = _counter(
    "api_writes", "Writes to the API server by verb, kind and HTTP status (0: no answer).", "verb", "kind", "status",
    read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
API_WRITTEN_BYTES: Final = _counter(
    "api_written_bytes", "Bytes of bodies of writes to the API server, by kind.", "kind", unit="bytes"
)
CACHED_OBJECTS: Final = _gauge("cached_objects", "Objects in the cache by kind.", "kind", read_by=(Reader.DASHBOARDS,))
CONDITIONS: Final = _gauge(
    "conditions",
    "Objects by kind, namespace, condition and its status (True, False, Unknown), as the leader knows them.",
    "namespace", "kind", "condition", "status", read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
DATASETS_WRITTEN: Final = _gauge(
    "datasets_written_timestamp_seconds",
    "When a validator's conversations were last brought to where fine-tunes read them, in seconds since 1970.",
    "namespace", "validator", unit="seconds", read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
ROUTING_CHANGES: Final = _counter(
    "routing_changes", "Routing tables written, by namespace and pool.", "namespace", "pool",
    read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
SERIES: Final = (
    RECONCILES, RECONCILE_SECONDS, QUEUE_DEPTH, QUEUE_WAIT_SECONDS, IS_LEADER, API_WRITES, API_WRITTEN_BYTES,
    CACHED_OBJECTS, CONDITIONS, DATASETS_WRITTEN, ROUTING_CHANGES,
)  # fmt: skip
