"""Requests that fail while a twin's adapter is swapped again and again under load.

On the stand-in engine, where a thousand swaps take minutes, and on the demo's real engine, where they would take hours.
`python -m tests.bench.swaps_under_load`, or as one of `python -m tests.bench`. Parts to skip: standin, vllm.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from localcluster import Cluster
from neurons.cluster import ClusterClient, KubeconfigAccess
from tests.api import operator_harness
from tests.api.operator_harness import BASE
from tests.bench import versions
from tests.bench.bench_cluster import NAMESPACE, bench_cluster
from tests.bench.clients import Clients, Tally
from tests.bench.data_plane import PODS, POOL, TOKEN, TOKEN_SECONDS, data_plane, weights_of
from tests.bench.demo_pool import DemoPool, Version
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.bench.watching import TWINS, Manifest, apply_twin, serves, watching
from tests.standin import FakeAdapter, write_adapter

TWIN: Final = "bench-load"
CLIENTS: Final = 8
TOKENS: Final = (8, 100)
"""Short answers, and ones of two seconds, which outlive the swap that happens meanwhile."""
REAL_CLIENTS: Final = 4
REAL_TOKENS: Final = (8, 48)
SWAP_SECONDS: Final = 120.0
_PART: Final = {"standin": "stand-in engine", "vllm": "real vLLM"}


@dataclass
class Run:
    """Swaps, and what the clients got meanwhile."""

    subject: str
    seconds: list[float] = field(default_factory=list)
    """From each new spec to Ready."""
    tally: Tally = field(default_factory=Tally)


def measure(options: Options) -> Result:
    """Measure both; without the demo's cluster only the stand-in, which a note then says."""
    runs: list[Run] = []
    notes: list[str] = []
    software = versions.of_python()
    how = []
    if "standin" not in options.skip:
        with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
            software |= versions.of_cluster(cluster)
            runs.append(asyncio.run(_on_standin(cluster, Path(folder), options.swaps)))
        how.append(
            f"On the stand-in engine: {PODS} pods, each a real agent process beside a stand-in for vLLM that forgets "
            f"and mixes up as vLLM does and says words that name its weights ({TOKEN_SECONDS * 1000:.0f} ms a token); "
            f"one real miner, one real operator, a real API server; {CLIENTS} clients, half of them streaming, half of "
            f"each asking for {TOKENS[0]} tokens and half for {TOKENS[1]}, without a pause and without retries."
        )
    if "vllm" not in options.skip and (pool := DemoPool.connect_or_note(notes)) is not None:
        runs.append(_on_demo(pool, options.real_swaps_under_load))
        software |= pool.software()
        how.append(
            f"On the real vLLM: the demo's pool (one engine pod, SmolLM2-135M on a CPU) and {REAL_CLIENTS} such "
            f"clients asking for {REAL_TOKENS[0]} and {REAL_TOKENS[1]} tokens."
        )
    if not runs:
        raise BenchmarkError("nothing was measured: " + " ".join(notes or ["both parts are skipped"]))
    how.append(
        "A swap is a new spec.adapter; the next one follows as soon as the twin is Ready with it. Failed is what is "
        "not 200, breaks off, has no end or no text, names no version, or (on the stand-in) comes from other weights "
        "than the answer's headers say."
    )
    return Result(
        name="swaps_under_load",
        title="Requests that fail while adapters are swapped under load",
        how=" ".join(how),
        figures=tuple(figure for run in runs for figure in _figures(run)),
        notes=(*notes, *(note for run in runs for note in run.tally.notes(run.subject))),
        versions=software,
    )


def _figures(run: Run) -> Iterator[Figure]:
    tally, swaps = run.tally, f"{len(run.seconds):,} swaps"
    failed = tally.failures.total()
    for figure, value, target, met in (
        (f"failed requests in {swaps}", failed, "0", failed == 0 and tally.requests > 0),
        ("requests", tally.requests, None, None),
        ("of them streams", tally.streams, None, None),
        ("versions that answered", len(tally.by_version), None, None),
    ):
        yield Figure(
            subject=run.subject, figure=figure, unit="", digits=0, spread=Spread.of([value]), target=target, met=met
        )
    yield Figure(
        subject=run.subject, figure="new spec to Ready under this load", unit="s", digits=3,
        spread=Spread.of(run.seconds), p99=percentile(run.seconds, 99),
    )  # fmt: skip


async def _swap_under_load(
    run: Run,
    clients: Clients,
    client: ClusterClient,
    manifests: Sequence[Manifest],
    *,
    count: int,
    tokens: tuple[int, ...],
) -> None:
    """Swap through all manifests of the one twin while so many clients ask it; the first is there before them."""
    metadata = manifests[0]["metadata"]
    async with watching(client, TWINS.format(metadata["namespace"]), metadata["name"]) as twin:

        async def swap(generation: int, manifest: Manifest) -> float:
            digest, began = manifest["spec"]["adapter"]["digest"], time.monotonic()
            await apply_twin(client, manifest)
            ready = _ready(digest, generation)
            return (await twin.until(ready, seconds=SWAP_SECONDS, what=f"swap {generation - 1}")).at - began

        try:
            await swap(1, manifests[0])
            load = asyncio.create_task(clients.run(count, tokens=tokens))
            try:
                for generation, manifest in enumerate(manifests[1:], start=2):
                    run.seconds.append(await swap(generation, manifest))
            finally:
                clients.stop()
                await load
        except TimeoutError as error:
            raise BenchmarkError(f"{error}; the clients' failures: {dict(clients.tally.failures)}") from error
    run.tally = clients.tally


def _ready(digest: str, generation: int) -> Callable[[Manifest], bool]:
    return lambda thing: serves(thing, digest, generation=generation)


# --- on the demo's real engine


def _on_demo(pool: DemoPool, swaps: int) -> Run:
    run = Run(_PART["vllm"])
    clients = Clients(pool.miner_url(), token=pool.token(), twin=TWIN)
    with pool.versions(TWIN, swaps + 1) as made, pool.twin_gone_afterwards(TWIN):
        asyncio.run(_swap_on_demo(run, pool, clients, made))
    pool.settle()
    return run


async def _swap_on_demo(run: Run, pool: DemoPool, clients: Clients, made: Sequence[Version]) -> None:
    manifests = [pool.twin_manifest(TWIN, version) for version in made]
    async with ClusterClient(KubeconfigAccess(pool.cluster.kubeconfig_path)) as client:
        await _swap_under_load(run, clients, client, manifests, count=REAL_CLIENTS, tokens=REAL_TOKENS)


# --- on the stand-in engine


async def _on_standin(cluster: Cluster, folder: Path, swaps: int) -> Run:
    run = Run(_PART["standin"])
    store = folder / "pvc" / "adapters" / "store"
    adapters = [write_adapter(store, TWIN, content=f"run {number}", base=BASE) for number in range(swaps + 1)]
    try:
        async with (
            data_plane(cluster, folder) as plane,
            ClusterClient(KubeconfigAccess(cluster.kubeconfig_path)) as api,
        ):
            clients = Clients(plane.url, token=TOKEN, twin=TWIN, check=weights_of(adapters))
            manifests = [twin_manifest(adapter) for adapter in adapters]
            await _swap_under_load(run, clients, api, manifests, count=CLIENTS, tokens=TOKENS)
    except AssertionError as error:  # what the harness of the operator's tests raises
        raise BenchmarkError(str(error)) from error
    return run


def twin_manifest(adapter: FakeAdapter) -> Manifest:
    """Return the twin with this adapter."""
    uri = f"pvc://adapters/store/{TWIN}/{names.digest_hex(adapter.digest)}"
    return operator_harness.twin_manifest(
        NAMESPACE, TWIN, tier=POOL, adapter={"uri": uri, "digest": adapter.digest, "rank": adapter.rank}
    )


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["swaps_under_load", *sys.argv[1:]]))
