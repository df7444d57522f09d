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

import aiohttp
import pytest

from bettertherapy_api import names
from bettertherapy_api.configmaps import BaseModelRef, PodReport, RoutingTable
from bettertherapy_api.report import AdapterState
from tests.conftest import Kubectl
from tests.standin import BASE, FakeAdapter, StandIn, write_adapter

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


def write_table(kubectl: Kubectl, namespace: str, *adapters: FakeAdapter) -> None:
    table = RoutingTable(
        pool="pool",
        generation=1,
        base_model=BaseModelRef(name=BASE),
        max_loras=4,
        max_lora_rank=16,
        adapters=tuple(adapter.entry() for adapter in adapters),
    )
    meta = {"name": names.routing_name("pool"), "namespace": namespace}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {names.ROUTING_KEY: table.to_json()}}
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(document))


def report(kubectl: Kubectl, namespace: str) -> PodReport | None:
    found = kubectl("-n", namespace, "get", "configmap", names.report_name("pool"), "-o", "json")
    data = json.loads(found.stdout).get("data") or {}
    return PodReport.model_validate_json(data["pod-1"]) if "pod-1" in data else None


@asynccontextmanager
async def agent_process(
    folder: Path, engine: StandIn, port: int, namespace: str, kubeconfig: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ, "KUBECONFIG": kubeconfig, "POOL": "pool", "POD_NAMESPACE": namespace, "POD_NAME": "pod-1",
        "POD_UID": "uid-1", "POD_IP": "127.0.0.1", "AGENT_PORT": str(port), "ENGINE_SOCKET": str(engine.socket),
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
    kubectl("-n", namespace, "create", "configmap", names.report_name("pool"))
    await asyncio.to_thread(write_table, kubectl, namespace, adapter)
    async with (
        StandIn(socket=tmp_path / "vllm.sock") as engine,
        agent_process(tmp_path, engine, unused_tcp_port, namespace, str(kubeconfig)) as process,
    ):
        await ready(unused_tcp_port)
        async with asyncio.timeout(10):
            while (said := await asyncio.to_thread(report, kubectl, namespace)) is None or not said.ready:
                await asyncio.sleep(0.2)
        assert said.adapters[adapter.name].state is AdapterState.VERIFIED
        assert said.address == f"127.0.0.1:{unused_tcp_port}"
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
    table = RoutingTable(
        pool="pool", generation=1, base_model=BaseModelRef(name=BASE), max_loras=4, max_lora_rank=16,
        adapters=(adapter.entry(),),
    )  # fmt: skip
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / ".routing.json").write_text(table.to_json())
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
