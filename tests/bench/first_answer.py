"""From a twin's new spec to the first answer by its new weights, with every check on: stand-in engines, real all else.

`python -m tests.bench.first_answer`, or `first_answer` as one of `python -m tests.bench`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

import aiohttp

from bettertherapy_api import names
from localcluster import Cluster
from neurons.cluster import ClusterClient, KubeconfigAccess
from tests.api.operator_harness import BASE
from tests.bench import versions
from tests.bench.bench_cluster import bench_cluster
from tests.bench.clients import QUESTION
from tests.bench.data_plane import PODS, TOKEN, TOKEN_SECONDS, data_plane
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.bench.swaps_under_load import TWIN, twin_manifest
from tests.bench.watching import apply_twin
from tests.standin import write_adapter

CHANGES: Final = 50
TARGET_SECONDS: Final = 0.14
_LONGEST: Final = 60.0


def measure(options: Options) -> Result:
    """Measure it on a cluster of its own, which is gone afterwards."""
    with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        software = versions.of_cluster(cluster) | versions.of_python()
        try:
            seconds = asyncio.run(_changes(cluster, Path(folder)))
        except (AssertionError, TimeoutError) as error:
            raise BenchmarkError(str(error)) from error
    spread = Spread.of(seconds)
    return Result(
        name="first_answer",
        title="From a twin's new spec to the first answer by its new weights",
        how=(
            f"{PODS} pods, each a real agent process beside a stand-in for vLLM ({TOKEN_SECONDS * 1000:.0f} ms a "
            "token); one real miner, one real operator, a real API server, all on the same cores. One client asks for "
            f"one token again and again. {len(seconds)} times a new spec.adapter was sent; timed from sending it until "
            "the client had an answer in full whose headers name the new digest. Fetched from a folder, checked by "
            "digest, loaded, confirmed and measured against the base on every pod before that."
        ),
        figures=(
            Figure(
                subject="twin", figure="new spec to first answer by the new weights", unit="s", digits=3, spread=spread,
                p99=percentile(seconds, 99), target=f"median ≤ {TARGET_SECONDS} s", met=spread.median <= TARGET_SECONDS,
            ),
        ),
        notes=(),
        versions=software,
    )  # fmt: skip


async def _changes(cluster: Cluster, folder: Path) -> list[float]:
    store = folder / "pvc" / "adapters" / "store"
    adapters = [write_adapter(store, TWIN, content=f"run {number}", base=BASE) for number in range(CHANGES + 1)]
    seconds = []
    async with (
        data_plane(cluster, folder) as plane,
        ClusterClient(KubeconfigAccess(cluster.kubeconfig_path)) as api,
        aiohttp.ClientSession() as http,
    ):
        for adapter in adapters:
            began = time.monotonic()
            await apply_twin(api, twin_manifest(adapter))
            await _until_answered(http, plane.url, adapter.digest)
            seconds.append(time.monotonic() - began)
    return seconds[1:]  # the first one made the twin


async def _until_answered(http: aiohttp.ClientSession, url: str, digest: str) -> None:
    body = {"model": TWIN, "max_tokens": 1, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    async with asyncio.timeout(_LONGEST):
        while True:
            headers = {"Authorization": f"Bearer {TOKEN}", "x-session-id": uuid.uuid4().hex}
            async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
                await response.read()
                if response.status == 200 and response.headers.get(names.ADAPTER_DIGEST_HEADER) == digest:
                    return
                if response.status != 200:
                    await asyncio.sleep(0.005)  # nothing answers yet: the twin was only just made


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["first_answer", *sys.argv[1:]]))
