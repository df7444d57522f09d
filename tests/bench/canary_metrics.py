"""What the operator asks of Prometheus about a canary: of a real one, where its program is there, else of a stand-in.

Both get their figures from the miner's own /metrics, once a second. The stand-in computes what each of the operator's
queries asks, of the counters as they are: no rates, no history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from localcluster import tools
from tests.api.operator_harness import until
from tests.bench import processes
from twin_operator.domain.canary_analysis import RATINGS

SCRAPE_SECONDS: Final = 1
MINER_POD: Final = "miner"
"""As which pod the miner's metrics are read: the operator counts those of its pool's pods."""
_READY_SECONDS: Final = 30.0
_REQUESTS: Final = "bettertherapy_miner_requests_total"
_BUCKET: Final = "bettertherapy_miner_request_seconds_bucket"
_READY: Final = "bettertherapy_miner_pods_ready"


@dataclass
class CanaryMetrics:
    """Where the operator asks, and whom."""

    url: str
    text: str
    """Which one it is, for the page."""
    miner: str = ""
    """Where the miner has its metrics, as an URL without a path."""
    unanswered: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def canary_metrics(miner: str, namespace: str, folder: Path) -> AsyncIterator[CanaryMetrics]:
    """Have one while the block lasts; `miner` is the URL of the port for metrics of a miner, which may start
    later."""
    program = _program()
    async with _real(program, miner, namespace, folder) if program is not None else _standin(miner) as found:
        yield found


def _program() -> str | None:
    """Return the program of the local cluster where it has one, built when need be, else the machine's own."""
    if "prometheus" in tools.BINARIES:
        return str(tools.build(tools.tool_of("prometheus")) / "prometheus")
    return shutil.which("prometheus")


@contextlib.asynccontextmanager
async def _real(program: str, miner: str, namespace: str, folder: Path) -> AsyncIterator[CanaryMetrics]:
    port = processes.free_port()
    target = {"targets": [miner.removeprefix("http://")], "labels": {"namespace": namespace, "pod": MINER_POD}}
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [{"job_name": "miner", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with processes.running(command, folder / "prometheus.log"):
        await until(lambda: _answers(f"{url}/-/ready"), seconds=_READY_SECONDS, what="Prometheus is ready")
        text = f"a real Prometheus, which scraped the miner every {SCRAPE_SECONDS} s"
        yield CanaryMetrics(url=url, text=text, miner=miner)


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@contextlib.asynccontextmanager
async def _standin(miner: str) -> AsyncIterator[CanaryMetrics]:
    text = "a stand-in for Prometheus, which read the miner's own /metrics every 1 s"
    metrics = CanaryMetrics(url="", text=text, miner=miner)
    exposition, read_at, one_reads = "", -math.inf, asyncio.Lock()
    async with aiohttp.ClientSession() as http:

        async def query(request: web.Request) -> web.Response:
            nonlocal exposition, read_at
            promql = str((await request.post())["query"])
            async with one_reads:
                if time.monotonic() - read_at >= SCRAPE_SECONDS:
                    try:
                        async with http.get(f"{metrics.miner}/metrics") as response:
                            exposition, read_at = await response.text(), time.monotonic()
                    except aiohttp.ClientError as error:
                        metrics.unanswered.append(str(error))
                        return web.Response(status=503)
            result = [
                {"metric": labels, "value": [time.time(), str(value)]} for labels, value in answer(promql, exposition)
            ]
            return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

        app = web.Application()
        app.router.add_post("/api/v1/query", query)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            metrics.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield metrics
        finally:
            await runner.cleanup()


def answer(promql: str, exposition: str) -> list[tuple[dict[str, str], float]]:
    """Return what one of the operator's queries says of what a miner exposes; raises ValueError for another query."""
    lines = exposition.splitlines(keepends=True)
    if _READY in promql:
        ready = sum(line.startswith(_READY) for line in lines)
        return [({"pod": MINER_POD}, float(ready))] if ready else []
    if RATINGS in promql:
        return []  # nobody rates here
    if " offset " in promql:
        return []  # it has no history
    wanted = re.search(r'version=~"([^"]+)"', promql)
    if wanted is None:
        raise ValueError(f"not one of the operator's queries: {promql}")
    # A hundred versions have series by the end: only the wanted ones' are parsed.
    versions = wanted[1].split("|")
    own = "".join(line for line in lines if any(f'version="{version}"' in line for version in versions))
    samples = [sample for family in text_string_to_metric_families(own) for sample in family.samples]
    if _REQUESTS in promql:
        codes: dict[tuple[str, str, str], float] = defaultdict(float)
        for sample in samples:
            if sample.name == _REQUESTS:
                codes[sample.labels["twin"], sample.labels["version"], sample.labels["code"]] += sample.value
        return [({"twin": of[0], "version": of[1], "code": of[2]}, value) for of, value in codes.items()]
    if _BUCKET in promql:
        bounds: dict[tuple[str, str, str], float] = defaultdict(float)
        for sample in samples:
            if sample.name == _BUCKET:
                bounds[sample.labels["twin"], sample.labels["version"], sample.labels["le"]] += sample.value
        return [({"twin": of[0], "version": of[1], "le": of[2]}, value) for of, value in bounds.items()]
    raise ValueError(f"not one of the operator's queries: {promql}")
