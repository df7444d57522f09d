"""Runs the real operator as a process against the real API server, and plays the agents' part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.kube_config import load_kube_config

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, FailureReason, PodRef, PodReport, Proof
from neurons.cluster import ClusterClient
from neurons.cluster.access import access_from_environment
from twin_operator.engine.api import Api
from twin_operator.engine.resources import POD, Manifest
from twin_operator.kinds.resources import (
    BY_KIND,
    CHILDREN,
    DOCTOR_TWIN,
    MINER_POOL,
    POD_REPORT,
    PRIMARY,
    ROUTING_SLICE,
)

BASE = "smollm2"


async def api_client(kubeconfig: Path) -> ApiClient:
    """Return a client for the cluster under test."""
    configuration = type.__call__(Configuration)
    await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    return ApiClient(configuration)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def pool_manifest(namespace: str, name: str = "p", **spec: Any) -> Manifest:
    """A pool whose Deployments start no pods of their own: the tests make the pods."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "MinerPool",
        "metadata": {"name": name, "namespace": namespace, "labels": {"tier": name}},
        "spec": {
            "baseModel": {"name": BASE, "uri": "pvc://models/smollm2"},
            "engine": {"device": "CPU", "maxLoras": 4},
            "replicas": 0,
            "miner": {"replicas": 0},
            "store": {"uri": "pvc://adapters/store"},
            **spec,
        },
    }


def twin_manifest(
    namespace: str, name: str = "dr-a", *, letter: str | None = "a", tier: str = "p", **spec: Any
) -> Manifest:
    adapter = (
        {"adapter": {"uri": f"pvc://adapters/store/{letter}", "digest": digest(letter), "rank": 8}} if letter else {}
    )
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DoctorTwin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "doctor": {"name": "Dr. A", "licence": "L"},
            "baseModel": {"name": BASE},
            "poolSelector": {"matchLabels": {"tier": tier}},
            **adapter,
            **spec,
        },
    }


@dataclass
class Cluster:
    """The API server as the tests use it."""

    api: Api
    agents: ClusterClient
    namespace: str
    uids: dict[str, str] = field(default_factory=dict)

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create or replace the spec of an object, as a user does."""
        resource = BY_KIND[manifest["kind"]]
        live = await self.api.get(resource, namespace=self.namespace, name=manifest["metadata"]["name"])
        if live is None:
            return await self.api.create(manifest)
        return await self.api.merge(
            resource, namespace=self.namespace, name=manifest["metadata"]["name"], patch={"spec": manifest["spec"]}
        )

    async def twin(self, name: str = "dr-a") -> Manifest:
        found = await self.api.get(DOCTOR_TWIN, namespace=self.namespace, name=name)
        assert found is not None
        return found

    async def pool(self, name: str = "p") -> Manifest:
        found = await self.api.get(MINER_POOL, namespace=self.namespace, name=name)
        assert found is not None
        return found

    async def routing(self, pool: str = "p") -> dict[str, Any]:
        """Return what the pool publishes: `twins` by name (each with its `uid`), `pods` by UID, `prompts`, `slices`."""
        selector = f"{names.LABEL_POOL}={pool}"
        slices, _ = await self.api.list(ROUTING_SLICE, namespace=self.namespace, selector=selector)
        found: dict[str, Any] = {"twins": {}, "pods": {}, "prompts": {}, "slices": slices}
        for each in slices:
            for uid, entry in (each.get("twins") or {}).items():
                assert entry["name"] not in found["twins"], f"two entries for {entry['name']}"
                found["twins"][entry["name"]] = {**entry, "uid": uid}
            found["pods"].update(each.get("pods") or {})
            found["prompts"].update(each.get("prompts") or {})
        return found

    async def start_pod(
        self, name: str, *, pool: str = "p", component: str = "engine", status: Manifest | None = None
    ) -> None:
        """Make a pod that no scheduler takes; with `status`, what a kubelet would say of it."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name, "namespace": self.namespace,
                "labels": {names.LABEL_POOL: pool, names.LABEL_COMPONENT: component},
            },
            "spec": {"schedulerName": "nobody", "containers": [{"name": component, "image": "example/engine:1"}]},
        }  # fmt: skip
        made = await self.api.create(pod)
        self.uids[name] = made["metadata"]["uid"]
        if status is not None:
            path = POD.path(namespace=self.namespace, name=name, subresource="status")
            await self.api._request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")

    async def report(
        self, pod: str, *adapters: AdapterReport, pool: str = "p", ready: bool = True, wedged: bool = False
    ) -> None:
        """Say what an agent says. Who may write whose report is tried elsewhere, with the agents' own tokens."""
        said = PodReport(
            pod=PodRef(name=pod, uid=self.uids[pod]), ready=ready,
            engine=EngineReport(live=not wedged, wedged=wedged, version="0.32.0"),
            adapters={names.served_name(held.twin, held.digest): held for held in adapters}, cold_start_seconds=3,
        ).model_dump(mode="json", by_alias=True, exclude_none=True)  # fmt: skip
        live = await self.api.get(POD_REPORT, namespace=self.namespace, name=pod)
        if live is None:
            metadata = {
                "name": pod, "namespace": self.namespace,
                "labels": {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "report"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": self.uids[pod]}],
            }  # fmt: skip
            await self.api.create(
                {"apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind, "metadata": metadata, **said}
            )
            return
        gone = dict.fromkeys((live.get("adapters") or {}).keys() - said["adapters"].keys())
        said["adapters"] |= gone
        await self.api.merge(POD_REPORT, namespace=self.namespace, name=pod, patch=said)

    async def children(self, pool: str = "p") -> dict[tuple[str, str], Manifest]:
        found = {}
        for resource in CHILDREN:
            things, _ = await self.api.list(resource, namespace=self.namespace, selector=f"{names.LABEL_POOL}={pool}")
            found.update({(resource.kind, thing["metadata"]["name"]): thing for thing in things})
        return found


def held(
    letter: str = "a",
    state: AdapterState = AdapterState.VERIFIED,
    twin: str = "dr-a",
    reason: FailureReason | None = None,
    message: str | None = None,
) -> AdapterReport:
    proof = Proof.FINGERPRINT if state is AdapterState.VERIFIED else None
    return AdapterReport(twin=twin, digest=digest(letter), state=state, reason=reason, message=message, proof=proof)


def condition(thing: Manifest, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition; ("", "") when there is none."""
    for found in (thing.get("status") or {}).get("conditions") or []:
        if found["type"] == kind:
            return found["status"], found["reason"]
    return "", ""


async def until(
    check: Callable[[], Awaitable[Any]], *, seconds: float = 60, what: str = "", every: float = 0.03
) -> Any:
    """Await the first true result of `check`; fails with the last one.

    How long that takes is the machine's business, which may run other suites and build images meanwhile.
    """
    last: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not (last := await check()):  # the API server is asked
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what or check}; last result {last!r}") from None
    return last


@dataclass
class Operator:
    """One running operator process."""

    process: asyncio.subprocess.Process
    log: Path
    port: int

    async def metric(self, name: str, **labels: str) -> float:
        """Sum a metric over all label sets that contain `labels`."""
        return _sum(await self._metrics(), name, **labels)

    async def writes(self) -> float:
        """Writes to the API server beside the Lease."""
        # Of one page: the Lease may be written between two.
        page, name = await self._metrics(), "bettertherapy_operator_api_writes_total"
        return _sum(page, name) - _sum(page, name, kind="Lease")

    async def _metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return await answer.text()

    async def leads(self) -> bool:
        return await self.metric("bettertherapy_operator_is_leader") == 1.0

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(20):
            return await self.process.wait()


def _sum(page: str, name: str, **labels: str) -> float:
    total = 0.0
    for line in page.splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            total += float(match[2])
    return total


@contextlib.contextmanager
def shared_operator(kubeconfig: Path, kubectl: Callable[..., Any], logs: Path) -> Iterator[str]:
    """Run one operator for the tests of a module, on a namespace of its own, which it yields."""
    namespace = f"t-{secrets.token_hex(4)}"
    kubectl("create", "namespace", namespace)
    try:
        with (logs / "operator.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "twin_operator", "--namespace", namespace, "--http-port", "0"],
                env={**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAME": "op", "POD_NAMESPACE": namespace},
                stdout=output, stderr=output,
            )  # fmt: skip
            try:
                _await_leadership(process, logs / "operator.log")
                yield namespace
            finally:
                process.terminate()
                try:
                    process.wait(15)
                finally:
                    process.kill()
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def _await_leadership(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while "leads now" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the operator did not start:\n{log.read_text()}")
        time.sleep(0.05)


async def clean(world: Cluster) -> None:
    """Delete what a test made and wait until nothing of it is left, so that the next test may use the same names."""

    async def empty() -> bool:
        left = 0
        # Reports and slices too: one that the garbage collector is about to take would be taken for the next test's.
        for resource in (*PRIMARY, *CHILDREN, POD, POD_REPORT, ROUTING_SLICE):
            selector = names.LABEL_COMPONENT if resource in (*CHILDREN, POD) else None
            things, _ = await world.api.list(resource, namespace=world.namespace, selector=selector)
            left += len(things)
            for thing in things:
                name, uid = thing["metadata"]["name"], thing["metadata"]["uid"]
                await world.api.delete(resource, namespace=world.namespace, name=name, uid=uid)
        return left == 0

    await until(empty, seconds=40, what="the test's objects are gone")


@contextlib.asynccontextmanager
async def operator(
    kubeconfig: Path, namespace: str, logs: Path, *, name: str = "op", **environ: str
) -> AsyncIterator[Operator]:
    """Run an operator for one namespace until the block ends."""
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "twin_operator", "--namespace", namespace, "--http-port", "0",
            env={**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAME": name, "POD_NAMESPACE": namespace, **environ},
            stdout=output, stderr=output,
        )  # fmt: skip
    try:

        async def port() -> int:
            if process.returncode is not None:
                raise AssertionError(f"the operator ended with {process.returncode}:\n{log.read_text()}")
            match = re.search(r"on port (\d+)", log.read_text())
            return int(match[1]) if match else 0

        yield Operator(process=process, log=log, port=await until(port, seconds=90, what="the operator starts"))
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def cluster(kubeconfig: Path, namespace: str) -> AsyncIterator[Cluster]:
    """Connect to the API server, as user and as agents."""
    api = Api(await api_client(kubeconfig), request_seconds=30, resources=BY_KIND)
    access = access_from_environment({"KUBECONFIG": str(kubeconfig)})
    async with ClusterClient(access) as agents:
        try:
            yield Cluster(api=api, agents=agents, namespace=namespace)
        finally:
            await api.close()
