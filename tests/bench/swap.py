"""From a twin's new spec to its new version verified on all pods and answering, on the demo's real engine.

`python -m tests.bench.swap`, or as one of `python -m tests.bench`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState
from neurons.cluster import ClusterClient, KubeconfigAccess
from tests.bench.demo_pool import DemoPool, Version
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.bench.watching import (
    REPORTS,
    SLICES,
    TWINS,
    Reports,
    Watch,
    apply_twin,
    is_routed,
    is_verified_everywhere,
    serves,
    watching,
)

TWIN: Final = "bench-swap"
TARGET_P99_SECONDS: Final = 2.0
FIRST_SECONDS: Final = 60.0
SWAP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Swap:
    """One swap, in seconds from the moment the new spec was sent."""

    routed: float
    """The routing table that wants the new version was heard."""
    verified: float
    """The report in which the last pod says Verified was heard."""
    ready: float
    """The status that says so was heard."""
    loading: float
    """The agent's own clock: load, confirm and fingerprint, of the slowest pod."""


def measure(options: Options) -> Result:
    """Measure it; the twin and its versions are gone afterwards."""
    pool = DemoPool.connect()
    with pool.versions(TWIN, options.real_swaps + 1) as versions, pool.twin_gone_afterwards(TWIN):
        swaps = asyncio.run(_swap_all(pool, versions))
    pool.settle()
    return Result(
        name="swap",
        title="From a twin's new spec to its new version verified and answering",
        how=(
            f"One twin of the demo's pool ({len(pool.engine_pods())} engine pod, SmolLM2-135M, float32 on a CPU), with "
            f"{len(pool.twins())} other twins resident and no requests, was given {len(swaps)} new versions one after "
            "another, each when the former one had left the engine. Timed from sending the new spec until a watch had "
            "brought the status that names the version as active, AdaptersVerified and Ready at the new generation, "
            "verified on all pods. The artifacts lay in the pool's store on the same disk; they differ in their "
            "digests and share one adapter's weights, so the page cache was warm."
        ),
        figures=_figures(swaps),
        versions=pool.software(),
    )


def _figures(swaps: Sequence[Swap]) -> tuple[Figure, ...]:
    def figure(what: str, values: list[float], **more: Any) -> Figure:
        return Figure(
            subject="twin",
            figure=what,
            unit="s",
            digits=3,
            spread=Spread.of(values),
            p99=percentile(values, 99),
            **more,
        )

    ready = [swap.ready for swap in swaps]
    return (
        figure(
            "new spec to verified on all pods and Ready", ready,
            target="p99 ≤ 2 s", met=percentile(ready, 99) <= TARGET_P99_SECONDS,
        ),
        figure("of it: until a routing slice wants it (operator)", [swap.routed for swap in swaps]),
        figure("of it: from there until every pod reports it (agent)", [swap.verified - swap.routed for swap in swaps]),
        figure("of that: load, confirm, fingerprint (the agent's clock)", [swap.loading for swap in swaps]),
        figure("of it: from there until the status says so (operator)", [swap.ready - swap.verified for swap in swaps]),
    )  # fmt: skip


async def _swap_all(pool: DemoPool, versions: Sequence[Version]) -> list[Swap]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(KubeconfigAccess(pool.cluster.kubeconfig_path)))
        twin = await stack.enter_async_context(watching(client, TWINS.format(pool.namespace), TWIN))
        routing = await stack.enter_async_context(watching(client, SLICES.format(pool.namespace)))
        report = await stack.enter_async_context(watching(client, REPORTS.format(pool.namespace)))
        reports = Reports()
        try:
            first = versions[0]
            await apply_twin(client, pool.twin_manifest(TWIN, first))
            await twin.until(
                lambda thing: serves(thing, first.digest, generation=1), seconds=FIRST_SECONDS, what="the first version"
            )
            return [
                await _swap(client, pool, number, version, twin=twin, routing=routing, report=report, reports=reports)
                for number, version in enumerate(versions[1:], start=2)
            ]
        except TimeoutError as error:
            raise BenchmarkError(str(error)) from error


async def _swap(
    client: ClusterClient, pool: DemoPool, generation: int, version: Version, *,
    twin: Watch, routing: Watch, report: Watch, reports: Reports,
) -> Swap:  # fmt: skip
    name = names.served_name(TWIN, version.digest)
    manifest = pool.twin_manifest(TWIN, version)
    began = time.monotonic()
    await apply_twin(client, manifest)
    routed = await routing.until(lambda thing: is_routed(thing, name), seconds=SWAP_SECONDS, what=f"{name} routed")
    verified = await report.until(
        lambda thing: is_verified_everywhere(reports.hear(thing), name), seconds=SWAP_SECONDS, what=f"{name} verified"
    )
    ready = await twin.until(
        lambda thing: serves(thing, version.digest, generation=generation), seconds=SWAP_SECONDS, what=f"{name} Ready"
    )
    loading = max(each.adapters[name].load_millis or 0 for each in reports.hear(verified.thing)) / 1000

    def alone(thing: dict[str, Any]) -> bool:
        """Tell whether the engine holds this version of the twin and no other."""
        held = [each.adapters for each in reports.hear(thing)]
        return all(
            adapter.state is AdapterState.VERIFIED and (adapter.twin != TWIN or other == name)
            for adapters in held
            for other, adapter in adapters.items()
        )

    await report.until(alone, seconds=SWAP_SECONDS, what=f"the version before {name} is out")
    return Swap(
        routed=routed.at - began, verified=verified.at - began, ready=ready.at - began, loading=loading
    )  # fmt: skip


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["swap", *sys.argv[1:]]))
