"""What each twin is asked now and how it answers: from the pods' own metrics, or from Prometheus."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.metrics import engine, miner
from bettertherapy_api.metrics.series import OTHER
from kubectl_twin.api import Api, Json, core_path, twins_path
from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import Clock
from kubectl_twin.rounds import fetch
from kubectl_twin.views import is_pod_ready

WINDOW_SECONDS: Final = 300
"""What is asked of Prometheus."""
_PODS: Final = f"{names.LABEL_COMPONENT} in (miner,engine)"
_TIMEOUT_SECONDS: Final = 15.0
_MOST_BYTES: Final = 32 * 1024 * 1024
_READ: Final = frozenset(
    {miner.REQUESTS.name, miner.REQUEST_SECONDS.bucket, miner.IN_FLIGHT.name, engine.LORA_REQUESTS.name}
)
_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    """One sample, with the pod that it is of."""

    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def key(self) -> tuple[str, _Labels]:
        """What tells its series from others."""
        return self.name, tuple(sorted(self.labels.items()))


@dataclass(frozen=True)
class Readings:
    """What was counted within so many seconds, and how things stand at their end."""

    seconds: float
    counted: Sequence[Sample]
    standing: Sequence[Sample]
    unread: Mapping[str, str] = field(default_factory=dict)
    """Pods that couldn't be read, and why."""


@dataclass(frozen=True)
class TopRow:
    """One twin's line. What was not measured is None."""

    twin: str
    per_second: float
    p95_seconds: float | None
    error_share: float | None
    in_flight: int
    pods: str
    """Those that hold its version, of those that shall."""
    slots: int
    """Engines in which its adapter runs in a slot now."""


@dataclass(frozen=True)
class Top:
    """All twins, the busiest first, and how full the engines' slots are."""

    rows: Sequence[TopRow]
    slots_taken: int
    slots: int


def document(found: Top, readings: Readings) -> Json:
    """Return it for programs."""
    return {
        "seconds": readings.seconds,
        "slots": {"taken": found.slots_taken, "total": found.slots},
        "twins": [asdict(row) for row in found.rows],
        "unread": dict(readings.unread),
    }


def read_pods(
    api: Api, *, namespace: str, seconds: float, clock: Clock, parse: Callable[[str, str], list[Sample]] | None = None
) -> Readings:
    """Read the metrics of all miners and engines of a namespace twice, so many seconds apart.

    Raises:
        TwinCliError: there are no such pods, or none can be read.
    """
    parse = parse or samples_of
    pods = [pod for pod in api.items(core_path("pods", namespace), labels=_PODS) if is_pod_ready(pod)]
    if not pods:
        raise TwinCliError(
            f"No miner and no engine is ready in namespace {namespace}: `kubectl -n {namespace} get minerpools`."
        )
    begun = clock.now()
    first, unread = _pages(api, namespace, pods, parse)
    if len(unread) == len(pods):
        pod, why = next(iter(unread.items()))
        raise TwinCliError(f"No pod's metrics can be read; {pod}: {why}")
    clock.sleep(max(0.0, seconds - (clock.now() - begun)))
    second, missed = _pages(api, namespace, [pod for pod in pods if pod["metadata"]["name"] not in unread], parse)
    before = {sample.key: sample.value for sample in first}
    counted = [Sample(sample.name, sample.labels, _risen(before.get(sample.key), sample.value)) for sample in second]
    return Readings(seconds=clock.now() - begun, counted=counted, standing=second, unread={**unread, **missed})


def _risen(before: float | None, now: float) -> float:
    """Return what a counter counted; one that began anew, or only now, counted all that it says."""
    return now if before is None or now < before else now - before


def _pages(
    api: Api, namespace: str, pods: Sequence[Json], parse: Callable[[str, str], list[Sample]]
) -> tuple[list[Sample], dict[str, str]]:
    found: list[Sample] = []
    unread: dict[str, str] = {}
    for each in pods:
        pod = str(each["metadata"]["name"])
        try:
            forward = api.forward(namespace=namespace, pod=pod, port=names.METRICS_PORT)
            try:
                page = fetch(forward, "/metrics", token="", far_end=f"pod {pod}", timeout_seconds=_TIMEOUT_SECONDS)
            finally:
                forward.close()
            found += parse(page.decode(errors="replace"), pod)
        except (TwinCliError, ValueError) as error:
            unread[pod] = str(error)
    return found, unread


def samples_of(page: str, pod: str) -> list[Sample]:
    """Return what of a page is read here; raises ValueError for one that is none."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - no other command needs it

    wanted = "\n".join(line for line in page.splitlines() if line.partition("{")[0].partition(" ")[0] in _READ)
    return [
        Sample(sample.name, {**sample.labels, "pod": pod}, sample.value)
        for family in text_string_to_metric_families(wanted + "\n")
        for sample in family.samples
    ]


def queries(namespace: str, *, seconds: int = WINDOW_SECONDS) -> dict[str, str]:
    """Return the PromQL of each part, by the name of its series."""
    here = f'{{namespace="{namespace}"}}'
    requests, bucket = miner.REQUESTS.name, miner.REQUEST_SECONDS.bucket
    return {
        requests: f"sum by (twin, code) (increase({requests}{here}[{seconds}s]))",
        bucket: f"sum by (twin, le) (increase({bucket}{here}[{seconds}s]))",
        miner.IN_FLIGHT.name: f"sum by (twin) ({miner.IN_FLIGHT.name}{here})",
        engine.LORA_REQUESTS.name: f"{engine.LORA_REQUESTS.name}{here}",
    }


def read_prometheus(url: str, *, namespace: str, ask: Callable[[str, str], Any] | None = None) -> Readings:
    """Read the same of the last five minutes from Prometheus; raises TwinCliError."""
    asked, ask = queries(namespace), ask or _ask
    found = []
    for name, promql in asked.items():
        try:
            result = ask(url, promql)["data"]["result"]
            found += [Sample(name, dict(each["metric"]), float(each["value"][1])) for each in result]
        except (KeyError, TypeError, ValueError, IndexError):
            raise TwinCliError(f"{_shown(url)} doesn't answer as a Prometheus does: check the address.") from None
    return Readings(seconds=WINDOW_SECONDS, counted=found, standing=found)


def _ask(url: str, promql: str) -> Any:
    if not url.startswith(("http://", "https://")):
        raise TwinCliError(f"{_shown(url)} is no address of a Prometheus: it begins with http:// or https://.")
    body = urllib.parse.urlencode({"query": promql}).encode()
    try:
        with urllib.request.urlopen(  # noqa: S310 - the scheme was looked at above
            f"{url.rstrip('/')}/api/v1/query", body, timeout=_TIMEOUT_SECONDS
        ) as response:
            return json.loads(response.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        raise TwinCliError(f"{_shown(url)} refuses the query: HTTP {error.code}.") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TwinCliError(f"{_shown(url)} doesn't answer: {reason}.") from None


def _shown(url: str) -> str:
    """Return an address without what may be a password."""
    return f"Prometheus at {url.rpartition('@')[2].removeprefix('http://').removeprefix('https://')[:100]}"


def top(readings: Readings, twins: Iterable[Json]) -> Top:
    """Reckon each twin's line; a twin that nobody asked has one, too."""
    codes: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    buckets: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    in_flight: defaultdict[str, float] = defaultdict(float)
    for sample in readings.counted:
        twin = sample.labels.get("twin", "")
        if not twin or not 0 <= sample.value < math.inf:
            continue
        if sample.name == miner.REQUESTS.name:
            codes[twin][sample.labels.get("code", "")] += sample.value
        elif sample.name == miner.REQUEST_SECONDS.bucket:
            buckets[twin][float(sample.labels.get("le", "nan"))] += sample.value
    for sample in readings.standing:
        if sample.name == miner.IN_FLIGHT.name and 0 <= sample.value < math.inf:
            in_flight[sample.labels.get("twin", "")] += sample.value
    running, slots = _slots(readings.standing)
    known = {str(twin["metadata"]["name"]): twin for twin in twins}
    rows = []
    for twin in sorted(known.keys() | codes.keys()):
        number = sum(codes[twin].values())
        failed = sum(count for code, count in codes[twin].items() if code.startswith("5") or code == "broken")
        rows.append(
            TopRow(
                twin="(others)" if twin == OTHER else twin,
                per_second=number / readings.seconds if readings.seconds else 0.0,
                p95_seconds=_quantile(buckets[twin], 0.95),
                error_share=failed / number if number else None,
                in_flight=round(in_flight[twin]),
                pods=_pods(known.get(twin)),
                slots=sum(served.rpartition("-")[0] == twin for served in running),
            )
        )
    return Top(sorted(rows, key=lambda row: (-row.per_second, row.twin)), len(running), slots)


def _slots(standing: Sequence[Sample]) -> tuple[list[str], int]:
    """Return the adapters in slots, once for each engine, and how many slots there are."""
    newest: dict[str, Sample] = {}
    for sample in standing:
        if sample.name != engine.LORA_REQUESTS.name:
            continue
        pod = sample.labels.get("pod", "")
        if pod not in newest or sample.value > newest[pod].value:
            newest[pod] = sample
    running = [
        served
        for sample in newest.values()
        for served in sample.labels.get("running_lora_adapters", "").split(",")
        if served.strip()
    ]
    most = (sample.labels.get("max_lora", "") for sample in newest.values())
    return running, sum(int(each) for each in most if each.isdecimal())


def _pods(twin: Json | None) -> str:
    pods = ((twin or {}).get("status") or {}).get("pods") or {}
    return f"{pods.get('verified', 0)}/{pods['desired']}" if pods.get("desired") is not None else "-"


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Return about which time that share took at most; None where nothing was counted."""
    total = buckets.get(math.inf, 0.0)
    if total <= 0:
        return None
    lower, below = 0.0, 0.0
    for upper in sorted(each for each in buckets if not math.isnan(each)):
        if buckets[upper] >= share * total:
            if math.isinf(upper):
                return lower
            inside = buckets[upper] - below
            return lower + (upper - lower) * ((share * total - below) / inside if inside > 0 else 1.0)
        lower, below = upper, buckets[upper]
    return lower


def twins_of(api: Api, namespace: str) -> list[Json]:
    """Return the namespace's twins; raises as `Api.items`."""
    return api.items(twins_path(namespace))
