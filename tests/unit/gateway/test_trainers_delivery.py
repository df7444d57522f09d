"""A trainer delivers a task's version to the very gateway that gave the dataset, and a delivery fails no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettertherapy_api import names
from bettertherapy_api.manifest import BaseModelEntry, Lineage, manifest_digest
from neurons.store import build_manifest, verify_folder
from neurons.trainer.delivery import NotDelivered, deliver
from tests.unit.gateway.test_task_desk import Desk, desk
from tests.unit.store.lora_files import write_lora


def made(folder: Path, task: str = "1") -> tuple[str, str]:
    write_lora(folder)
    lineage = Lineage(run=f"task-{task}")
    data = build_manifest(folder, base_model=BaseModelEntry(name="tiny"), lineage=lineage).to_bytes()
    (folder / "manifest.json").write_bytes(data)
    return f"file://{folder}", manifest_digest(data)


def taking(folder: Path) -> dict[str, str]:
    return {"deliveries": f"file://{folder}/delivered"}


async def sent(given: Desk, folder: Path, *, patience: float = 0.0, dataset: str | None = None) -> str:
    uri, digest = made(folder / "adapter", given.task.task_id)
    await deliver(uri, digest, dataset or given.task.dataset_uri, loopback=True, patience=patience)
    return digest


async def test_the_gateway_has_it_to_the_last_byte_and_another_attempt_sends_nothing_twice(tmp_path: Path) -> None:
    async with desk(tmp_path, settings=taking(tmp_path)) as given:
        await given.say("accepted")
        digest = await sent(given, tmp_path)
        folder = tmp_path / "delivered" / given.task.task_id / names.digest_hex(digest)
        verify_folder(folder, digest)
        before = {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}
        await sent(given, tmp_path)
        assert {each.name: each.stat().st_mtime_ns for each in folder.iterdir()} == before


async def test_it_waits_until_the_miner_has_said_that_it_took_the_task(tmp_path: Path) -> None:
    async with desk(tmp_path, settings=taking(tmp_path)) as given:
        with pytest.raises(NotDelivered, match="409") as caught:
            await sent(given, tmp_path)
        assert caught.value.again
        await given.say("accepted")
        await sent(given, tmp_path, patience=20.0)


async def test_what_it_says_holds_nothing_of_the_address(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        await given.say("accepted")
        with pytest.raises(NotDelivered, match="404") as caught:
            await sent(given, tmp_path)
        assert not caught.value.again
        assert "signature" not in str(caught.value)
        gone = given.task.dataset_uri.replace(given.running.url, "http://127.0.0.1:1")
        with pytest.raises(NotDelivered, match="can't be reached") as caught:
            await sent(given, tmp_path, dataset=gone)
        assert "signature" not in str(caught.value)


@pytest.mark.parametrize(
    "dataset", ["http://169.254.169.254/v1/tasks/11111111-1111-4111-8111-111111111111/dataset?x=1", "pvc://a/b"]
)
async def test_it_goes_to_no_address_of_the_nodes_and_to_no_store(tmp_path: Path, dataset: str) -> None:
    uri, digest = made(tmp_path / "adapter")
    with pytest.raises(NotDelivered) as caught:
        await deliver(uri, digest, dataset, patience=5.0)
    assert not caught.value.again
