"""`python -m neurons.agent` as kubelet runs it, on a real API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState, PodReport
from bettertherapy_api.routing import BaseModelRef, PoolHeader, RoutingSlice
from neurons.cluster import paths
from tests.conftest import Kubectl
from tests.standin import BASE, FakeAdapter, StandIn, write_adapter

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


def routing(*adapters: FakeAdapter) -> dict[str, Any]:
    header = PoolHeader(
        name="pool", uid="pool-uid", generation=1, base_model=BaseModelRef(name=BASE), max_loras=4, max_lora_rank=16
    )
    twins = {f"uid-{adapter.twin}": adapter.entry() for adapter in adapters}
    metadata = {"name": names.routing_slice_name("pool", 0), "labels": paths.routing_labels("pool")}
    return {"metadata": metadata, **RoutingSlice(pool=header, twins=twins).to_dict()}


def write_routing(kubectl: Kubectl, namespace: str, *adapters: FakeAdapter) -> None:
    document = {"apiVersion": names.API_VERSION, "kind": "RoutingSlice", **routing(*adapters)}
    kubectl("-n", namespace, "apply", "--server-side", "-f", "-", stdin=json.dumps(document))


def report(kubectl: Kubectl, namespace: str) -> dict[str, Any] | None:
    found = kubectl("-n", namespace, "get", "podreport", "pod-1", "-o", "json", "--ignore-not-found")
    return json.loads(found.stdout) if found.stdout.strip() else None


@asynccontextmanager
async def agent_process(
    folder: Path, engine: StandIn, port: int, namespace: str, kubeconfig: str, *, uid: str = "uid-1"
) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ, "KUBECONFIG": kubeconfig, "POOL": "pool", "POD_NAMESPACE": namespace, "POD_NAME": "pod-1",
        "POD_UID": uid, "AGENT_PORT": str(port), "AGENT_METRICS_PORT": "0", "ENGINE_SOCKET": str(engine.socket),
        "ENGINE_RUN_DIR": str(folder / "run"), "ADAPTERS_DIR": str(folder / "adapters"),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "neurons.agent", env=env, cwd=ROOT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(port: int) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def test_it_serves_reports_and_leaves(
    kubeconfig: Path, kubectl: Kubectl, namespace: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    adapter = write_adapter(tmp_path / "store", "dr-gurung")
    # The garbage collector takes a report whose owner there isn't: the pod, a name only, must exist.
    pod = kubectl("-n", namespace, "run", "pod-1", "--image=none", "-o", "jsonpath={.metadata.uid}").stdout
    await asyncio.to_thread(write_routing, kubectl, namespace, adapter)
    async with (
        StandIn(socket=tmp_path / "vllm.sock") as engine,
        agent_process(tmp_path, engine, unused_tcp_port, namespace, str(kubeconfig), uid=pod) as process,
    ):
        await ready(unused_tcp_port)
        async with asyncio.timeout(10):
            while (said := await asyncio.to_thread(report, kubectl, namespace)) is None or not said["ready"]:
                await asyncio.sleep(0.2)
        assert PodReport.model_validate(said).adapters[adapter.name].state is AdapterState.VERIFIED
        assert said["metadata"]["labels"] == paths.report_labels("pool")
        assert said["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "pod-1", "uid": pod}]
        # What somebody deletes comes back with the next change.
        await asyncio.to_thread(kubectl, "-n", namespace, "delete", "podreport", "pod-1")
        second = write_adapter(tmp_path / "store", "dr-second")
        await asyncio.to_thread(write_routing, kubectl, namespace, adapter, second)
        async with asyncio.timeout(10):
            while second.name not in ((await asyncio.to_thread(report, kubectl, namespace)) or {}).get("adapters", {}):
                await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        assert await asyncio.to_thread(report, kubectl, namespace) is None


async def test_it_serves_from_its_saved_table_when_there_is_no_api_server(tmp_path: Path, unused_tcp_port: int) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    dead = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    kubeconfig.write_text(json.dumps(dead))
    adapter = write_adapter(tmp_path / "store", "dr-gurung")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / ".routing.json").write_text(json.dumps(routing(adapter)))
    async with (
        StandIn(socket=tmp_path / "vllm.sock") as engine,
        agent_process(tmp_path, engine, unused_tcp_port, "clinic", str(kubeconfig)) as process,
    ):
        await ready(unused_tcp_port)
        body = {"model": adapter.name, "messages": [{"role": "user", "content": "hello"}]}
        url = f"http://127.0.0.1:{unused_tcp_port}/v1/chat/completions"
        async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
            assert response.status == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
