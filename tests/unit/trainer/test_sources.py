from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer import dataset
from neurons.trainer.archive import Archive, LineageRecord
from neurons.trainer.errors import BadData
from neurons.trainer.sources import Found, Trained, find_lines, too_few, trained_before

PARENT = "sha256:" + "a" * 64


def line(question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Rest."}]
    return {"messages": messages, "consent": True, **fields}


def write(folder: Path, name: str, *lines: dict[str, Any]) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(each) + "\n" for each in lines).encode()
    (folder / name).write_bytes(data)
    return data


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(f"file://{tmp_path}/store", "dr-who", patience_seconds=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def found(data: Path, archive: Archive, before: Trained | None = None, digest: str | None = None) -> Found:
    return (await find_lines(f"file://{data}", digest, before=before or Trained(), archive=archive))[0]


async def test_a_folder_stands_for_all_its_files(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("a"), line("b"))
    write(data, "2.jsonl", line("b"), line("c", consent=False))
    write(data, "notes.txt")
    read = await found(data, archive)
    assert (len(read.lines), read.known, read.refused) == (2, 1, {"noConsent": 1})


async def test_however_lines_are_spread_over_files_the_dataset_is_the_same(data: Path, archive: Archive) -> None:
    write(data / "x", "1.jsonl", line("a"), line("b"))
    write(data / "y", "1.jsonl", line("b"))
    write(data / "y", "2.jsonl", line("a"))
    assert (await found(data / "x", archive)).data == (await found(data / "y", archive)).data


async def test_what_the_lineage_knows_is_left_out(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("a"))
    first = await found(data, archive)
    record = LineageRecord(
        digest=PARENT, dataset_digest=PARENT, run="r", seed=0, lines=tuple(each.digest for each in first.lines)
    )
    await archive.put_lineage(record)
    write(data, "2.jsonl", line("b"))
    before = await trained_before(archive, PARENT, dataset_digest=None)
    read = await found(data, archive, before)
    assert [each.messages[0].content for each in read.lines] == ["b"]


async def test_the_file_of_a_parent_without_lineage_is_known_by_its_digest(data: Path, archive: Archive) -> None:
    old = write(data, "1.jsonl", line("a"))
    write(data, "2.jsonl", line("b"))
    before = await trained_before(archive, PARENT, dataset_digest=digest_of(old))
    read, known = await find_lines(f"file://{data}", None, before=before, archive=archive)
    assert [each.messages[0].content for each in read.lines] == ["b"]
    assert len(known.lines) == 1


async def test_one_file_by_digest(data: Path, archive: Archive) -> None:
    content = write(data, "1.jsonl", line("a"))
    assert len((await found(data / "1.jsonl", archive, digest=digest_of(content))).lines) == 1
    with pytest.raises(BadData, match="expected"):
        await found(data / "1.jsonl", archive, digest=PARENT)


@pytest.mark.parametrize("files", [[], ["notes.txt"], ["1.jsonl", "2.jsonl"]])
async def test_a_folder_without_a_line_or_that_nobody_made_yet_is_skipped(
    files: list[str], data: Path, archive: Archive
) -> None:
    for name in files:
        write(data, name)
    read = await found(data, archive)
    assert (read.lines, read.known, read.refused) == ((), 0, {})
    assert too_few(read, 1) == "0 new interactions, 1 are needed: there is no line in the dataset's folder yet."


async def test_a_file_that_was_named_must_be_there_and_hold_something(data: Path, archive: Archive) -> None:
    with pytest.raises(BadData, match="there is no folder"):
        await found(data / "1.jsonl", archive)
    write(data, "1.jsonl")
    with pytest.raises(BadData, match="there is no such file"):
        await found(data / "2.jsonl", archive)
    for digest in (None, digest_of(b"")):
        with pytest.raises(BadData, match="the dataset is empty"):
            await found(data / "1.jsonl", archive, digest=digest)


@pytest.mark.parametrize("uri", ["pvc://no-such-claim/interactions", "ftp://somewhere/else"])
async def test_a_folder_that_can_not_be_is_no_folder_that_is_empty(uri: str, archive: Archive) -> None:
    with pytest.raises(BadData):
        await find_lines(uri, None, before=Trained(), archive=archive)


async def test_an_oversized_dataset(data: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data, "1.jsonl", line("a"))
    monkeypatch.setattr(dataset, "MAX_DATASET_BYTES", 10)
    with pytest.raises(BadData, match="at most 10"):
        await found(data, archive)


async def test_a_malformed_line_names_its_file(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("a"), {"messages": []})
    with pytest.raises(BadData, match=r"1\.jsonl, line 2"):
        await found(data, archive)


def test_too_few_says_what_became_of_the_rest() -> None:
    assert too_few(Found(lines=(), refused={"noConsent": 2}, known=3), 1) == (
        "0 new interactions, 1 are needed (3 known already, 2 refused: noConsent)."
    )


async def test_a_dataset_is_published_under_its_digest(archive: Archive, tmp_path: Path) -> None:
    uri, digest = await archive.put_dataset(b"x\n")
    stored = tmp_path / "store" / uri.partition("/store/")[2]
    assert stored.read_bytes() == b"x\n"
    assert await archive.dataset(digest) == b"x\n"
    stored.write_bytes(b"y\n")
    assert await archive.dataset(digest) is None
