"""A version that passed its gate takes over under load, or is taken back: how long it takes, and what fails meanwhile.

On the stand-in engine many times, and a few times on the demo's real engine.
`python -m tests.bench.promotion`, or as one of `python -m tests.bench`. Parts to skip: standin, vllm.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from localcluster import Cluster
from neurons.cluster import ClusterClient, KubeconfigAccess
from neurons.store import fetch_adapter
from tests.api import operator_harness
from tests.api.operator_harness import BASE
from tests.bench import processes, versions
from tests.bench.bench_cluster import NAMESPACE, bench_cluster
from tests.bench.canary_metrics import canary_metrics
from tests.bench.clients import Clients
from tests.bench.data_plane import PODS, POOL, TOKEN, TOKEN_SECONDS, data_plane, weights_of
from tests.bench.demo_pool import DemoPool, Version
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.bench.rollouts import HELD_WEIGHT, STEPS, Bench, Change, Kind, RolloutRun, under_load, watched
from tests.bench.trainers import PATIENCE_SECONDS, PlayedTrainer, SkippedTrainer
from tests.bench.watching import Manifest, apply_twin, serves
from tests.standin import FakeAdapter, write_adapter

TWIN: Final = "bench-rollout"
CLIENTS: Final = 8
TOKENS: Final = (8, 24, 8, 100)
REAL_CLIENTS: Final = 6
REAL_TOKENS: Final = (4, 16)
"""Short answers: a moment is known no better than requests follow one another."""
SLOWER: Final = 6.0
"""How many times as long a version takes for a token that the operator is to find worse."""
PROMOTION_SECONDS: Final = 3.0
ROLLBACK_SECONDS: Final = 1.0
_PART: Final = {"standin": "stand-in engine", "vllm": "real vLLM"}
_NOWHERE: Final = {"no-such-node": "yes"}


def measure(options: Options) -> Result:
    """Measure both; without the demo's cluster only the stand-in, which a note then says."""
    runs: list[RolloutRun] = []
    notes: list[str] = []
    software = versions.of_python()
    how = []
    if "standin" not in options.skip:
        with bench_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
            software |= versions.of_cluster(cluster)
            runs.append(asyncio.run(_on_standin(cluster, Path(folder), options.promotions)))
        how.append(
            f"On the stand-in engine: one twin on {PODS} pods, each a real agent process beside a stand-in for vLLM "
            f"whose words name its weights ({TOKEN_SECONDS * 1000:.0f} ms a token); one real miner, one real operator, "
            "a real API server with the real Job controller. The runs were asked for by annotation; the bench played "
            "the trainer: it published an adapter and reported the verdict Promote as a trainer does, and ended the "
            "pod. All that follows was the operator's own. It measured the canaries by "
            f"{runs[-1].metrics}. {CLIENTS} clients, half of them streaming, asked for {min(TOKENS)} to {max(TOKENS)} "
            "tokens without a pause and without retries. Promotions took the steps "
            f"{', '.join(f'{weight}% for {seconds} s' for weight, seconds in STEPS)}. Versions to be taken back were "
            f"held at {HELD_WEIGHT}%: two of five took {SLOWER:.0f} times as long for a token, until the operator "
            "found them worse; the others were taken back by annotation."
        )
    if "vllm" not in options.skip and (pool := DemoPool.connect_or_note(notes)) is not None:
        runs.append(_on_demo(pool, options.real_promotions))
        software |= pool.software()
        how.append(
            f"On the real vLLM: the demo's pool (one engine pod, SmolLM2-135M on a CPU), {REAL_CLIENTS} such "
            f"clients asking for {REAL_TOKENS[0]} and {REAL_TOKENS[1]} tokens; the runs' Jobs stayed suspended and "
            "their passing status was written by the bench; all were taken back by annotation."
        )
    if not runs:
        raise BenchmarkError("nothing was measured: " + " ".join(notes or ["both parts are skipped"]))
    how.append(
        "Decided is when the run's status said Promote, the twin's status that the version was taken back, or, for an"
        " annotation, when it was sent. The end is when the first request was sent after which none was answered by "
        "the version that left, by the adapter digests in the answers' headers. What the steps took, at most what was"
        " asked, is subtracted. Failed is what is not 200, breaks off, has no end or no text, names no version, or "
        "(on the stand-in) comes from other weights than the answer's headers say; unverified, what was answered "
        "before its pod had reported the version as verified."
    )
    return Result(
        name="promotion",
        title="A new version takes over, or is taken back, under load",
        how=" ".join(how),
        figures=tuple(figure for run in runs for figure in _figures(run)),
        notes=(*notes, *(note for run in runs for note in run.tally.notes(run.subject))),
        versions=software,
    )


def _figures(run: RolloutRun) -> Iterator[Figure]:
    answers = sorted(run.answers, key=lambda answer: answer.sent)
    ends = {change: change.traffic_at(answers) for change in run.changes}

    def row(figure: str, values: Sequence[float], unit: str = "", *, limit: float | None = None, digits: int = 3,
            target: str | None = None, met: bool | None = None) -> Iterator[Figure]:  # fmt: skip
        if not values:
            return
        if limit is not None:
            target, met = f"≤ {limit:.0f} s", max(values) <= limit
        p99 = percentile(values, 99) if len(values) > 1 else None
        yield Figure(
            subject=run.subject, figure=figure, unit=unit, digits=digits, spread=Spread.of(values), p99=p99,
            target=target, met=met,
        )  # fmt: skip

    def of(kind: Kind) -> list[tuple[Change, float]]:
        return [(change, end) for change, end in ends.items() if change.kind is kind and end is not None]

    promoted = of(Kind.PROMOTED)
    yield from row(
        "promotion: decided to all traffic on it, beyond the steps",
        [end - change.decided - change.spent_in_steps() for change, end in promoted], "s", limit=PROMOTION_SECONDS,
    )  # fmt: skip
    yield from row("decided to all traffic on it, with the steps", [end - each.decided for each, end in promoted], "s")
    first = [each.steps[0] - each.decided for each, _ in promoted]
    yield from row("of it: decided to its first share, verified on every pod", first, "s")
    yield from row(
        "of it: end of the last step to all traffic", [end - each.steps[-1] for each, end in promoted], "s"
    )  # fmt: skip
    yield from row(
        "decided to Ready in the status, with the steps", [each.said - each.decided for each, _ in promoted], "s"
    )
    yield from row(
        "before it: the trainer's end to decided", [each.decided - each.trained for each, _ in promoted], "s"
    )  # fmt: skip
    back = [*of(Kind.ASKED), *of(Kind.WORSE)]
    yield from row(
        "rollback: decided to no request on the bad version", [end - change.decided for change, end in back], "s",
        limit=ROLLBACK_SECONDS,
    )  # fmt: skip
    for kind in (Kind.WORSE, Kind.ASKED):
        if 0 < len(of(kind)) < len(back):
            yield from row(f"of them, {kind.value}", [end - change.decided for change, end in of(kind)], "s")
    changes = Counter(Kind.PROMOTED if change.kind is Kind.PROMOTED else Kind.ASKED for change in run.changes)
    during = f"in {changes[Kind.PROMOTED]} promotions and {changes[Kind.ASKED]} rollbacks"
    unseen = sum(end is None for end in ends.values())
    failed, unverified, requests = run.tally.failures.total(), run.unverified(), run.tally.requests
    for figure, value, target, met in (
        (f"failed requests {during}", failed, "0", failed == 0 and requests > 0),
        ("requests answered by an unverified version", unverified, "0", unverified == 0 and requests > 0),
        ("changes after which no request was seen", unseen, "0", unseen == 0),
        ("requests", requests, None, None),
    ):
        yield from row(figure, [value], digits=0, target=target, met=met)
    if run.artifacts:
        count = changes[Kind.PROMOTED]
        yield from row(
            "promoted versions read back from the store, digests right", [run.artifacts], digits=0, target=str(count),
            met=run.artifacts == count,
        )  # fmt: skip


# --- on the stand-in engine


async def _on_standin(cluster: Cluster, folder: Path, count: int) -> RolloutRun:
    run = RolloutRun(_PART["standin"])
    kubeconfig, pvc = cluster.kubeconfig_path, folder / "pvc"
    made: dict[str, FakeAdapter] = {}
    first = _make(made, pvc / "adapters" / "store", "the first")
    kinds = [
        kind for number in range(count) for kind in (Kind.PROMOTED, Kind.WORSE if number % 5 in (1, 3) else Kind.ASKED)
    ]
    changes = [
        (kind, _make(made, folder / "trained", f"run {number}", slower=SLOWER if kind is Kind.WORSE else 1.0))
        for number, kind in enumerate(kinds, start=1)
    ]
    try:
        async with contextlib.AsyncExitStack() as stack:
            port = processes.free_port()
            at = f"http://127.0.0.1:{port}"
            metrics = await stack.enter_async_context(canary_metrics(at, NAMESPACE, folder))
            run.metrics = metrics.text
            plane = await stack.enter_async_context(
                data_plane(
                    cluster, folder, operator_environment={"TWIN_PROMETHEUS_URL": metrics.url}, metrics_port=port,
                    nodeSelector=_NOWHERE,
                )
            )  # fmt: skip
            client = await stack.enter_async_context(ClusterClient(KubeconfigAccess(kubeconfig)))
            twins, runs = await stack.enter_async_context(
                watched(run, client, namespace=NAMESPACE, pool=POOL, twin=TWIN)
            )
            await apply_twin(client, _twin(first))
            await twins.until(
                lambda twin: serves(twin, first.digest, generation=1), seconds=PATIENCE_SECONDS, what="the first serves"
            )  # fmt: skip
            trainer = PlayedTrainer(plane.world, twin=TWIN, made=made, pvc=pvc)
            clients = Clients(
                plane.url, token=TOKEN, twin=TWIN, check=weights_of(made.values()), heard=run.answers.append
            )  # fmt: skip
            bench = Bench(run, plane.world, trainer, twin=TWIN, twins=twins, runs=runs, serving=first.digest)
            await under_load(run, clients, bench, changes, count=CLIENTS, tokens=TOKENS)
            if metrics.unanswered:
                raise BenchmarkError(f"the operator's queries were not answered: {metrics.unanswered[0]}")
            promoted = [version for kind, version in changes if kind is Kind.PROMOTED]
            run.artifacts = sum([await _is_in_store(version, folder / "read-back", pvc) for version in promoted])
    except AssertionError as error:  # what the harness of the operator's tests raises
        raise BenchmarkError(str(error)) from error
    return run


def _make(made: dict[str, FakeAdapter], store: Path, content: str, *, slower: float = 1.0) -> Version:
    adapter = write_adapter(store, TWIN, content=content, base=BASE, slower=slower)
    made[adapter.digest] = adapter
    uri = f"pvc://adapters/store/{TWIN}/{names.digest_hex(adapter.digest)}"
    return Version(uri=uri, digest=adapter.digest, rank=adapter.rank)


def _twin(version: Version) -> Manifest:
    adapter = {"uri": version.uri, "digest": version.digest, "rank": version.rank}
    return operator_harness.twin_manifest(NAMESPACE, TWIN, tier=POOL, adapter=adapter)


async def _is_in_store(version: Version, scratch: Path, pvc: Path) -> bool:
    folder = scratch / names.digest_hex(version.digest)
    await fetch_adapter(version.uri, version.digest, folder, pvc_dir=pvc)  # checks every digest
    return True


# --- on the demo's real engine


def _on_demo(pool: DemoPool, count: int) -> RolloutRun:
    run = RolloutRun(_PART["vllm"])
    with pool.versions(TWIN, 2 * count + 1) as made, pool.twin_gone_afterwards(TWIN):
        asyncio.run(_roll_out_on_demo(run, pool, pool.twin_manifest(TWIN, made[0]), made))
    pool.settle()
    return run


async def _roll_out_on_demo(run: RolloutRun, pool: DemoPool, twin: Manifest, made: Sequence[Version]) -> None:
    first, *others = made
    changes = [(Kind.ASKED if number % 2 else Kind.PROMOTED, version) for number, version in enumerate(others)]
    kubeconfig = pool.cluster.kubeconfig_path
    async with (
        operator_harness.cluster(kubeconfig, pool.namespace) as world,
        ClusterClient(KubeconfigAccess(kubeconfig)) as client,
        watched(run, client, namespace=pool.namespace, pool=pool.name, twin=TWIN) as (twins, runs),
    ):
        trainer = SkippedTrainer(world, twin=TWIN)
        try:
            await apply_twin(client, twin)
            await twins.until(
                lambda thing: serves(thing, first.digest, generation=1), seconds=PATIENCE_SECONDS,
                what="the first serves",
            )  # fmt: skip
            clients = Clients(pool.miner_url(), token=pool.token(), twin=TWIN, heard=run.answers.append)
            bench = Bench(run, world, trainer, twin=TWIN, twins=twins, runs=runs, serving=first.digest)
            await under_load(run, clients, bench, changes, count=REAL_CLIENTS, tokens=REAL_TOKENS)
        except AssertionError as error:
            raise BenchmarkError(str(error)) from error
        finally:
            await trainer.clean_up()


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["promotion", *sys.argv[1:]]))
