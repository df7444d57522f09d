"""A night in which a thousand twins' fine-tunes are due, on fake nodes, with the operator killed ten times.

`python -m tests.bench.nightly`, or as one of `python -m tests.bench`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from localcluster import Cluster
from neurons.cluster import ClusterClient, KubeconfigAccess
from tests.api import operator_harness
from tests.api.operator_harness import until
from tests.bench import night as nights
from tests.bench import versions
from tests.bench.bench_cluster import NAMESPACE, AuditLog, Write, bench_cluster
from tests.bench.night import Night, Plan
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread

NODES: Final = 20
FURNISH_TWINS_PER_SECOND: Final = 12
"""At least so many twins are made, and their times written down, in a second; the night begins after that."""
MARGIN_SECONDS: Final = 45.0
DRAIN_SECONDS: Final = 900.0
JOB_CONTROLLER: Final = "system:serviceaccount:kube-system:job-controller"
JOB_CONTROLLER_RATE: Final = 20
"""kube-controller-manager's default --kube-api-qps, which each of its controllers has."""
TAKEOVER_SECONDS: Final = 15
"""The operator's own promise for a new leader is about 10 s."""


@dataclass
class Measured:
    """A night, and what the API server says of it."""

    night: Night
    writes: list[Write] = field(default_factory=list)
    """The operator's, from the opening of the window to the end of the last run."""
    of_job_controller: int = 0
    """Writes of the Job controller in the same time."""
    memory_before_mb: float = 0.0
    jobs_left: list[str] = field(default_factory=list)


def measure(options: Options) -> Result:
    """Measure it on a cluster of its own, which is gone afterwards."""
    plan = Plan(twins=options.night_twins, kills=options.night_kills, window_seconds=options.night_window_seconds)
    with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        software = versions.of_cluster(cluster) | versions.of_python()
        cluster.kwok(NODES)
        try:
            measured = asyncio.run(_spend(cluster, Path(folder), plan))
        except AssertionError as error:  # what the harness of the operator's tests raises
            raise BenchmarkError(str(error)) from error
    shortest, longest = plan.trainer_seconds
    return Result(
        name="nightly",
        title=f"A night with {plan.twins:,} fine-tunes and {plan.kills} killed operators",
        how=(
            f"{plan.twins:,} twins with the same cron time in {plan.pools} pools, each of which lets {plan.limit} runs "
            f"run at once (maxConcurrentRuns); fineTune.windowSeconds was {plan.window_seconds} instead of 14,400, so "
            "that the night fits into minutes. One real operator process, killed with SIGKILL each time another "
            f"1/{plan.kills + 1} of the runs had ended, and started again at once under the same name, so that it had "
            "to wait until its own Lease expired. API server, Job controller and scheduler are real; the "
            f"{NODES} nodes are kwok's, and the trainers were played: {shortest:.0f} to {longest:.0f} s each, three "
            "progress reports as the trainer writes them, verdict Reject (what follows a Promote is measured in "
            "`promotion`). Runs, Jobs and pods were watched throughout, not sampled. Writes are the API server's audit "
            "log's, of the operator's own account, without the Lease. Memory is VmRSS, every half second."
        ),
        figures=tuple(_figures(measured)),
        notes=tuple(_notes(measured)),
        versions=software,
    )


async def _spend(cluster: Cluster, folder: Path, plan: Plan) -> Measured:
    kubeconfig = cluster.kubeconfig_path
    account = nights.account_kubeconfig(cluster.kubectl, kubeconfig, NAMESPACE, folder / "operator.kubeconfig")
    night = Night(plan)
    lead = MARGIN_SECONDS + plan.twins / FURNISH_TWINS_PER_SECOND
    opens = (datetime.now(UTC) + timedelta(seconds=lead + 60)).replace(second=0, microsecond=0)
    async with (
        operator_harness.cluster(kubeconfig, NAMESPACE) as world,
        ClusterClient(KubeconfigAccess(kubeconfig)) as client,
        nights.operators_of(account, NAMESPACE, folder, night) as operators,
        nights.played(client, NAMESPACE, night),
    ):
        await nights.furnish(world, night, opens)
        left = (opens - datetime.now(UTC)).total_seconds()
        await until(
            lambda: nights.all_know_their_time(world, night), seconds=max(1.0, left - 2),
            what="every twin's next time is written down before the night begins",
        )  # fmt: skip
        await asyncio.sleep((opens - datetime.now(UTC)).total_seconds() - 1)
        measured = Measured(night, memory_before_mb=night.memory_mb[-1])
        night.memory_mb.clear()
        audit = AuditLog(cluster)
        await asyncio.sleep((opens - datetime.now(UTC)).total_seconds())
        night.opened = opens
        before = night.cpu_seconds
        await nights.until_drained(night, operators, seconds=DRAIN_SECONDS)
        await until(lambda: _settled(world, night), seconds=60, what="the last Jobs have ended")
        night.cpu_seconds -= before
        writes, user = audit.writes(), f"system:serviceaccount:{NAMESPACE}:{nights.ACCOUNT}"
        measured.writes = [write for write in writes if write.user == user and write.resource != "leases"]
        measured.of_job_controller = sum(write.user == JOB_CONTROLLER for write in writes)
        measured.jobs_left = await nights.jobs_left(world)
    return measured


async def _settled(world: operator_harness.Cluster, night: Night) -> bool:
    return not await nights.jobs_left(world) and len(night.ended) >= night.plan.twins


def _figures(measured: Measured) -> Iterator[Figure]:
    night, plan = measured.night, measured.night.plan
    subject, count = "the night", f"{plan.twins:,}"
    made = sum(bool(night.runs_of(twin)) for twin in night.due)
    closes = (night.opened or datetime.now(UTC)) + timedelta(seconds=plan.window_seconds)

    def row(figure: str, values: Sequence[float], unit: str = "", *, digits: int = 0, target: str | None = None,
            met: bool | None = None, subject: str = subject) -> Figure:  # fmt: skip
        return Figure(
            subject=subject, figure=figure, unit=unit, digits=digits, spread=Spread.of(values), target=target, met=met
        )

    dates = [min(date for _, date in runs) for runs in night.created.values()]
    in_window = sum(date <= closes for date in dates)
    in_time = sum(date <= closes + timedelta(seconds=TAKEOVER_SECONDS) for date in dates)
    yield row("twins whose run was created", [made], target=count, met=made == plan.twins)
    yield row(
        f"of them within the window, or within {TAKEOVER_SECONDS} s of its end", [in_time], target=count,
        met=in_time == plan.twins,
    )  # fmt: skip
    yield row("of them within the window itself", [in_window])
    yield row("twins, runs or Jobs with more than one run, Job or trainer", [len(night.doubled)], target="0",
              met=not night.doubled)  # fmt: skip
    yield row("runs lost: never made, or never ended", [len(night.lost)], target="0", met=not night.lost)
    yield row(
        "runs that ended otherwise than their trainer said", [len(night.failed)], target="0", met=not night.failed
    )
    for what, most in (("runs", night.most), ("trainers", night.most_working)):
        values = [most[pool] for pool in sorted(set(night.pool.values()))]
        yield row(
            f"most {what} at once in a pool", values, target=f"at most {plan.limit}", met=max(values) <= plan.limit
        )
    yield row("from a run's due time to its creation", night.late_seconds(), "s")
    if night.opened is not None and night.drained is not None:
        lasted = (night.drained - night.opened).total_seconds()
        yield row("from the window's opening to the end of the last run", [lasted], "s")
    operator = "operator"
    if night.away:
        yield row("from SIGKILL until it led again", night.away, "s", digits=1, subject=operator)
    yield row("resident memory", night.memory_mb, "MB", digits=1, subject=operator)
    yield row("resident memory before the night", [measured.memory_before_mb], "MB", digits=1, subject=operator)
    yield row("writes to the API server per run", [len(measured.writes) / plan.twins], digits=2, subject=operator)


def _notes(measured: Measured) -> Iterator[str]:
    night = measured.night
    kinds = Counter(
        f"{write.verb} {write.resource}/{write.subresource}" if write.subresource else f"{write.verb} {write.resource}"
        for write in measured.writes
    )
    parts = ", ".join(f"{count / night.plan.twins:.2f} {kind}" for kind, count in kinds.most_common())
    yield f"The operator's writes per run: {parts}."
    least = measured.of_job_controller / JOB_CONTROLLER_RATE
    yield (
        f"The Job controller may ask {JOB_CONTROLLER_RATE} times a second (its default), and wrote "
        f"{measured.of_job_controller / night.plan.twins:.1f} times a run: at least {least:.0f} s for this night, "
        "whatever the operator does."
    )
    for what, found in (("Lost", night.lost), ("More than one", night.doubled)):
        if found:
            yield f"{what}: {', '.join(found[:10])}"
    for run, why in list(night.failed.items())[:10]:
        yield f"Ended otherwise: {run}: {why}"
    if measured.jobs_left:
        yield f"Jobs that had not ended: {', '.join(measured.jobs_left[:10])}"


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["nightly", *sys.argv[1:]]))
