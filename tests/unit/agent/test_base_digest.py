"""The base model's digest is reported as it was hashed for this pod, and not at all where nobody can vouch for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from neurons.models.__main__ import main
from neurons.models.cache import make_record
from neurons.store.model_record import MEASURED_FILE, ModelRecord, write_measured
from tests.unit.agent.pod import Pod, running_pod, until
from tests.unit.models.conftest import write_model


def said(pod: Pod) -> str | None:
    return pod.reports[-1].engine.base_digest if pod.reports else None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def fetched(model: Path, dest: Path, *arguments: str) -> Path:
    """Do as the pod's first container; return where the engine finds the model."""
    run = ["fetch", f"--uri=file://{model}", "--name=m", f"--dest={dest}", *arguments]
    assert main(run, termination_log=dest / "log") == 0
    return dest / "current"


async def test_what_was_hashed_is_reported_until_the_files_are_others(model: Path, tmp_path: Path) -> None:
    digest = make_record(model, name="m", uri="file:///m", revision=None).digest
    link = await asyncio.to_thread(fetched, model, tmp_path / "models", f"--revision={digest}")
    async with running_pod(tmp_path / "pod", base_model_dir=link) as pod:
        await until(lambda: said(pod) == digest)
        weights = model / "model.safetensors"
        os.utime(weights, ns=(1, 1))
        await pod.engine.restart()
        await until(lambda: pod.agent.base._epoch == pod.agent.monitor.epoch and said(pod) is None)


@pytest.mark.parametrize("note", ["none", "junk"])
async def test_nobody_hashed_it_so_nothing_is_said(model: Path, tmp_path: Path, note: str) -> None:
    link = await asyncio.to_thread(fetched, model, tmp_path / "models")
    assert not (tmp_path / "models" / MEASURED_FILE).exists()
    if note == "junk":
        (tmp_path / "models" / MEASURED_FILE).write_text("{")
    async with running_pod(tmp_path / "pod", base_model_dir=link) as pod:
        await until(lambda: pod.agent.base._epoch == pod.agent.monitor.epoch)
        assert pod.agent.report().engine.base_digest is None


def test_a_model_that_is_fetched_anew_without_a_digest_leaves_no_old_note(model: Path, tmp_path: Path) -> None:
    old = ModelRecord(name="m", uri="file:///old", digest="sha256:" + "0" * 64, files=())
    (tmp_path / "models").mkdir()
    write_measured(old, tmp_path / "models" / "current")
    fetched(model, tmp_path / "models")
    assert not (tmp_path / "models" / MEASURED_FILE).exists()
