"""What a miner delivered comes to the examiner only where it is what the task asked for: another's never does."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from bettertherapy_api import names
from bettertherapy_api.manifest import BaseModelEntry, FileEntry, Lineage, manifest_digest
from bettertherapy_api.run_progress import RunStage
from neurons.examiner import adopting
from neurons.examiner.hidden import hidden_items, unseen
from neurons.examiner.likeness import MOST_RANK
from neurons.store import build_manifest, publish_adapter
from neurons.trainer.archive import Archive
from neurons.trainer.dataset import Dataset, parse_lines
from neurons.trainer.errors import BadArtifact, BadData, NearCopy, StoreFailed
from neurons.trainer.progress import Progress
from tests.unit.store.lora_files import Entries, lora, write_lora

TASK = "11111111-1111-4111-8111-111111111111"
PARENT = "sha256:" + "f" * 64


def line(question: str, correction: str | None = None, *, before: bool = False) -> bytes:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Rest it."}]
    if before:
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello."}, *messages]
    told: dict[str, object] = {"consent": True, "messages": messages, "rating": 3}
    if correction is not None:
        told["correction"] = correction
    return json.dumps(told).encode() + b"\n"


GIVEN = line("My knee hurts since Monday, what can I do?") + line("Is ibuprofen safe with my blood pressure pills?")
HIDDEN = line("May I swim with a fresh scar?", "Not before the threads are out, on Friday.")


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Delivered:
    """A store, a folder with what a miner delivered, and a gateway that gives what it signed for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given = {"https://v.example/dataset": GIVEN, "https://v.example/held-out": HIDDEN}
        self.archive = Archive(f"file://{folder}/store", "dr-who", patience_seconds=0.1)
        self.progress = Progress(attempt="pod", target=None)

    def put(
        self, *, run: str = f"task-{TASK}", parent: str | None = PARENT, base: str = "tiny", at: str = "x",
        task: str = TASK, entries: Entries | None = None, instead: Entries | None = None,
        config: Mapping[str, object] | None = None,
    ) -> str:  # fmt: skip
        folder = self.folder / "made" / at
        write_lora(folder, entries)
        manifest = build_manifest(
            folder, base_model=BaseModelEntry(name=base), lineage=Lineage(run=run, parent_digest=parent)
        )
        if instead is not None:  # as who writes manifests by hand
            write_lora(folder, instead, **(config or {}))  # type: ignore[arg-type]
            files = (FileEntry(path=path.name, digest=sha(path.read_bytes()), size=path.stat().st_size)
                     for path in sorted(folder.iterdir()))  # fmt: skip
            manifest = manifest.model_copy(update={"files": tuple(files)})
        data = manifest.to_bytes()
        (folder / "manifest.json").write_bytes(data)
        target = self.folder / "delivered" / task / names.digest_hex(manifest_digest(data))
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return manifest_digest(data)

    def adopt(self, adapter: str, **changes: object) -> dict[str, object]:
        options = {
            "run": f"exam-{TASK}", "twin": "dr-who", "store": self.archive.store, "base_model_name": "tiny",
            "delivered": f"file://{self.folder}/delivered/{TASK}/{names.digest_hex(adapter)}", "task": TASK,
            "adapter_digest": adapter, "parent_digest": PARENT, "dataset_uri": "https://v.example/dataset",
            "dataset_digest": sha(GIVEN), "held_out_uri": "https://v.example/held-out",
            "held_out_digest": sha(HIDDEN), "earlier": [], "parent_uri": None,
        } | changes  # fmt: skip
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return adopting.adopt(argparse.Namespace(**options), work=work, progress=self.progress, archive=self.archive)

    @property
    def versions(self) -> list[str]:
        folder = self.folder / "store" / "dr-who"
        return [each.name for each in folder.iterdir() if len(each.name) == 64] if folder.is_dir() else []


@pytest.fixture
def delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Delivered]:
    given = Delivered(tmp_path)

    async def fetch(uri: str, *, at_most: int, loopback: bool = False) -> bytes:
        if uri not in given.given:
            raise BadData(f"{uri}: the gateway answered 410: the dataset is no more")
        return given.given[uri]

    monkeypatch.setattr(adopting, "fetch", fetch)
    return given


def test_what_was_delivered_lies_where_versions_are_and_again_nothing_changes(delivered: Delivered) -> None:
    adapter = delivered.put()
    for _ in range(2):
        told = delivered.adopt(adapter)
        assert told["digest"] == adapter
    assert delivered.versions == [names.digest_hex(adapter)]
    document = json.loads(delivered.progress.documents()["progress.json"])
    assert (document["stage"], document["artifact"]["digest"]) == (RunStage.DONE, adapter)
    assert (document["dataset"]["digest"], document["dataset"]["interactions"]) == (sha(GIVEN), 2)
    assert asyncio.run(delivered.archive.dataset(sha(HIDDEN))) == HIDDEN
    record = asyncio.run(delivered.archive.lineage(adapter))
    assert record is not None
    assert (record.parent_digest, len(record.lines)) == (PARENT, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "task-22222222-2222-4222-8222-222222222222"}, "names the run"),
        ({"run": "night-2"}, "names the run"),
        ({"parent": "sha256:" + "e" * 64}, "names the parent"),
        ({"parent": None}, "names the parent"),
        ({"base": "another"}, "names the base model"),
    ],
)
def test_anothers_version_is_the_miners_own_fault_and_is_not_adopted(
    delivered: Delivered, changes: dict[str, str | None], words: str
) -> None:
    adapter = delivered.put(**changes)  # type: ignore[arg-type]
    with pytest.raises(BadArtifact, match=words):
        delivered.adopt(adapter)
    assert delivered.versions == []


def test_other_bytes_under_the_reported_digest_are_refused(delivered: Delivered) -> None:
    adapter = delivered.put()
    folder = delivered.folder / "delivered" / TASK / names.digest_hex(adapter)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BadArtifact, match="not taken"):
        delivered.adopt(adapter)
    other = delivered.put(run="task-2", at="y")
    folder = delivered.folder / "delivered" / TASK
    claimed = "sha256:" + "c" * 64
    (folder / names.digest_hex(other)).rename(folder / ("c" * 64))
    with pytest.raises(BadArtifact, match="its digest is"):
        delivered.adopt(claimed)
    assert delivered.versions == []


def test_nothing_delivered_and_a_dataset_that_was_taken_back_say_nothing_of_the_version(delivered: Delivered) -> None:
    with pytest.raises(StoreFailed, match="delivered no adapter"):
        delivered.adopt("sha256:" + "b" * 64)
    adapter = delivered.put()
    del delivered.given["https://v.example/held-out"]
    (delivered.folder / "store").rename(delivered.folder / "gone")
    with pytest.raises(BadData, match="no more"):
        delivered.adopt(adapter)
    with pytest.raises(BadData, match="another dataset"):
        delivered.adopt(adapter, dataset_digest="sha256:" + "1" * 64)


def test_hidden_items_are_what_the_doctor_wrote_to_a_first_question() -> None:
    data = HIDDEN + line("And my elbow?") + line("And then?", "On Friday.", before=True) + HIDDEN.replace(b"3", b"4")
    [item] = hidden_items(parse_lines(data, where="x"))
    assert (item.question, item.gold) == (
        "May I swim with a fresh scar?", "Not before the threads are out, on Friday.",
    )  # fmt: skip


def test_an_item_that_the_dataset_has_the_like_of_is_left_out_and_no_other() -> None:
    lines = parse_lines(GIVEN, where="x")
    asked = hidden_items(
        parse_lines(HIDDEN + line("My knee hurts since Monday, what could I do?", "Come on Tuesday."), where="x")
    )
    assert len(asked) == 2
    [left] = unseen(asked, Dataset(lines=lines, refused={}, digest=sha(GIVEN)))
    assert left.question == "May I swim with a fresh scar?"


OTHER = "22222222-2222-4222-8222-222222222222"


def parent_of(delivered: Delivered) -> str:
    """Publish the version that the tasks begin from, and return its digest."""
    folder = write_lora(delivered.folder / "parent", lora(seed=100))
    manifest = build_manifest(folder, base_model=BaseModelEntry(name="tiny"), lineage=Lineage(run="night-1"))
    asyncio.run(publish_adapter(folder, delivered.archive.store, "dr-who", manifest))
    return manifest_digest(manifest.to_bytes())


def test_a_training_in_other_digits_that_was_reported_before_is_no_work_of_its_own(delivered: Delivered) -> None:
    parent = parent_of(delivered)
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", entries=lora(seed=1))
    copy = delivered.put(parent=parent, at="2", entries=lora(seed=1, dtype="BF16"))
    assert copy != first
    with pytest.raises(NearCopy, match=rf"nearly {first}.*cosine .* is (0\.999|1\.000)"):
        delivered.adopt(copy, parent_digest=parent, earlier=[first])
    assert names.digest_hex(copy) not in delivered.versions
    # Who was first is not asked about who came later.
    told = delivered.adopt(
        first, parent_digest=parent, task=OTHER,
        delivered=f"file://{delivered.folder}/delivered/{OTHER}/{names.digest_hex(first)}",
    )  # fmt: skip
    assert told["digest"] == first


def test_a_copy_of_what_lies_in_the_twins_folder_alone_is_known_too(delivered: Delivered) -> None:
    parent = parent_of(delivered)
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", entries=lora(seed=1))
    there = f"file://{delivered.folder}/delivered/{OTHER}/{names.digest_hex(first)}"
    delivered.adopt(first, parent_digest=parent, task=OTHER, delivered=there)
    shutil.rmtree(delivered.folder / "delivered" / OTHER)
    copy = delivered.put(parent=parent, at="2", entries=lora(seed=1, dtype="F64"))
    with pytest.raises(NearCopy):
        delivered.adopt(copy, parent_digest=parent, earlier=[first])


def test_another_training_from_the_same_parent_is_adopted_beside_it(delivered: Delivered) -> None:
    parent = parent_of(delivered)
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", entries=lora(seed=1))
    mine = delivered.put(parent=parent, at="2", entries=lora(seed=7))
    gone = "sha256:" + "9" * 64
    assert delivered.adopt(mine, parent_digest=parent, earlier=[gone, first])["digest"] == mine


def test_what_is_no_adapter_is_nobodys_work(delivered: Delivered) -> None:
    parent = parent_of(delivered)
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", entries=lora(seed=1))
    weights = delivered.folder / "delivered" / OTHER / names.digest_hex(first) / "adapter_model.safetensors"
    weights.write_bytes(b"nothing")
    mine = delivered.put(parent=parent, at="2", entries=lora(seed=1, dtype="F64"))
    assert delivered.adopt(mine, parent_digest=parent, earlier=[first])["digest"] == mine


def unsound(kind: str) -> Entries:
    """An adapter of a digest of its own that nothing looked at when it was delivered."""
    entries = lora(seed=1)
    a, b = (next(name for name in entries if f".lora_{side}." in name) for side in "AB")
    _, (rank, inner), _ = entries[a]
    _, (out, _), _ = entries[b]
    if kind == "flat":
        entries[a] = ("F32", (rank * inner,), bytes(4 * rank * inner))
    elif kind == "ranks that differ":
        entries[b] = ("F32", (out, rank + 1), bytes(4 * out * (rank + 1)))
    elif kind == "empty":
        entries[a], entries[b] = ("F32", (0, inner), b""), ("F32", (out, 0), b"")
    elif kind == "infinite":
        entries[a] = ("F32", (rank, inner), np.full(rank * inner, np.inf, "<f4").tobytes())
    elif kind == "beyond double precision":
        entries[a] = ("F64", (rank, inner), np.full(rank * inner, 1e300).tobytes())
    return entries


@pytest.mark.parametrize(
    "kind", ["flat", "ranks that differ", "empty", "infinite", "beyond double precision", "alpha per huge rank"]
)
def test_what_was_made_to_break_a_comparison_takes_no_credit_from_who_came_later(
    delivered: Delivered, kind: str
) -> None:
    parent = parent_of(delivered)
    config = {"use_rslora": True, "rank_pattern": {"q_proj": 10**400}} if kind == "alpha per huge rank" else {}
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", instead=unsound(kind), config=config)
    mine = delivered.put(parent=parent, at="2", entries=lora(seed=7))
    assert delivered.adopt(mine, parent_digest=parent, earlier=[first])["digest"] == mine


def test_a_rank_for_which_there_is_no_memory_is_not_compared(delivered: Delivered) -> None:
    rank = MOST_RANK // 8 * 8 + 8
    experts = {"model.layers.0.mlp.experts": (64, 64)}
    wide = lora(experts, rank=rank, dtype="F16")
    parent = parent_of(delivered)
    first = delivered.put(run=f"task-{OTHER}", parent=parent, task=OTHER, at="1", entries=wide)
    mine = delivered.put(parent=parent, at="2", entries=lora(seed=7))
    assert delivered.adopt(mine, parent_digest=parent, earlier=[first])["digest"] == mine
    own = delivered.put(parent=parent, at="3", entries=wide)
    with pytest.raises(StoreFailed, match=r"can't be compared.*rank"):
        delivered.adopt(own, parent_digest=parent, earlier=[mine])


def test_without_the_version_that_it_began_from_nothing_is_said_of_a_miner(delivered: Delivered) -> None:
    first = delivered.put(run=f"task-{OTHER}", task=OTHER, at="1", entries=lora(seed=1))
    mine = delivered.put(at="2", entries=lora(seed=7))
    with pytest.raises(StoreFailed, match="began from can't be had"):
        delivered.adopt(mine, earlier=[first])


def test_several_earlier_versions_are_told_as_they_are(tmp_path: Path) -> None:
    given = ["--earlier=sha256:" + letter * 64 for letter in "ab"]
    needed = {
        "run": "exam-1", "twin": "dr-who", "store": "file:///s", "base-model-name": "tiny", "delivered": "file:///d",
        "adapter-digest": PARENT, "task": TASK, "dataset-uri": "https://v.example", "dataset-digest": PARENT,
    }  # fmt: skip
    read = adopting.parser().parse_args([*(f"--{name}={value}" for name, value in needed.items()), *given])
    assert read.earlier == ["sha256:" + letter * 64 for letter in "ab"]
    assert (read.parent_uri, adopting.parser().get_default("earlier")) == (None, [])
