"""Fetches that run side by side can't together overfill a disk."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from neurons.store import NoSpace, adapters, build_manifest, fetch_adapter, publish_adapter
from neurons.store.space import SPARE_BYTES, reserved

from .conftest import BASE, write_peft_folder

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk with a little room, which stays as it is: bytes free, in a list of one."""
    free = [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - free[0], free[0]))
    return free


def test_what_is_promised_is_not_promised_again(disk: list[int], tmp_path: Path) -> None:
    disk[0] = 1000 + SPARE_BYTES
    with reserved(tmp_path, 600):
        with pytest.raises(NoSpace, match="600 of them promised"), reserved(tmp_path, 600):
            pass
        with reserved(tmp_path, 400):
            pass
    with reserved(tmp_path, 1000):
        pass


def test_what_is_written_counts_no_longer(disk: list[int], tmp_path: Path) -> None:
    disk[0] = 1000 + SPARE_BYTES
    with reserved(tmp_path, 600) as room:
        room.wrote(600)
        disk[0] = 400 + SPARE_BYTES
        with reserved(tmp_path, 400):
            pass


def test_a_promise_ends_with_an_error(disk: list[int], tmp_path: Path) -> None:
    disk[0] = 1000 + SPARE_BYTES
    with pytest.raises(RuntimeError), reserved(tmp_path, 1000):
        raise RuntimeError
    with reserved(tmp_path, 1000):
        pass


def hold(root: Path, held: object, release: object) -> None:
    with reserved(root, 600):
        held.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", ["lets go", "is killed"])
def test_what_another_pod_is_promised_counts_until_it_lets_go_or_is_killed(
    end: str, disk: list[int], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    disk[0] = 1000 + SPARE_BYTES
    with pytest.raises(NoSpace, match="600 of them promised to other downloads"), reserved(tmp_path, 600):
        pass
    if end == "is killed":
        other.kill()
    else:
        release.set()
    other.join(60)
    with reserved(tmp_path, 1000):
        pass


def test_a_volume_has_no_more_room_than_its_size_whatever_the_disk_has(disk: list[int], tmp_path: Path) -> None:
    disk[0] = 10**9
    (tmp_path / "there").write_bytes(b"x" * 100_000)
    with pytest.raises(NoSpace), reserved(tmp_path, 100_000, at_most=150_000, spare=0):
        pass
    with reserved(tmp_path, 10_000, at_most=150_000, spare=0):
        pass


def test_room_that_lacks_is_asked_for_once_and_exactly(disk: list[int], tmp_path: Path) -> None:
    asked: list[int] = []

    def evict(lacking: int) -> None:
        asked.append(lacking)
        disk[0] += lacking

    disk[0] = 400 + SPARE_BYTES
    with reserved(tmp_path, 300, evict=evict), reserved(tmp_path, 300, evict=evict):
        pass
    assert asked == [200]


async def test_of_many_fetches_only_those_that_fit_together_begin(
    disk: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for seed in range(6):
        folder = write_peft_folder(tmp_path / f"trained-{seed}", seed=seed)
        manifest = build_manifest(folder, base_model=BASE)
        uri = await publish_adapter(folder, f"file://{tmp_path}/store", "dr-who", manifest)
        found.append((uri, "sha256:" + uri.rsplit("/", 1)[-1]))
    size = sum(entry.size for entry in manifest.files)
    disk[0] = 2 * size + size // 2 + SPARE_BYTES
    fetch_file, begun, go_on = adapters._fetch_file, set(), asyncio.Event()

    async def slowly(location: object, entry: object, target: Path, room: object) -> None:
        begun.add(target.parent)
        await go_on.wait()
        await fetch_file(location, entry, target, room)  # type: ignore[arg-type]

    monkeypatch.setattr(adapters, "_fetch_file", slowly)
    pod = tmp_path / "pod"
    tasks = [asyncio.create_task(fetch_adapter(uri, digest, pod / digest)) for uri, digest in found]
    async with asyncio.timeout(20):
        while sum(task.done() for task in tasks) < 4:
            await asyncio.sleep(0.01)
    assert len(begun) == 2
    go_on.set()
    await asyncio.wait(tasks)
    refused = [task.exception() for task in tasks if task.exception() is not None]
    assert len(refused) == 4
    assert all(isinstance(error, NoSpace) and error.retryable for error in refused)


async def test_what_broke_off_and_nobody_wants_any_more_makes_room(
    disk: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_peft_folder(tmp_path / "trained")
    manifest = build_manifest(folder, base_model=BASE)
    uri = await publish_adapter(folder, f"file://{tmp_path}/store", "dr-who", manifest)
    pod = tmp_path / "pod"
    left = pod / "dr-no" / ".old.part"
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(10**9, 0, SPARE_BYTES + (0 if left.exists() else 10**8))
    )
    digest = "sha256:" + uri.rsplit("/", 1)[-1]
    await fetch_adapter(uri, digest, pod / "dr-who" / "a", volume=pod)
    assert not left.exists()
