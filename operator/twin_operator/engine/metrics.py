"""The operator's own metrics (`bettertherapy_operator_*`), in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

RECONCILES = Counter(
    "bettertherapy_operator_reconciles", "Reconciliations by kind and result (ok, error).", ["kind", "result"],
    registry=REGISTRY,
)  # fmt: skip
RECONCILE_SECONDS = Histogram(
    "bettertherapy_operator_reconcile_seconds", "Duration of one reconciliation in seconds.", ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10), registry=REGISTRY,
)  # fmt: skip
QUEUE_DEPTH = Gauge("bettertherapy_operator_queue_depth", "Keys that wait for a worker.", registry=REGISTRY)
QUEUE_WAIT_SECONDS = Histogram(
    "bettertherapy_operator_queue_wait_seconds", "Time a key waited for a worker, in seconds.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30), registry=REGISTRY,
)  # fmt: skip
IS_LEADER = Gauge("bettertherapy_operator_is_leader", "1 while this replica holds the Lease.", registry=REGISTRY)
API_WRITES = Counter(
    "bettertherapy_operator_api_writes", "Writes to the API server by verb, kind and HTTP status (0: no answer).",
    ["verb", "kind", "status"], registry=REGISTRY,
)  # fmt: skip
API_WRITTEN_BYTES = Counter(
    "bettertherapy_operator_api_written_bytes", "Bytes of bodies of writes to the API server, by kind.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
CACHED_OBJECTS = Gauge(
    "bettertherapy_operator_cached_objects", "Objects in the cache by kind.", ["kind"], registry=REGISTRY
)
DATASETS_WRITTEN = Gauge(
    "bettertherapy_operator_datasets_written_timestamp_seconds",
    "When a validator's conversations were last brought to where fine-tunes read them, in seconds since 1970.",
    ["namespace", "validator"], registry=REGISTRY,
)  # fmt: skip
ROUTING_CHANGES = Counter(
    "bettertherapy_operator_routing_changes", "Routing tables written, by namespace and pool.", ["namespace", "pool"],
    registry=REGISTRY,
)  # fmt: skip
