"""Progress as the API server gets it, from a server that answers like one."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bettertherapy_api.run_progress import PROGRESS_KEY, REVIEW_KEY, Review, RunProgress, RunStage
from neurons.trainer.progress import FIELD_MANAGER, Progress, Target

TARGET = Target(namespace="clinic", configmap="night-1-progress")


class Server:
    """Takes server-side applies; fails as long as it is told to."""

    def __init__(self) -> None:
        self.applied: list[dict[str, str]] = []
        self.failures = 0

    async def patch(self, request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/clinic/configmaps/night-1-progress"
        assert request.query["fieldManager"] == FIELD_MANAGER
        if self.failures:
            self.failures -= 1
            return web.json_response({"kind": "Status", "reason": "InternalError", "message": "down"}, status=500)
        document: dict[str, Any] = json.loads(await request.text())
        self.applied.append(document["data"])
        return web.json_response({"kind": "PartialObjectMetadata"})


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    one = Server()
    app = web.Application()
    app.router.add_patch("/{path:.*}", one.patch)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setitem(os.environ, "KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield one
    await runner.cleanup()


async def told(progress: Progress) -> None:
    """Tell a run's story in a thread, as the trainer does, and leave."""

    def story() -> None:
        with progress:
            progress.stage(RunStage.TRAIN, done=1, of=2, step=1, steps=2, loss_milli=2100)
            progress.attach({REVIEW_KEY: Review().to_json()})
            progress.stage(RunStage.DONE)

    await asyncio.to_thread(story)


async def test_the_last_state_is_always_written(server: Server) -> None:
    await told(Progress(attempt="uid-1", target=TARGET, pause_seconds=0.05))
    last = RunProgress.model_validate_json(server.applied[-1][PROGRESS_KEY])
    assert (last.attempt, last.stage, last.progress_percent, last.loss_milli) == ("uid-1", RunStage.DONE, 100, 2100)
    assert REVIEW_KEY in server.applied[-1]


async def test_a_new_stage_is_written_at_once_and_the_steps_in_between_are_not(server: Server) -> None:
    def stages() -> list[RunStage]:
        return [RunProgress.model_validate_json(each[PROGRESS_KEY]).stage for each in server.applied]

    async def come_to(stage: RunStage) -> None:
        async with asyncio.timeout(5):
            while stage not in stages():
                await asyncio.sleep(0.01)

    progress = Progress(attempt="uid-1", target=TARGET, pause_seconds=60)
    with progress:
        await come_to(RunStage.DATA)
        for stage in (RunStage.TRAIN, RunStage.PUBLISH):
            progress.stage(stage)
            await come_to(stage)
            for step in range(20):
                progress.stage(stage, done=step, of=20, step=step)
                await asyncio.sleep(0.01)
        assert stages() == [RunStage.DATA, RunStage.TRAIN, RunStage.PUBLISH]
        begun = time.monotonic()
        await asyncio.to_thread(progress.__exit__)
    assert time.monotonic() - begun < 5, "the end does not wait for the pause"
    assert RunProgress.model_validate_json(server.applied[-1][PROGRESS_KEY]).step == 19


def test_the_steps_of_a_stage_are_written_every_five_seconds() -> None:
    assert Progress(attempt="", target=None)._pause == 5


async def test_a_server_that_fails_is_asked_again(server: Server) -> None:
    server.failures = 2
    await told(Progress(attempt="uid-1", target=TARGET, pause_seconds=0.05))
    assert RunProgress.model_validate_json(server.applied[-1][PROGRESS_KEY]).stage is RunStage.DONE


async def test_without_a_cluster_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    progress = Progress(attempt="uid-1", target=TARGET)
    await told(progress)
    assert progress.document.stage is RunStage.DONE


def test_the_percentage_grows_over_the_stages() -> None:
    progress = Progress(attempt="", target=None)
    seen = []
    for stage in RunStage:
        for done in (0, 1, 2):
            progress.stage(stage, done=done, of=2)
            seen.append(progress.document.progress_percent)
    assert seen == sorted(seen)
    assert seen[-1] == 100
