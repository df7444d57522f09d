"""The agent keeps its twins' lessons for the miners, the last good ones while the store is away."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from bettertherapy_api.routing import TwinEntry
from neurons.agent.lessons import LessonKeeper
from neurons.lessons import LessonsFile
from neurons.lessons.shelf import publish
from tests.unit.lessons.test_file import LIKED, TAUGHT

TWIN = TwinEntry(name="dr-gurung")


def file(revision: int, *lessons: object, uid: str = "uid-1") -> LessonsFile:
    return LessonsFile("dr-gurung", uid, revision, tuple(lessons))  # type: ignore[arg-type]


@asynccontextmanager
async def keeping(tmp_path: Path, *, uid: str = "uid-1") -> AsyncIterator[LessonKeeper]:
    keeper = LessonKeeper(
        lambda: {uid: TWIN}, folder=tmp_path / "kept", store_uri=f"file://{tmp_path}/store", lap_seconds=0.01
    )
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(keeper: LessonKeeper, uid: str, revision: int | None) -> str:
    """Wait until the keeper says this revision of a twin's lessons; return their digest."""
    async with asyncio.timeout(10):
        while True:
            twins = orjson.loads(keeper.index())["twins"]
            entry = twins.get(uid, "unknown")
            if entry is None and revision is None:
                return ""
            if isinstance(entry, dict) and entry["revision"] == revision:
                return str(entry["digest"])
            await asyncio.sleep(0.01)


async def test_what_is_published_is_handed_on_and_what_is_taken_away_goes(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/dr-gurung"
    async with keeping(tmp_path) as keeper:
        await until(keeper, "uid-1", None)
        first = await publish(uri, file(1, TAUGHT))
        assert await until(keeper, "uid-1", 1) == first.digest
        data = keeper.file(first.digest)
        assert data is not None
        assert b"paracetamol" in data
        await publish(uri, file(2, TAUGHT, LIKED))
        await until(keeper, "uid-1", 2)
        assert keeper.file(first.digest) is None
        shutil.rmtree(tmp_path / "store" / "dr-gurung" / "lessons")
        await until(keeper, "uid-1", None)
        assert list((tmp_path / "kept").iterdir()) == []


async def test_another_uids_lessons_under_the_same_name_are_not_taken(tmp_path: Path) -> None:
    await publish(f"file://{tmp_path}/store/dr-gurung", file(1, TAUGHT, uid="uid-of-the-deleted"))
    async with keeping(tmp_path) as keeper:
        await until(keeper, "uid-1", None)


async def test_damage_leaves_the_last_good_ones_also_after_a_restart(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/dr-gurung"
    pointer = await publish(uri, file(1, TAUGHT))
    async with keeping(tmp_path) as keeper:
        await until(keeper, "uid-1", 1)
    (tmp_path / "store" / "dr-gurung" / "lessons" / "current.json").write_bytes(b"nonsense")
    async with keeping(tmp_path) as keeper:
        assert await until(keeper, "uid-1", 1) == pointer.digest
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert keeper.file(pointer.digest) is not None
