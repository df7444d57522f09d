"""When the pod may take traffic."""

from __future__ import annotations

import time
from pathlib import Path

from aiohttp import ClientConnectionError

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import AdapterState
from neurons.store import StoreUnreachable, fetch_adapter
from tests.unit.agent.pod import Pod, running_pod, until


async def test_not_before_the_first_routing(tmp_path: Path) -> None:
    async with running_pod(tmp_path, table=False) as pod:
        await until(lambda: pod.agent.monitor.up)
        status, text = await pod.get("/readyz")
        assert (status, text) == (503, "no routing yet\n")
        pod.tables.write()
        await until(lambda: pod.agent.ready)


async def test_not_before_the_adapters_of_the_start_are_settled(tmp_path: Path) -> None:
    async with running_pod(tmp_path, table=False) as pod:
        pod.engine.knobs.load_seconds = 0.4
        good, bad = pod.adapter("good"), pod.adapter("bad", rank=64)
        pod.tables.write(good, bad)
        await pod.failed(bad)
        status, text = await pod.get("/readyz")
        assert status == 503
        assert good.name in text
        await pod.verified(good)
        await until(lambda: pod.agent.ready)  # after a look at the base model beside what came
        assert (await pod.get("/readyz"))[0] == 200


async def test_a_twin_added_later_does_not_take_the_pod_out(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.engine.knobs.load_seconds = 0.5
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await until(lambda: (r := pod.state(adapter)) is not None and r.state is AdapterState.LOADING)
    assert pod.agent.ready
    assert all(report.ready for report in pod.reports[1:])


async def test_a_new_pod_waits_for_a_store_that_gives_it_nothing(tmp_path: Path) -> None:
    """It must not replace a pod that has everything."""
    down = True

    async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
        if down:
            raise StoreUnreachable("no answer")
        return await fetch_adapter(uri, digest, destination)

    async with Pod(tmp_path, settle_seconds=0.0) as pod:
        adapter = pod.adapter("dr")
        async with pod.engine, pod.new_agent(fetch=fetch):
            pod.tables.write(adapter)
            await pod.failed(adapter)
            assert not pod.agent.ready
            down = False
            await until(lambda: pod.agent.ready)


async def test_one_unreachable_store_does_not_hold_the_others_for_ever(tmp_path: Path) -> None:
    async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
        if "lost" in uri:
            raise StoreUnreachable("no answer")
        return await fetch_adapter(uri, digest, destination)

    async with Pod(tmp_path, settle_seconds=0.3) as pod:
        lost, good = pod.adapter("lost"), pod.adapter("good")
        async with pod.engine, pod.new_agent(fetch=fetch):
            pod.tables.write(lost, good)
            await pod.verified(good)
            await until(lambda: pod.agent.ready)


async def test_the_api_servers_absence_stops_nothing(tmp_path: Path) -> None:
    async with running_pod(tmp_path, table=False) as pod:
        pod.api_error = ClientConnectionError("refused")
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        await until(lambda: pod.agent.ready)
        assert (await pod.answer(adapter.name))[0] == 200
        assert not pod.reports
        pod.api_error = None
        await until(lambda: bool(pod.reports) and adapter.name in pod.reports[-1].adapters)


async def test_the_report_tells_slots_and_generation(tmp_path: Path) -> None:
    began = time.monotonic()
    async with running_pod(tmp_path) as pod:
        await until(lambda: pod.agent.ready)
        report = pod.agent.report()
        assert (report.pod.name, report.pod.uid) == ("pod-1", "uid-1")
        assert report.observed_generation == 1
        assert report.engine.version == "0.32.0"
        assert report.engine.max_model_length == 1024
        assert report.slots is not None
        assert (report.slots.used, report.slots.total) == (0, 4)
        assert report.cold_start_seconds is not None
        assert 0 <= report.cold_start_seconds <= round(time.monotonic() - began)


async def test_health_does_not_depend_on_the_engine(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        assert (await pod.get("/healthz"))[0] == 200
