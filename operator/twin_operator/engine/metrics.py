"""The operator's own metrics (`bettertherapy_operator_*`), in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from bettertherapy_api.metrics import operator
from bettertherapy_api.metrics.collectors import Collectors
from bettertherapy_api.metrics.series import Process

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_MAKE = Collectors(REGISTRY, of=Process.OPERATOR)
RECONCILES = _MAKE.counter(operator.RECONCILES)
RECONCILE_SECONDS = _MAKE.histogram(operator.RECONCILE_SECONDS)
QUEUE_DEPTH = _MAKE.gauge(operator.QUEUE_DEPTH)
QUEUE_WAIT_SECONDS = _MAKE.histogram(operator.QUEUE_WAIT_SECONDS)
IS_LEADER = _MAKE.gauge(operator.IS_LEADER)
API_WRITES = _MAKE.counter(operator.API_WRITES)
API_WRITTEN_BYTES = _MAKE.counter(operator.API_WRITTEN_BYTES)
CACHED_OBJECTS = _MAKE.gauge(operator.CACHED_OBJECTS)
CONDITIONS = _MAKE.gauge(operator.CONDITIONS)
DATASETS_WRITTEN = _MAKE.gauge(operator.DATASETS_WRITTEN)
ROUTING_CHANGES = _MAKE.counter(operator.ROUTING_CHANGES)
