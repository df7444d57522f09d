"""Objects of a cluster as they change, each state with the moment it was heard: what latencies are measured with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState, PodReport
from neurons.cluster import ClusterClient, ClusterError

Manifest = dict[str, Any]
TWINS: Final = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{{}}/doctortwins"
RUNS: Final = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{{}}/finetuneruns"
JOBS: Final = "/apis/batch/v1/namespaces/{}/jobs"
SLICES: Final = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{{}}/routingslices"
REPORTS: Final = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{{}}/podreports"
PODS: Final = "/api/v1/namespaces/{}/pods"
FIELD_MANAGER: Final = "bench"
CONFIG_MAPS: Final = "/api/v1/namespaces/{}/configmaps"
_WATCH_SECONDS: Final = 3000
_QUIET_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Seen:
    """One state of an object. `at` is time.monotonic() when its event had been read; nothing is polled."""

    at: float
    thing: Manifest
    gone: bool = False


class Watch:
    """Follows objects while `watching` lasts, and keeps what was not yet looked at."""

    def __init__(self) -> None:
        self._states: asyncio.Queue[Seen] = asyncio.Queue()
        self.last: Seen | None = None

    async def until(self, condition: Callable[[Manifest], bool], *, seconds: float, what: str) -> Seen:
        """Return the first state, of those not looked at before, that meets the condition; raises TimeoutError."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.last = await self._states.get()
                    if condition(self.last.thing):
                        return self.last
        except TimeoutError:
            status = (self.last.thing.get("status") or self.last.thing.get("data")) if self.last else None
            raise TimeoutError(f"{what}: not within {seconds:.0f} s; last seen: {json.dumps(status)}") from None

    def take(self, seen: Seen) -> None:
        """Keep a state until it is looked at."""
        self._states.put_nowait(seen)


async def follow(client: ClusterClient, path: str, take: Callable[[Seen], None], **params: str) -> None:
    """Hand on every state of a collection's objects, for ever; a watch that ends begins again with the state of then.

    An object that was deleted comes once more, with `gone`.
    """
    query = {"watch": "true", "timeoutSeconds": str(_WATCH_SECONDS), **params}
    while True:
        with contextlib.suppress(aiohttp.ClientError, ClusterError, TimeoutError, OSError):
            async with client.stream(path, query, silence_seconds=_QUIET_SECONDS) as response:
                buffer = b""
                async for chunk in response.content.iter_any():
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    at = time.monotonic()
                    for event in (json.loads(line) for line in lines if line.strip()):
                        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                            take(Seen(at, event["object"], gone=event["type"] == "DELETED"))
        await asyncio.sleep(_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def following(
    client: ClusterClient, path: str, take: Callable[[Seen], None], **params: str
) -> AsyncIterator[None]:
    """Follow the collection `path` while the block lasts."""
    task = asyncio.create_task(follow(client, path, take, **params))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def watching(client: ClusterClient, path: str, name: str | None = None) -> AsyncIterator[Watch]:
    """Follow the object `name` of the collection `path`, or all of them, while the block lasts."""
    watch = Watch()
    selector = {"fieldSelector": f"metadata.name={name}"} if name is not None else {}
    async with following(client, path, lambda seen: None if seen.gone else watch.take(seen), **selector):
        yield watch


def serves(twin: Manifest, digest: str, *, generation: int) -> bool:
    """Tell whether the status says, of this very spec: this version answers, verified on all pods."""
    status = twin.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    pods = status.get("pods") or {}
    return (
        (status.get("activeVersion") or {}).get("digest") == digest
        and status.get("observedGeneration", 0) >= generation
        and pods.get("desired", 0) > 0
        and pods.get("verified") == pods.get("desired")
        and all(
            (found := conditions.get(kind, {})).get("status") == "True"
            and found.get("observedGeneration", 0) >= generation
            for kind in ("AdaptersVerified", "Ready")
        )
    )


def is_routed(routing_slice: Manifest, served_name: str) -> bool:
    """Tell whether a RoutingSlice wants an adapter of this name."""
    twins = (routing_slice.get("twins") or {}).values()
    return any(adapter["servedName"] == served_name for twin in twins for adapter in twin.get("adapters", []))


class Reports:
    """What the agents say, as far as it was heard."""

    def __init__(self) -> None:
        self._by_pod: dict[str, PodReport] = {}

    def hear(self, thing: Manifest) -> list[PodReport]:
        """Take one PodReport; return all."""
        self._by_pod[thing["metadata"]["name"]] = PodReport.model_validate(thing)
        return list(self._by_pod.values())


def is_verified_everywhere(reports: Iterable[PodReport], served_name: str) -> bool:
    """Tell whether every pod reports the adapter as verified."""
    found = [report.adapters.get(served_name) for report in reports]
    return bool(found) and all(each is not None and each.state is AdapterState.VERIFIED for each in found)


async def apply_twin(client: ClusterClient, twin: Manifest) -> None:
    """Create the twin, or change its spec, as `kubectl apply --server-side` does."""
    metadata = twin["metadata"]
    path = f"{TWINS.format(metadata['namespace'])}/{metadata['name']}"
    await client.apply(path, body=json.dumps(twin), field_manager=FIELD_MANAGER)
