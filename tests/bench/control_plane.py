"""The operator with ten thousand twins: memory, restart, idleness, a version's way into its slice, a busy minute, and
rollbacks while Prometheus hangs.

`python -m tests.bench.control_plane`, or `control_plane` as one of `python -m tests.bench`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localcluster import Cluster
from tests.api import operator_harness
from tests.api.operator_harness import Operator, until
from tests.bench import processes, versions
from tests.bench.bench_cluster import NAMESPACE, AuditLog, Write, bench_cluster
from tests.bench.clinic import Clinic, digest_of, paced
from tests.bench.held_rollbacks import CANARIES, hanging_prometheus, rollback_ms
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import DOCTOR_TWIN, ROUTING_SLICE

QUIET_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 900.0
SINGLE_CHANGES: Final = 100


@dataclass
class Seen:
    """What was measured."""

    memory_mb: list[float] = field(default_factory=list)
    restart_seconds: float = 0.0
    restart_writes: float = 0.0
    idle_writes: float = 0.0
    idle_seconds: float = 0.0
    publish_ms: list[float] = field(default_factory=list)
    shares_ms: dict[str, list[float]] = field(default_factory=dict)
    """Of that, by whose it was."""
    change_bytes: list[float] = field(default_factory=list)
    minute_cpu_seconds: float = 0.0
    minute_changes: int = 0
    soak_before_mb: float = 0.0
    soak_after_mb: float = 0.0
    soak_changes: int = 0
    rollback_ms: list[float] = field(default_factory=list)


def measure(options: Options) -> Result:
    """Measure it on a cluster of its own, which is gone afterwards."""
    with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        software = versions.of_cluster(cluster) | versions.of_python()
        seen, broken = Seen(), []
        for part, measured in (("many", _many), ("changes", _changes), ("rollbacks", _rollbacks)):
            if part in options.skip:
                continue
            try:
                asyncio.run(measured(cluster, Path(folder), options, seen))
            except (AssertionError, TimeoutError, ApiError) as error:
                broken.append(f"`{part}` broke off, so what it had not measured by then is missing: {error}")
        figures = _figures(seen, options)
        if broken and not figures:
            raise BenchmarkError("; ".join(broken))
    return Result(
        name="control_plane",
        title="The operator with many twins",
        how=(
            "One operator process, leader, on a real API server and the same cores; engine pods were objects without "
            "a kubelet, one per pool, and their reports were written as agents write them. "
            f"{options.many_twins:,} twins on {options.many_pools} pools for memory, restart and idleness; 1,000 twins "
            "on one pool for changes: a change is a new spec.adapter whose agent reports it verified at once. Memory "
            "is VmRSS, in units of 10⁶ bytes. The parts of a new version's way are by the API server's audit log. "
            "Bytes are those of request bodies, by its own metric, without its Lease. Rollbacks were asked for by "
            "annotation, each while the operator waited for a Prometheus that takes questions and answers none."
        ),
        figures=figures,
        notes=tuple(broken),
        versions=software,
    )


def _figures(seen: Seen, options: Options) -> tuple[Figure, ...]:
    figures: list[Figure] = []

    def add(subject: str, figure: str, unit: str, values: list[float], target: str, met: bool, **more: Any) -> None:
        if values:
            figures.append(
                Figure(
                    subject=subject, figure=figure, unit=unit, spread=Spread.of(values), target=target, met=met, **more
                )
            )

    many = f"{options.many_twins:,} twins on {options.many_pools} pools"
    if seen.memory_mb:
        add(many, "resident memory", "MB", seen.memory_mb, "≤ 400 MB", max(seen.memory_mb) <= 400, digits=0)
        add(many, "restart to steady", "s", [seen.restart_seconds], "≤ 60 s", seen.restart_seconds <= 60, digits=1)
        add(many, "writes after the restart", "", [seen.restart_writes], "0", seen.restart_writes == 0, digits=0)
        if seen.idle_seconds:
            idle = f"writes in {seen.idle_seconds / 60:.1f} idle minutes"
            add(many, idle, "", [seen.idle_writes], "0", seen.idle_writes == 0, digits=0)
    if seen.publish_ms:
        p99 = percentile(seen.publish_ms, 99)
        one = "1,000 twins on one pool"
        add(one, "new version → its slice", "ms", seen.publish_ms, "p99 ≤ 100 ms", p99 <= 100, digits=0, p99=p99)
        for whose, values in seen.shares_ms.items():
            if values:
                share, p99 = Spread.of(values), percentile(values, 99)
                figures.append(Figure(subject=one, figure=f"of it: {whose}", unit="ms", spread=share, p99=p99))
        add(
            one, "bytes written for one new version", "KiB", [each / 1024 for each in seen.change_bytes], "≤ 64 KiB",
            max(seen.change_bytes) <= 64 * 1024, digits=1,
        )  # fmt: skip
        if seen.minute_changes:
            add(
                one, f"processor time for {seen.minute_changes:,} changes in a minute", "s", [seen.minute_cpu_seconds],
                "≤ 10 s", seen.minute_cpu_seconds <= 10, digits=1,
            )  # fmt: skip
        if seen.soak_changes:
            grown = 100 * (seen.soak_after_mb / seen.soak_before_mb - 1)
            add(
                one, f"memory after {seen.soak_changes:,} changes against before", "%", [grown], "≤ +10%", grown <= 10,
                digits=1,
            )  # fmt: skip
    if seen.rollback_ms:
        add(
            f"{CANARIES} canaries, Prometheus hangs", "rollback asked for → no traffic in the slice", "ms",
            seen.rollback_ms, "≤ 1,000 ms", max(seen.rollback_ms) <= 1000, digits=0,
        )  # fmt: skip
    return tuple(figures)


async def _many(cluster: Cluster, folder: Path, options: Options, seen: Seen) -> None:
    kubeconfig = cluster.kubeconfig_path
    async with operator_harness.cluster(kubeconfig, NAMESPACE) as world:
        clinic = Clinic(world, twins=options.many_twins, pools=options.many_pools)
        # Engines are updated for a thousand adapters, one pool after another: else a minute each.
        soon = {"TWIN_UPDATE_DELAY_SECONDS": "1"}
        async with operator_harness.operator(kubeconfig, NAMESPACE, folder, name="first", **soon) as operator:
            await clinic.furnish()
            await clinic.until_ready()
            await quiet(operator)
        began = time.monotonic()
        async with operator_harness.operator(kubeconfig, NAMESPACE, folder, name="second") as operator:
            await until(operator.leads, seconds=SETTLE_SECONDS, what="the restarted operator leads", every=0.2)
            await until(lambda: _nothing_waits(operator), seconds=SETTLE_SECONDS, what="its queue is empty", every=0.2)
            seen.restart_seconds = time.monotonic() - began
            seen.restart_writes = await operator.writes()
            await quiet(operator)
            written, began = await operator.writes(), time.monotonic()
            while (left := began + options.idle_seconds - time.monotonic()) > 0:
                seen.memory_mb.append(processes.resident_mb(operator.process.pid))
                await asyncio.sleep(min(1.0, left))
            seen.idle_seconds = time.monotonic() - began
            seen.idle_writes = await operator.writes() - written
        await wipe(world)


async def _changes(cluster: Cluster, folder: Path, options: Options, seen: Seen) -> None:
    kubeconfig = cluster.kubeconfig_path
    async with (
        operator_harness.cluster(kubeconfig, NAMESPACE) as world,
        operator_harness.operator(kubeconfig, NAMESPACE, folder, name="third") as operator,
    ):
        await wipe(world)  # of a part that broke off
        clinic = Clinic(world, twins=1000, pools=1)
        await clinic.furnish()
        await clinic.until_ready()
        await quiet(operator)
        pid, log = operator.process.pid, AuditLog(cluster)
        for name in clinic.names[:: 1000 // SINGLE_CHANGES]:
            before = await _bytes(operator)
            seen.publish_ms.append(await _published_ms(clinic, name))
            held = clinic.held(name)
            await clinic.say(clinic.pool_of(name), dict([held]))
            await until(lambda name=name: _answers(clinic, name), what=f"{name}'s new version answers")  # type: ignore[misc]
            await quiet(operator, seconds=1.5)
            seen.change_bytes.append(await _bytes(operator) - before)
        seen.shares_ms = _shares_ms(log.writes())
        cpu = processes.cpu_ms(pid)
        await paced([lambda name=name: clinic.change(name) for name in clinic.names], seconds=60)  # type: ignore[misc]
        await clinic.until_ready()
        await quiet(operator, seconds=2)
        seen.minute_cpu_seconds = (processes.cpu_ms(pid) - cpu) / 1000
        seen.minute_changes = clinic.twins
        seen.soak_before_mb = processes.resident_mb(pid)
        changes = options.soak_changes
        jobs = [clinic.names[number % clinic.twins] for number in range(changes)]
        await paced([lambda name=name: clinic.change(name) for name in jobs], seconds=changes / 25)  # type: ignore[misc]
        await clinic.until_ready()
        await quiet(operator)
        seen.soak_after_mb = processes.resident_mb(pid)
        seen.soak_changes = changes


def _shares_ms(writes: list[Write]) -> dict[str, list[float]]:
    """Return how long each part of a new version's way took, by the API server's own account."""
    asked, own, written = [], [], []
    new: Write | None = None
    for write in sorted(writes, key=lambda each: each.received):
        if write.resource == DOCTOR_TWIN.plural and not write.subresource:
            new = write
        elif write.resource == ROUTING_SLICE.plural and new is not None:
            asked.append((new.answered - new.received) * 1000)
            own.append(max(0.0, write.received - new.answered) * 1000)
            written.append((write.answered - write.received) * 1000)
            new = None  # what follows is about the report that it is verified
    return {
        "the API server takes the new spec": asked,
        "from there until the operator's slice is there": own,
        "the API server takes the slice": written,
    }


async def _rollbacks(cluster: Cluster, folder: Path, options: Options, seen: Seen) -> None:
    kubeconfig = cluster.kubeconfig_path
    async with (
        hanging_prometheus() as prometheus,
        operator_harness.cluster(kubeconfig, NAMESPACE) as world,
        operator_harness.operator(
            kubeconfig, NAMESPACE, folder, name="fourth", TWIN_PROMETHEUS_URL=prometheus.url
        ),
    ):  # fmt: skip
        await wipe(world)
        seen.rollback_ms = await rollback_ms(Clinic(world, twins=CANARIES, pools=1), prometheus)


async def _published_ms(clinic: Clinic, name: str) -> float:
    """Return how long after its new spec was sent the twin's slice names the new version, by a watch."""
    digest = digest_of(name, clinic.version.get(name, 0) + 1)
    return await clinic.seen_ms(name, clinic.ask(name), lambda entry: digest in json.dumps(entry))


async def _answers(clinic: Clinic, name: str) -> bool:
    thing = await clinic.world.api.get(DOCTOR_TWIN, namespace=clinic.world.namespace, name=name)
    status = (thing or {}).get("status") or {}
    return bool((status.get("activeVersion") or {}).get("digest") == clinic.adapter(name)["digest"])


async def _bytes(operator: Operator) -> float:
    name = "bettertherapy_operator_api_written_bytes_total"
    return await operator.metric(name) - await operator.metric(name, kind="Lease")


async def _nothing_waits(operator: Operator) -> bool:
    waits = await operator.metric("bettertherapy_operator_queue_depth")
    done = await operator.metric("bettertherapy_operator_reconciles_total", kind="DoctorTwin")
    return waits == 0 and done > 0


async def quiet(operator: Operator, *, seconds: float = QUIET_SECONDS) -> None:
    """Wait until it has written nothing for so long."""
    last, since = await operator.writes(), time.monotonic()
    async with asyncio.timeout(SETTLE_SECONDS):
        while time.monotonic() - since < seconds:
            await asyncio.sleep(min(1.0, seconds / 4))
            if (now := await operator.writes()) != last:
                last, since = now, time.monotonic()


async def wipe(world: operator_harness.Cluster) -> None:
    """Delete the twins, the pools and what played their engines, and wait until they are gone."""
    from twin_operator.engine.resources import POD
    from twin_operator.kinds.resources import MINER_POOL, POD_REPORT

    kinds = (DOCTOR_TWIN, MINER_POOL, POD, POD_REPORT)
    for resource in kinds:
        try:
            await world.api._request("DELETE", resource.path(namespace=world.namespace), seconds=SETTLE_SECONDS)
        except ApiError as error:
            if error.status != 504:  # it goes on deleting, though it answers no more
                raise

    async def gone() -> bool:
        with contextlib.suppress(ApiError):
            await world.api._request("DELETE", DOCTOR_TWIN.path(namespace=world.namespace), seconds=SETTLE_SECONDS)
        left = [len((await world.api.list(each, namespace=world.namespace))[0]) for each in kinds]
        return not any(left)

    await until(gone, seconds=SETTLE_SECONDS, what="the former twins are gone", every=1.0)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["control_plane", *sys.argv[1:]]))
