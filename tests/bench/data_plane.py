"""The operator, engine pods and a miner as processes on a real API server, the engines played by the stand-in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bettertherapy_api import names
from localcluster import Cluster
from tests.api import operator_harness
from tests.api.operator_harness import BASE, Operator, pool_manifest, until
from tests.bench import processes
from tests.bench.bench_cluster import NAMESPACE
from tests.bench.canary_metrics import MINER_POD
from tests.bench.clients import Check
from tests.standin import FakeAdapter, word

POOL: Final = "p"
TOKEN: Final = "bench-token-0123456789"
PODS: Final = 2
TOKEN_SECONDS: Final = 0.02
_UP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class DataPlane:
    """What runs."""

    world: operator_harness.Cluster
    operator: Operator
    url: str
    """Of the miner."""


@contextlib.asynccontextmanager
async def data_plane(
    cluster: Cluster,
    folder: Path,
    *,
    operator_environment: dict[str, str] | None = None,
    metrics_port: int = 0,
    **pool: Any,
) -> AsyncIterator[DataPlane]:
    """Run the operator, the engines with their agents, and the miner; `pool` are fields of the pool's spec."""
    kubeconfig = cluster.kubeconfig_path
    port = processes.free_port()
    async with (
        operator_harness.cluster(kubeconfig, NAMESPACE) as world,
        operator_harness.operator(kubeconfig, NAMESPACE, folder, **(operator_environment or {})) as operator,
    ):
        await world.apply(pool_manifest(NAMESPACE, POOL, **pool))
        await until(lambda: _furnished(world), seconds=_UP_SECONDS, what="the pool's first slice is there")
        with contextlib.ExitStack() as stack:
            for number in range(PODS):
                pod = f"engine-{number}"
                ip = f"127.0.0.{number + 2}"  # one each: the operator tells the miner that agents listen on one port
                status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
                await world.start_pod(pod, pool=POOL, status=status)
                _start_pod(stack, folder / pod, kubeconfig, pod=pod, uid=world.uids[pod], ip=ip, pvc=folder / "pvc")
            await world.start_pod(MINER_POD, pool=POOL, component="miner")
            url = _start_miner(stack, folder, kubeconfig, port=port, metrics_port=metrics_port)
            await until(lambda: _listens(url), seconds=_UP_SECONDS, what="the miner answers")
            yield DataPlane(world=world, operator=operator, url=url)


def weights_of(adapters: Iterable[FakeAdapter]) -> Check:
    """Return a check that an answer's words come from the weights that its headers name."""
    first_words = {adapter.name: word(adapter.seed, 0) for adapter in adapters}

    def check(served: str, text: str) -> str | None:
        said = text.split(maxsplit=1)[0]
        return None if said == first_words[served] else f"{served} answered with other weights: {said}"

    return check


async def _furnished(world: operator_harness.Cluster) -> bool:
    published = await world.routing(POOL)
    return any(each["metadata"]["name"] == names.routing_slice_name(POOL, 0) for each in published["slices"])


def _start_pod(
    stack: contextlib.ExitStack, folder: Path, kubeconfig: Path, *, pod: str, uid: str, ip: str, pvc: Path
) -> None:  # fmt: skip
    """Start what an engine pod consists of: the engine, and the agent beside it."""
    folder.mkdir()
    socket = folder / "vllm.sock"
    engine = [
        sys.executable, "-m", "tests.standin", "--uds", str(socket), "--served-model-name", BASE,
        "--token-seconds", str(TOKEN_SECONDS), "--shutdown-timeout", "5",
    ]  # fmt: skip
    agent = {
        "KUBECONFIG": str(kubeconfig), "POOL": POOL, "POD_NAMESPACE": NAMESPACE, "POD_NAME": pod, "POD_UID": uid,
        "AGENT_HOST": ip, "AGENT_PORT": str(names.AGENT_PORT), "ENGINE_SOCKET": str(socket),
        "ENGINE_RUN_DIR": str(folder / "run"), "ADAPTERS_DIR": str(folder / "adapters"), "PVC_DIR": str(pvc),
    }  # fmt: skip
    stack.enter_context(processes.running(engine, folder / "engine.log"))
    stack.enter_context(
        processes.running([sys.executable, "-m", "neurons.agent"], folder / "agent.log", environment=agent)
    )


def _start_miner(stack: contextlib.ExitStack, folder: Path, kubeconfig: Path, *, port: int, metrics_port: int) -> str:
    access = folder / "access"
    access.mkdir()
    (access / "bench").write_text(TOKEN)
    miner = [
        sys.executable, "-m", "neurons.miner", "--pool", POOL, "--namespace", NAMESPACE, "--host", "127.0.0.1",
        "--port", str(port), "--metrics-port", str(metrics_port), "--access-dir", str(access), "--drain-delay", "0",
    ]  # fmt: skip
    environment: dict[str, Any] = {"KUBECONFIG": str(kubeconfig)}
    stack.enter_context(processes.running(miner, folder / "miner.log", environment=environment))
    return f"http://127.0.0.1:{port}"


async def _listens(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/healthz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
