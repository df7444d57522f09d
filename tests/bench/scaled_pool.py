"""A pool that the operator scales: pods come and go as its Deployment asks, each an agent process and a stand-in.

Operator, miner, agents, API server and Prometheus are real. What is played is the kubelet: it starts a pod's processes
when the Deployment wants one more, and ends the last one when it wants one less.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bettertherapy_api import names
from localcluster import tools
from tests.api import operator_harness
from tests.api.operator_harness import BASE, Operator, pool_manifest, until
from tests.bench import processes
from tests.standin import FakeAdapter
from twin_operator.engine.resources import DEPLOYMENT, POD, Manifest
from twin_operator.kinds.resources import POD_REPORT

POOL: Final = "p"
TOKEN: Final = "bench-token-0123456789"
MOST_PODS: Final = 4
SCRAPE_SECONDS: Final = 1
TOKEN_SECONDS: Final = 0.02
_UP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Resized:
    """The Deployment of the engines was given another size."""

    at: float
    replicas: int


@dataclass
class ScaledPool:
    """What runs, and what was seen of it. Times are time.monotonic()'s."""

    world: operator_harness.Cluster
    operator: Operator
    url: str
    """Of the miner."""
    prometheus: Prometheus
    sizes: list[Resized] = field(default_factory=list)
    ready_at: list[float] = field(default_factory=list)
    """When each engine pod that came was ready."""

    @property
    def replicas(self) -> int:
        """Engine pods that the Deployment asks for."""
        return self.sizes[-1].replicas if self.sizes else -1

    async def until_size(self, replicas: int, *, seconds: float = 60.0) -> float:
        """Wait until the Deployment asks for the size and no pod more is there; returns when it was asked for."""

        async def reached() -> bool:
            return self.replicas == replicas and len(self.ready_at) <= replicas

        await until(reached, seconds=seconds, what=f"the Deployment asks for {replicas} engine pods")
        return self.sizes[-1].at

    async def condition(self, kind: str) -> tuple[str, str]:
        """Return status and reason of one of the pool's conditions."""
        return operator_harness.condition(await self.world.pool(POOL), kind)

    async def history(self) -> list[dict[str, Any]]:
        """Return the pool's last decisions, newest first."""
        status = (await self.world.pool(POOL)).get("status") or {}
        return list(status.get("scalingHistory") or [])

    async def ask(self, http: aiohttp.ClientSession, twin: str, *, tokens: int = 10) -> tuple[int, float]:
        """Ask one question; returns its status, and when the answer was there."""
        body = {"model": twin, "max_tokens": tokens, "messages": [{"role": "user", "content": "I have a headache."}]}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
            return answer.status, time.monotonic()


class Prometheus:
    """A real one that scrapes the miner and all pods that may come; it can be ended and begun again."""

    def __init__(self, folder: Path, namespace: str, miner_port: int) -> None:
        self._log = folder / "prometheus.log"
        self._port = processes.free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        targets = [_target(f"127.0.0.1:{miner_port}", namespace, "miner-0")] + [
            _target(f"{_address(number)}:{names.METRICS_PORT}", namespace, f"engine-{number}")
            for number in range(MOST_PODS)
        ]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
            "scrape_configs": [{"job_name": "pods", "static_configs": targets}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        program = tools.build(tools.tool_of("prometheus")) / "prometheus"
        self._command = [
            str(program), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]  # fmt: skip

    async def start(self) -> None:
        """Begin; it goes on with what it has on its disk."""
        self._begin()
        await until(lambda: answers(f"{self.url}/-/ready"), seconds=_UP_SECONDS, what="Prometheus is ready")

    def _begin(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextlib.asynccontextmanager
async def scaled_pool(kubeconfig: Path, namespace: str, folder: Path, **pool: Any) -> AsyncIterator[ScaledPool]:
    """Run all of it; `pool` are fields of the pool's spec. Adapters lie in `folder`/pvc/adapters/store."""
    port, metrics_port = processes.free_port(), processes.free_port()
    prometheus = Prometheus(folder, namespace, metrics_port)
    await prometheus.start()
    try:
        async with (
            operator_harness.cluster(kubeconfig, namespace) as world,
            operator_harness.operator(
                kubeconfig, namespace, folder, TWIN_PROMETHEUS_URL=prometheus.url
            ) as operator,
        ):  # fmt: skip
            await world.apply(pool_manifest(namespace, POOL, **pool))
            await until(lambda: _furnished(world), seconds=_UP_SECONDS, what="the pool's first slice is there")
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await world.start_pod("miner-0", pool=POOL, component="miner", status=status)
            miner = _miner(folder, kubeconfig, world, port=port, metrics_port=metrics_port)
            with processes.running(miner[0], folder / "miner.log", environment=miner[1]):
                url = f"http://127.0.0.1:{port}"
                await until(lambda: answers(f"{url}/healthz"), seconds=_UP_SECONDS, what="the miner answers")
                made = ScaledPool(world=world, operator=operator, url=url, prometheus=prometheus)
                kubelet = asyncio.create_task(_play_kubelet(made, kubeconfig, folder), name="kubelet")
                try:
                    yield made
                    if kubelet.done():
                        kubelet.result()
                finally:
                    kubelet.cancel()
                    await asyncio.gather(kubelet, return_exceptions=True)
    finally:
        prometheus.kill()


def twin_manifest(namespace: str, adapter: FakeAdapter, name: str) -> Manifest:
    """Return a twin with this adapter."""
    uri = f"pvc://adapters/store/{name}/{names.digest_hex(adapter.digest)}"
    return operator_harness.twin_manifest(
        namespace, name, tier=POOL, adapter={"uri": uri, "digest": adapter.digest, "rank": adapter.rank}
    )


async def answers(url: str) -> bool:
    """Tell whether something answers there with 200."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _furnished(world: operator_harness.Cluster) -> bool:
    published = await world.routing(POOL)
    return any(each["metadata"]["name"] == names.routing_slice_name(POOL, 0) for each in published["slices"])


async def _play_kubelet(pool: ScaledPool, kubeconfig: Path, folder: Path) -> None:
    """Bring as many pods as the Deployment asks for, for ever."""
    pods: list[contextlib.ExitStack] = []
    started: list[float] = []
    try:
        while True:
            found = await pool.world.api.get(DEPLOYMENT, namespace=pool.world.namespace, name=names.engine_name(POOL))
            wanted = int(found["spec"]["replicas"]) if found is not None else 0
            if wanted != pool.replicas:
                pool.sizes.append(Resized(time.monotonic(), wanted))
            while len(pods) > wanted:
                pods.pop().close()
                await _delete_pod(pool.world, f"engine-{len(pods)}")
            while len(pods) < min(wanted, MOST_PODS):
                pods.append(await _start_pod(pool.world, kubeconfig, folder, len(pods)))
                started.append(time.monotonic())
            await _say_ready(pool, len(pods))
            await asyncio.sleep(0.05)
    finally:
        for pod in pods:
            pod.close()


async def _start_pod(
    world: operator_harness.Cluster, kubeconfig: Path, folder: Path, number: int
) -> contextlib.ExitStack:
    """Start what an engine pod consists of: the engine, and the agent beside it."""
    pod, ip = f"engine-{number}", _address(number)
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
    await world.start_pod(pod, pool=POOL, status=status)
    home = folder / f"{pod}-{world.uids[pod][:8]}"
    home.mkdir()
    socket = home / "vllm.sock"
    engine = [
        sys.executable, "-m", "tests.standin", "--uds", str(socket), "--served-model-name", BASE,
        "--token-seconds", str(TOKEN_SECONDS), "--shutdown-timeout", "5", "--max-loras", "1",
    ]  # fmt: skip
    agent = {
        "KUBECONFIG": str(kubeconfig), "POOL": POOL, "POD_NAMESPACE": world.namespace, "POD_NAME": pod,
        "POD_UID": world.uids[pod], "AGENT_HOST": ip, "AGENT_PORT": str(names.AGENT_PORT),
        "ENGINE_SOCKET": str(socket), "ENGINE_RUN_DIR": str(home / "run"), "ADAPTERS_DIR": str(home / "adapters"),
        "PVC_DIR": str(folder / "pvc"), "POOL_TOKENS_DIR": str(_pool_tokens(folder)),
    }  # fmt: skip
    stack = contextlib.ExitStack()
    stack.enter_context(processes.running(engine, home / "engine.log"))
    stack.enter_context(
        processes.running([sys.executable, "-m", "neurons.agent"], home / "agent.log", environment=agent)
    )
    return stack


async def _delete_pod(world: operator_harness.Cluster, pod: str) -> None:
    uid = world.uids.pop(pod)
    path = POD.path(namespace=world.namespace, name=pod)
    body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
    await world.api._request("DELETE", path, body=body)


async def _say_ready(pool: ScaledPool, pods: int) -> None:
    """Note when a pod's agent first says that it is ready."""
    if len(pool.ready_at) >= pods:
        del pool.ready_at[pods:]
        return
    number = len(pool.ready_at)
    report = await pool.world.api.get(POD_REPORT, namespace=pool.world.namespace, name=f"engine-{number}")
    if report is not None and report.get("ready") and report["pod"]["uid"] == pool.world.uids[f"engine-{number}"]:
        pool.ready_at.append(time.monotonic())


def _miner(
    folder: Path, kubeconfig: Path, world: operator_harness.Cluster, *, port: int, metrics_port: int
) -> tuple[list[str], Mapping[str, str]]:
    access = folder / "access"
    access.mkdir()
    (access / "bench").write_text(TOKEN)
    tokens = _pool_tokens(folder)
    tokens.mkdir()
    (tokens / "0").write_text("miner-of-this-pool")
    command = [
        sys.executable, "-m", "neurons.miner", "--pool", POOL, "--namespace", world.namespace, "--host", "127.0.0.1",
        "--port", str(port), "--metrics-port", str(metrics_port), "--access-dir", str(access), "--drain-delay", "0",
        "--tokens-dir", str(tokens), "--wakes", "--hold-seconds", "120",
    ]  # fmt: skip
    return command, {"KUBECONFIG": str(kubeconfig), "POD_NAME": "miner-0", "POD_UID": world.uids["miner-0"]}


def _pool_tokens(folder: Path) -> Path:
    """Where the kubelet would mount what the pool's miners are known by."""
    return folder / "tokens"


def _target(address: str, namespace: str, pod: str) -> dict[str, Any]:
    return {"targets": [address], "labels": {"namespace": namespace, "pod": pod}}


def _address(number: int) -> str:
    """One each: the operator tells the miner that agents listen on one port."""
    return f"127.0.0.{number + 2}"


@contextlib.contextmanager
def load(pool: ScaledPool, twins: list[str], *, tokens: int) -> Iterator[list[int]]:
    """Have one client per twin ask again and again; yields the statuses of their answers."""
    statuses: list[int] = []

    async def client(twin: str) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=150)) as http:
            while True:
                statuses.append((await pool.ask(http, twin, tokens=tokens))[0])

    clients = [asyncio.create_task(client(twin)) for twin in twins]
    try:
        yield statuses
    finally:
        for each in clients:
            each.cancel()
