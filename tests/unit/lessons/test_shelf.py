"""Lessons in a store: the newest counts, what was taken back is gone, and a name's former owner is not its present."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurons.lessons import LessonsError
from neurons.lessons.shelf import fetch, look, publish
from tests.unit.lessons.test_file import LIKED, TAUGHT, file


async def test_published_lessons_are_found(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/dr-gurung"
    assert await look(uri) is None
    first = await publish(uri, file(TAUGHT))
    pointer = await publish(uri, file(TAUGHT, LIKED))
    assert await look(uri) == pointer
    data, read = await fetch(uri, pointer)
    assert set(read.lessons) == {TAUGHT, LIKED}
    names = sorted(path.name for path in (tmp_path / "dr-gurung" / "lessons").iterdir())
    assert names == sorted([f"{pointer.digest.removeprefix('sha256:')}.jsonl", "current.json"])
    assert first.digest != pointer.digest
    assert data


async def test_nobody_writes_over_another_twins_lessons(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/dr-gurung"
    await publish(uri, file(TAUGHT))
    with pytest.raises(LessonsError, match="of the twin with UID uid-1"):
        await publish(uri, file(TAUGHT, uid="uid-2"))
    before = await look(uri)
    assert before is not None
    assert before.twin_uid == "uid-1"


async def test_an_older_revision_does_not_come_back(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/dr-gurung"
    await publish(uri, file(TAUGHT))
    older = file(LIKED)
    with pytest.raises(LessonsError, match="newer"):
        await publish(uri, type(older)(older.twin, older.twin_uid, 6, older.lessons))
