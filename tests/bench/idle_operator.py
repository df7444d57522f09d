"""What an operator does that has nothing to do: its writes to the API server and its memory, with many twins.

`python -m tests.bench.idle_operator`, or `operator` as one of `python -m tests.bench`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from localcluster import Cluster
from tests.api import operator_harness
from tests.api.operator_harness import Operator, condition, held, pool_manifest, twin_manifest, until
from tests.bench import processes, versions
from tests.bench.bench_cluster import NAMESPACE, AuditLog, Write, bench_cluster
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread
from twin_operator.kinds.resources import DOCTOR_TWIN

POOL: Final = "p"
POD: Final = "engine-0"
ADMINISTRATOR: Final = "admin"
"""Whom the operator's kubeconfig names; while it is watched, nobody else uses that name."""
READY_SECONDS: Final = 300.0
QUIET_SECONDS: Final = 10.0
"""It counts as idle once it has written nothing for so long."""
SAMPLE_SECONDS: Final = 1.0
TARGET_MB: Final = 120.0


@dataclass
class Idleness:
    """What was seen while it had nothing to do."""

    seconds: float = 0.0
    counted: float = 0.0
    """Writes beside the Lease's, by the operator's own metric."""
    audited: list[Write] = field(default_factory=list)
    """Writes of the administrator, the Lease's among them, by the API server's audit log."""
    cpu_seconds: float = 0.0
    memory_mb: list[float] = field(default_factory=list)

    @property
    def beyond_lease(self) -> list[Write]:
        """Writes that an idle operator should not make."""
        return [write for write in self.audited if write.resource != "leases"]


def measure(options: Options) -> Result:
    """Measure it on a cluster of its own, which is gone afterwards."""
    with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        software = versions.of_cluster(cluster) | versions.of_python()
        try:
            seen = asyncio.run(_watch_it_idle(cluster, Path(folder), options))
        except (AssertionError, TimeoutError) as error:
            raise BenchmarkError(f"the operator didn't come to rest: {error}") from error
    leases = len(seen.audited) - len(seen.beyond_lease)
    if not leases:
        raise BenchmarkError("the audit log has no renewal of the Lease, so it is no witness")
    return Result(
        name="operator",
        title="An operator with nothing to do",
        how=(
            f"One operator process, leader, one pool and {options.twins} twins, all Ready, on a real API server; the "
            f"pods were objects without a kubelet, and their reports were written as agents write them. Watched for "
            f"{seen.seconds:.0f} s after it had written nothing for {QUIET_SECONDS:.0f} s; its full resync comes about "
            "every 600 s. Writes are counted twice: by the operator's own metric, and by the API server's audit log, "
            f"in which the same user renewed the Lease {leases} times meanwhile. Memory is VmRSS, looked at every "
            "second, in units of 10⁶ bytes."
        ),
        figures=_figures(seen, options),
        notes=_notes(seen.beyond_lease),
        versions=software,
    )


def _figures(seen: Idleness, options: Options) -> tuple[Figure, ...]:
    subject = f"operator, {options.twins} twins"
    memory = Spread.of(seen.memory_mb)
    writes = f"writes beyond the Lease in {seen.seconds / 60:.1f} idle minutes"
    found = len(seen.beyond_lease)
    return (
        Figure(
            subject=subject, figure=f"{writes}: audit log", unit="", digits=0, spread=Spread.of([found]), target="0",
            met=found == 0,
        ),
        Figure(
            subject=subject, figure=f"{writes}: its own metric", unit="", digits=0, spread=Spread.of([seen.counted]),
            target="0", met=seen.counted == 0,
        ),
        Figure(
            subject=subject, figure="resident memory", unit="MB", digits=1, spread=memory,
            target="at most 120 MB", met=memory.maximum <= TARGET_MB,
        ),
        Figure(
            subject=subject, figure="processor time", unit="% of a core", digits=2,
            spread=Spread.of([seen.cpu_seconds / seen.seconds * 100]),
        ),
    )  # fmt: skip


def _notes(writes: Sequence[Write]) -> tuple[str, ...]:
    kinds = Counter(str(write) for write in writes).most_common(10)
    return tuple(f"A write of the idle operator: {what}, {count} times." for what, count in kinds)


async def _watch_it_idle(cluster: Cluster, folder: Path, options: Options) -> Idleness:
    kubeconfig = cluster.kubeconfig_path
    async with (
        operator_harness.cluster(kubeconfig, NAMESPACE) as world,
        operator_harness.operator(kubeconfig, NAMESPACE, folder) as operator,
    ):
        await _settle(world, options.twins)
        await _quiet(operator)
        seen, pid = Idleness(), operator.process.pid
        audit, counted, cpu = AuditLog(cluster), await operator.writes(), processes.cpu_ms(pid)
        began = time.monotonic()
        while (left := began + options.idle_seconds - time.monotonic()) > 0:
            seen.memory_mb.append(processes.resident_mb(pid))
            await asyncio.sleep(min(left, SAMPLE_SECONDS))
        seen.seconds = time.monotonic() - began
        seen.cpu_seconds = (processes.cpu_ms(pid) - cpu) / 1000
        seen.counted = await operator.writes() - counted
        seen.audited = [write for write in audit.writes() if write.user == ADMINISTRATOR]
        if not await operator.leads():
            raise BenchmarkError("the operator lost its Lease while it was watched")
        return seen


async def _settle(world: operator_harness.Cluster, count: int) -> None:
    """Make the twins, play the one pod that holds them all, and wait until all are Ready."""
    names = [f"dr-{number:04d}" for number in range(count)]
    await world.apply(pool_manifest(NAMESPACE, POOL, engine={"device": "CPU", "maxLoras": 256}))
    for name in names:
        await world.apply(twin_manifest(NAMESPACE, name, tier=POOL))
    await world.start_pod(POD, pool=POOL)
    await world.report(POD, *(held(twin=name) for name in names), pool=POOL)

    async def all_ready() -> bool:
        twins, _ = await world.api.list(DOCTOR_TWIN, namespace=NAMESPACE)
        return len(twins) == count and all(condition(twin, "Ready")[0] == "True" for twin in twins)

    await until(all_ready, seconds=READY_SECONDS, what=f"all {count} twins are Ready")


async def _quiet(operator: Operator) -> None:
    """Wait until it has written nothing for a while."""
    last, since = await operator.writes(), time.monotonic()
    async with asyncio.timeout(READY_SECONDS):
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(SAMPLE_SECONDS)
            if (now := await operator.writes()) != last:
                last, since = now, time.monotonic()


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["operator", *sys.argv[1:]]))
