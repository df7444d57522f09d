"""All series of the contract, and the labels that stand on them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bettertherapy_api.metrics import agent, engine, gateway, miner, operator
from bettertherapy_api.metrics.bounds import MOST_TRIED, MOST_TWINS, MOST_VERSIONS
from bettertherapy_api.metrics.series import OTHER, Process, Series

ALL: Final[tuple[Series, ...]] = (
    *operator.SERIES, *miner.SERIES, *agent.SERIES, *gateway.SERIES, *engine.SERIES,
)  # fmt: skip
CONTRACT: Final[Mapping[str, Series]] = MappingProxyType({series.name: series for series in ALL})
"""By name."""
EXPOSED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {name: labels for series in ALL for name, labels in series.exposed().items()}
)
"""Every name that a query can ask for (a histogram's `_bucket`, `_count`, `_sum`), with the labels that it has."""
OURS: Final = frozenset({Process.OPERATOR, Process.MINER, Process.AGENT, Process.GATEWAY})

TARGET_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "namespace": "the pod's namespace; of series that have a label of that name it is the object's",
        "pod": "the pod",
        "component": "what the pod is, by its label `app.kubernetes.io/name`: engine, miner, gateway, twin-operator",
        "pool": "the MinerPool that the pod belongs to, by its label `bettertherapy.io/pool`",
        "validator": "the Validator that the pod belongs to, by its label `bettertherapy.io/validator`",
        "job": "Prometheus' name for what it scrapes",
        "instance": "address and port",
    }
)
"""What Prometheus adds when it scrapes, by the PodMonitor of the chart or the scrape configuration in the docs."""

LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "twin": f"name of a DoctorTwin; at most {MOST_VERSIONS} versions and {MOST_TRIED} that are tried have series of"
        f" their own in a miner, {MOST_TWINS} twins in a gateway, all others count as `{OTHER}`; empty: a twin that"
        " doesn't exist",
        "version": "served name of a version, bounded as `twin`",
        "code": "HTTP status; or `broken`",
        "process": "number of the process that counts, so that a restarted one counts beside and not from zero",
        "reason": "one of the words that the help text names",
        "outcome": "one of the words that the help text names",
        "index": "0 to the most that a pool draws",
        "scorer": "name of an installed scorer",
        "why": "error, late, nonsense",
        "table": "which table",
        "state": "state of an adapter in a PodReport",
        "kind": "kind of an object; of an answer's oddity; of an emergency",
        "hotkey": "a miner's address on its subnet; 256 at most, and those that left are dropped",
        "registered": "block of its registration",
        "what": "dataset, report",
        "rating": "1 to 5",
        "result": "ok, error",
        "verb": "of the API server's requests",
        "status": "HTTP status of a write; a condition's status",
        "condition": "type of a condition",
        "namespace": "an object's namespace",
        "validator": "name of a Validator",
        "pool": "name of a MinerPool",
        "model_name": "the base model",
        "engine": "number of vLLM's engine core",
        "running_lora_adapters": "served names, with commas between",
        "waiting_lora_adapters": "served names, with commas between",
        "max_lora": "slots for adapters",
    }
)
"""What may stand in each label, and why it is bounded."""
