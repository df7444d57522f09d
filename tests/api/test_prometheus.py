"""A canary as a real Prometheus measures it: the miner's own metrics, scraped, then read by the operator's queries.

The pod is one that no node runs: its address is this machine, where the test plays the miner.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter

from bettertherapy_api.doctor_twin import Rollout
from localcluster import Cluster
from neurons.miner.metrics import Metrics
from tests.conftest import Kubectl
from twin_operator.domain.canary_analysis import RATINGS, Analysis, Outlook, Trial, assess
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.engine.prometheus import Prometheus
from twin_operator.kinds.doctor_twin.canary_watch import measure

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
TWIN, STABLE, CANARY = "dr-a", "dr-a-aaaaaaaa", "dr-a-bbbbbbbb"
LIMITS = Rollout(max_error_percent=1, max_latency_ratio_percent=150)
SECONDS = 60.0


@pytest.fixture
def local(kubeconfig: Path) -> Cluster:
    cluster = Cluster(kubeconfig.parent.name)
    if cluster.kubeconfig_path != kubeconfig:
        pytest.skip("Prometheus is started in local clusters only")
    return cluster


@pytest.fixture
async def prometheus(local: Cluster) -> AsyncIterator[Prometheus]:
    asked = Prometheus(await asyncio.to_thread(local.prometheus), request_seconds=5)
    yield asked
    await asked.close()


@pytest.fixture
async def miner(local: Cluster) -> AsyncIterator[tuple[Metrics, str, int]]:
    """The miner's metrics, and where they are served."""
    metrics = Metrics()
    host = str(local.network.host)

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    assert runner.addresses
    yield metrics, host, runner.addresses[0][1]
    await runner.cleanup()


def pod(port: int) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "clinic-miner-0",
            "labels": {
                "app.kubernetes.io/part-of": "bettertherapy", "app.kubernetes.io/name": "miner",
                "bettertherapy.io/pool": "clinic",
            },
        },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "miner", "image": "x", "ports": [{"name": "metrics", "containerPort": port}]}],
        },
    }  # fmt: skip


def answered(metrics: Metrics, version: str, seconds: float, *, requests: int, code: str = "200") -> None:
    for _ in range(requests):
        metrics.count(TWIN, version, code)
        metrics.series(TWIN, version).request_seconds.observe(seconds)


async def test_versions_are_told_apart_in_errors_and_latency(
    kubectl: Kubectl, namespace: str, prometheus: Prometheus, miner: tuple[Metrics, str, int]
) -> None:
    metrics, host, port = miner
    metrics.pods_ready.set(1)
    own = PodFacts(name="clinic-miner-0", uid="u", component="miner", ready=True, leaving=False)
    other = PodFacts(name="other-miner-0", uid="v", component="miner", ready=True, leaving=False)

    async def outlook(of: PodFacts = own) -> Analysis:
        trial = Trial(twin=TWIN, canary=CANARY, stable=STABLE)
        found = await measure(prometheus, [trial], window_seconds=120, matchers=f'namespace="{namespace}"')
        return assess(found if isinstance(found, str) else found[trial], LIMITS, miners=[of])

    async def until(found: Callable[[Analysis], bool]) -> Analysis:
        deadline = asyncio.get_running_loop().time() + SECONDS
        last = await outlook()
        while not found(last):
            assert asyncio.get_running_loop().time() < deadline, last
            await asyncio.sleep(0.5)
            last = await outlook()
        return last

    assert (await outlook()).reason == "MetricsStale"
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod(port)))
    status = {"status": {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]}}
    kubectl(
        "patch", "pod", "clinic-miner-0", "-n", namespace, "--subresource=status", "--type=merge", "-p",
        json.dumps(status),
    )  # fmt: skip

    answered(metrics, STABLE, 0.3, requests=1)
    assert (await until(lambda found: found.outlook is Outlook.AWAITING)).reason == "AwaitingTraffic"
    assert (await outlook(other)).reason == "MetricsStale"

    # The version that serves is read as an increase: it takes two samples.
    async def two_scrapes() -> bool:
        promql = f'min(rate(bettertherapy_miner_requests_total{{namespace="{namespace}",version="{STABLE}"}}[120s]))'
        return any(sample.value > 0 for sample in await prometheus.query(promql))

    while not await two_scrapes():
        answered(metrics, STABLE, 0.3, requests=20)
        await asyncio.sleep(0.5)
    answered(metrics, CANARY, 0.3, requests=25)
    good = await until(lambda found: found.reason == "WithinLimits" and "against" in found.message)
    assert "0 of 25 requests failed" in good.message
    assert "95% answered within" in good.message

    answered(metrics, CANARY, 0.3, requests=5, code="503")
    worse = await until(lambda found: found.outlook is Outlook.WORSE)
    assert (worse.reason, "5 of 30 requests failed (16.67%" in worse.message) == ("ErrorRate", True)

    answered(metrics, CANARY, 4.0, requests=970)
    slow = await until(lambda found: found.reason == "Latency")
    assert slow.outlook is Outlook.WORSE
    assert "5 of 1000 requests failed (0.50%" in slow.message

    # Whoever takes the ratings counts them; here it is the same process.
    ratings = Counter(RATINGS, "Ratings.", ("twin", "version", "rating"), registry=metrics.registry)
    for version, rating in ((STABLE, "5"), (CANARY, "2")):
        ratings.labels(TWIN, version, rating).inc(30)
    disliked = await until(lambda found: found.reason == "Rating")
    assert disliked.outlook is Outlook.WORSE
    assert "rated 2.0 of 5 by 30 against 5.0 by 30" in disliked.message

    # A pod that is gone has no fresh figures; its last ones are not read as good ones.
    kubectl("delete", "pod", "clinic-miner-0", "-n", namespace, "--grace-period=0", "--force")
    assert (await until(lambda found: found.reason == "MetricsStale")).outlook is Outlook.UNKNOWN


async def test_prometheus_answers_for_pods_and_this_machine_at_one_address(local: Cluster) -> None:
    url = await asyncio.to_thread(local.prometheus)
    assert url == f"http://{local.network.node}:9090"
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/targets?state=active") as response:
        assert response.status == 200
