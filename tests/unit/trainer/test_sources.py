from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from bettertherapy_api.manifest import Lineage
from neurons.scoring.items import Gold, question_digest
from neurons.trainer import dataset, sources
from neurons.trainer import run as runs
from neurons.trainer.archive import Archive, LineageRecord, RunState
from neurons.trainer.arguments import parser
from neurons.trainer.dataset import Dataset
from neurons.trainer.errors import BadData, BadParent
from neurons.trainer.held_out import HeldOut
from neurons.trainer.lora import Trained as Adapted
from neurons.trainer.sources import Found, Trained, find_lines, too_few, trained_before
from neurons.trainer.tokens import Fit

PARENT = "sha256:" + "a" * 64
GRANDPARENT = "sha256:" + "b" * 64


def line(question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Rest."}]
    return {"messages": messages, "consent": True, **fields}


def asks(question: str, gold: str = "On Tuesday.") -> Gold:
    return Gold(id="item", kind="gold", question=question, gold=gold)


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
    before = await trained_before(archive, PARENT, lineage=None)
    read = await found(data, archive, before)
    assert [each.messages[0].content for each in read.lines] == ["b"]


async def test_the_file_of_a_parent_without_lineage_is_known_by_its_digest(data: Path, archive: Archive) -> None:
    old = write(data, "1.jsonl", line("a"))
    write(data, "2.jsonl", line("b"))
    before = await trained_before(archive, PARENT, lineage=Lineage(dataset_digest=digest_of(old)))
    read, known = await find_lines(f"file://{data}", None, before=before, archive=archive)
    assert [each.messages[0].content for each in read.lines] == ["b"]
    assert len(known.lines) == 1


def recorded(digest: str, *lines: str) -> LineageRecord:
    return LineageRecord(digest=digest, dataset_digest=digest, run="r", seed=0, lines=lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        recorded(PARENT, "a" * 32).model_dump_json().encode()[:-20],
        recorded(PARENT, "a" * 32).model_dump_json().replace('["', '[{"form": 2}, "').encode(),
        recorded(PARENT).model_dump_json().encode(),
        recorded(GRANDPARENT, "a" * 32).model_dump_json().encode(),
    ],
    ids=["empty", "nothing", "cut", "of a newer release", "without lines", "another's"],
)
async def test_a_lineage_that_can_not_be_read_is_not_taken_for_none(
    content: bytes, archive: Archive, tmp_path: Path
) -> None:
    file = tmp_path / "store" / "dr-who" / "lineage" / f"{'a' * 64}.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(BadParent, match=r"lineage/a{64}\.json.*learned twice"):
        await trained_before(archive, PARENT, lineage=Lineage(dataset_digest=PARENT, parent_digest=GRANDPARENT))


async def test_a_lineage_that_is_gone_is_made_again_from_the_dataset_and_the_parents(
    data: Path, archive: Archive
) -> None:
    write(data, "1.jsonl", line("a"), line("b"))
    old, new = (await found(data, archive)).lines
    await archive.put_lineage(recorded(GRANDPARENT, old.digest))
    _, digest = await archive.put_dataset(new.canonical() + b"\n")
    before = await trained_before(
        archive, PARENT, lineage=Lineage(dataset_digest=digest, parent_digest=GRANDPARENT, run="r")
    )
    assert before.lines == {old.digest, new.digest}
    assert (await found(data, archive, before)).lines == ()


@pytest.mark.parametrize("missing", ["the parent's", "the dataset", "the dataset of a first run"])
async def test_a_lineage_that_is_lost_holds_the_run_back(missing: str, archive: Archive) -> None:
    lineage = Lineage(dataset_digest=digest_of(b"x\n"), parent_digest=GRANDPARENT, run="night-1")
    if missing == "the parent's":
        await archive.put_dataset(b"x\n")
    elif missing == "the dataset":
        await archive.put_lineage(recorded(GRANDPARENT, "a" * 32))
    else:
        lineage = Lineage(dataset_digest=digest_of(b"x\n"), run="night-1")
        await archive.put_state("night-1", RunState(request="x"))
    with pytest.raises(BadParent, match=r"is gone.*learned twice"):
        await trained_before(archive, PARENT, lineage=lineage)


async def test_an_adapter_that_was_trained_elsewhere_has_nothing_to_lose(archive: Archive) -> None:
    lineage = Lineage(dataset_digest=PARENT, run="by-hand")
    assert await trained_before(archive, PARENT, lineage=lineage) == Trained(dataset_digest=PARENT)
    assert await trained_before(archive, PARENT, lineage=Lineage()) == Trained()


async def test_what_is_known_stays_known_when_one_file_is_trained_on_by_its_digest(
    data: Path, archive: Archive
) -> None:
    content = write(data, "1.jsonl", line("a"))
    write(data, "0.jsonl", line("b"))
    first, again = (await found(data, archive)).lines
    before = Trained(lines=frozenset({first.digest, again.digest}), questions=frozenset({"q"}))
    read, known = await find_lines(f"file://{data}/1.jsonl", digest_of(content), before=before, archive=archive)
    assert [each.messages[0].content for each in read.lines] == ["a"]
    assert known == before


async def test_one_file_by_digest(data: Path, archive: Archive) -> None:
    content = write(data, "1.jsonl", line("a"))
    assert len((await found(data / "1.jsonl", archive, digest=digest_of(content))).lines) == 1
    with pytest.raises(BadData, match="expected"):
        await found(data / "1.jsonl", archive, digest=PARENT)


@pytest.mark.parametrize("files", [[], [".keep"], ["1.jsonl", "2.jsonl"]])
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
    with pytest.raises(BadData, match="neither such a file nor such a folder"):
        await found(data / "1.json", archive)
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
    write(data, "1.jsonl", line("a"), {"message": []})
    with pytest.raises(BadData, match=r"1\.jsonl, line 2: `messages` is missing"):
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


async def test_files_that_are_passed_over_are_named(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("a"))
    for name in ("old.json", "2025.jsonl.gz", "DAY2.JSONL", "notes.txt", ".DS_Store"):
        write(data, name, line("b"))
    write(data / "january", "1.jsonl", line("c"))
    write(data / "january", "2.jsonl", line("d"))
    read = await found(data, archive)
    assert len(read.lines) == 1
    assert read.passed_over == ("2025.jsonl.gz", "DAY2.JSONL", "january/", "notes.txt", "old.json")


async def test_a_folder_of_which_nothing_is_read_says_what_lies_there(data: Path, archive: Archive) -> None:
    write(data, "DAY1.JSONL", line("a"))
    told = too_few(await found(data, archive), 1)
    assert told is not None
    assert told.endswith("only whole lines of *.jsonl in the folder itself are read: DAY1.JSONL.")


HALF = json.dumps(line("सिउँदो दुख्छ, what now?"), ensure_ascii=False).encode()


@pytest.mark.parametrize("end", [1, 12, HALF.index("दो".encode()) + 1, -1])
async def test_a_last_line_that_is_still_being_written_is_left_to_the_next_run(
    end: int, data: Path, archive: Archive
) -> None:
    whole = write(data, "1.jsonl", line("a"), line("b"))
    (data / "1.jsonl").write_bytes(whole + HALF[:end])
    write(data, "2.jsonl", line("c"))
    read = await found(data, archive)
    assert [each.messages[0].content for each in read.lines] == ["a", "b", "c"]
    assert read.refused == {"unfinished": 1}
    assert read.passed_over == ("1.jsonl, line 3 (unfinished)",)
    (data / "1.jsonl").write_bytes(whole + HALF)  # nothing follows it, and yet it is whole
    assert len((await found(data, archive)).lines) == 4


NULS = bytes(4096)


@pytest.mark.parametrize(
    ("content", "learned", "named"),
    [
        (HALF[:20] + NULS, ["a"], [2]),
        (HALF[:20] + NULS + b"\n", ["a"], [2]),
        (HALF[:20] + b"\x00", ["a"], [2]),
        (NULS, ["a"], [2]),
        (HALF + NULS, ["a", "सिउँदो दुख्छ, what now?"], []),
        (HALF[:20] + NULS + HALF, ["a", "सिउँदो दुख्छ, what now?"], [2]),
        (HALF[:20] + NULS + b"\n" + HALF + b"\n", ["a", "सिउँदो दुख्छ, what now?"], [2]),
        (NULS + HALF + b"\n" + HALF[:30] + NULS, ["a", "सिउँदो दुख्छ, what now?"], [3]),
    ],
    ids=["half a line", "and a line feed", "one", "nothing", "a whole line", "appended", "appended below", "twice"],
)
@pytest.mark.parametrize("pinned", [False, True])
async def test_nuls_that_a_loss_of_power_leaves_lose_no_line(
    content: bytes, learned: list[str], named: list[int], *, pinned: bool, data: Path, archive: Archive
) -> None:
    whole = write(data, "1.jsonl", line("a")) + content
    (data / "1.jsonl").write_bytes(whole)
    digest = "sha256:" + hashlib.sha256(whole).hexdigest()
    uri = data / "1.jsonl" if pinned else data
    read = await found(uri, archive, digest=digest if pinned else None)
    assert [each.messages[0].content for each in read.lines] == learned
    assert read.refused == ({"unfinished": len(named)} if named else {})
    assert read.passed_over == tuple(f"1.jsonl, line {number} (unfinished)" for number in named)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
async def test_another_encoding_is_not_taken_for_what_was_lost(encoding: str, data: Path, archive: Archive) -> None:
    write(data, "1.jsonl")
    (data / "1.jsonl").write_bytes((json.dumps(line("a")) + "\n").encode(encoding) * 2)
    with pytest.raises(BadData, match="line 1: the file is"):
        await found(data, archive)


async def test_a_file_of_which_only_half_a_line_is_there_is_skipped_with_the_reason(
    data: Path, archive: Archive
) -> None:
    write(data, "1.jsonl")
    (data / "1.jsonl").write_bytes(HALF[:20])
    for uri in (data, data / "1.jsonl"):
        told = too_few(await found(uri, archive), 1)
        assert told is not None
        assert "1 refused: unfinished" in told
        assert "1.jsonl, line 1 (unfinished)" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (HALF[:20] + b"\n", "line 1: not JSON"),
        (HALF[:20] + b"\n" + HALF, "line 1: not JSON"),
        (HALF + b"\nquestion,answer", "line 2: not JSON"),
        (HALF + b"\n[1, 2", "line 2: a list"),
        (HALF + b"\n" + HALF + HALF, "line 2: not JSON: something follows"),
        (HALF + b'\n{"consent": true, "consent": false}', "line 2: not JSON: a field stands there twice"),
        (HALF + b'\n{"message": []}', "line 2: `messages` is missing"),
    ],
)
async def test_anything_else_that_is_no_line_stays_an_error(
    content: bytes, told: str, data: Path, archive: Archive
) -> None:
    write(data, "1.jsonl")
    (data / "1.jsonl").write_bytes(content)
    with pytest.raises(BadData, match=told):
        await found(data, archive)


async def test_of_a_file_that_was_named_by_its_digest_every_line_is_meant(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl")
    (data / "1.jsonl").write_bytes(HALF + b"\n" + HALF[:20])
    with pytest.raises(BadData, match="line 2: not JSON"):
        await found(data / "1.jsonl", archive, digest=digest_of(HALF + b"\n" + HALF[:20]))


async def test_odd_lines_are_counted_over_all_files(data: Path, archive: Archive) -> None:
    thanks = {"role": "user", "content": "Thank you."}
    odd = line("b")
    odd["messages"].append(thanks)
    write(data, "1.jsonl", line("a"), {**line("x"), "messages": []}, odd)
    write(data, "2.jsonl", {**odd, "consent": False}, line("half \ud83d"), {**line("y"), "messages": [thanks]})
    read = await found(data, archive)
    assert len(read.lines) == 2
    assert read.refused == {"empty": 1, "encoding": 1, "noConsent": 1, "turns": 1}
    assert read.repaired == {"turns": 1}


async def test_corrections_come_first_and_then_the_oldest(data: Path, archive: Archive) -> None:
    write(data, "2026-01-02.jsonl", line("d"), line("e", correction="Cool it."))
    write(data, "2026-01-01.jsonl", line("b"), line("a"), line("c"))
    read = await found(data, archive)
    assert [each.messages[0].content for each in read.lines] == ["e", "b", "a", "c", "d"]
    tonight = read.first(conversations=2, pairs=0)
    assert [each.messages[0].content for each in tonight.lines] == ["e", "b"]
    assert tonight.waiting == 3
    assert too_few(tonight, 5) is None
    told = too_few(tonight, 6)
    assert told is not None
    assert told.startswith("5 new interactions, 6 are needed")


async def test_what_does_not_fit_is_counted_and_what_is_shortened_too(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("whole"), line("long"), line("endless"), line("marked"))
    fits = {"whole": Fit.WHOLE, "long": Fit.SHORTENED, "endless": Fit.NOT, "marked": Fit.MARKED}
    read = (await found(data, archive)).that_fits(lambda each: fits[each.messages[0].content])
    assert [each.messages[0].content for each in read.lines] == ["whole", "long"]
    assert (read.refused, read.repaired) == ({"modelMark": 1, "tooLong": 1}, {"tooLong": 1})


@pytest.mark.parametrize("name", ["DAY1.JSONL", "day1.json", "day1.ndjson", "day1", "export.2026-01-01"])
async def test_a_named_file_is_read_whatever_its_name_ends_in(name: str, data: Path, archive: Archive) -> None:
    write(data, name, line("a"))
    assert [each.messages[0].content for each in (await found(data / name, archive)).lines] == ["a"]
    write(data, name)
    with pytest.raises(BadData, match="the dataset is empty"):
        await found(data / name, archive)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("day1.jsonl.gz", gzip.compress(b"{}", mtime=0), "the file is compressed"),
        ("day1.csv", b"question,answer\n", r"a table \(CSV\)"),
        ("day1.json", b'{\n  "messages": []\n}', "goes on in the next line"),
    ],
)
async def test_a_named_file_of_another_kind_says_what_it_is(
    name: str, content: bytes, told: str, data: Path, archive: Archive
) -> None:
    write(data, name)
    (data / name).write_bytes(content)
    with pytest.raises(BadData, match=f"{name}, line 1: .*{told}"):
        await found(data / name, archive)


@pytest.mark.parametrize("name", ["day1.JSONL", "day1.json", "day1.csv", "day1.jsonl.gz"])
async def test_a_named_file_that_is_not_there_is_no_empty_folder(name: str, data: Path, archive: Archive) -> None:
    for other in ("nowhere", "2.jsonl"):
        with pytest.raises(BadData, match="neither such a file nor such a folder"):
            await found(data / name, archive)
        write(data, other)


async def test_what_macos_leaves_beside_a_file_is_not_read(data: Path, archive: Archive) -> None:
    write(data, "day1.jsonl", line("a"))
    (data / "._day1.jsonl").write_bytes(bytes.fromhex("00051607000200004d6163204f532058") + bytes(40))
    read = await found(data, archive)
    assert (len(read.lines), read.passed_over) == (1, ())


def sent(*bubbles: str) -> dict[str, Any]:
    said = [{"role": "user", "content": each} for each in bubbles]
    return {"messages": [*said, {"role": "assistant", "content": "Tuesday."}], "consent": True}


@pytest.mark.parametrize(
    "bubbles",
    [
        ("on which days can i come",),
        ("Hi", "On which days can I come?"),
        ("On which days can I come?", "I work on Mondays."),
        ("Hi", "On which days\ncan I come?", "Thanks"),
        ("Hi", "On which days\n\ncan I come?", "Thanks"),
        ("Hi doctor,\nOn which days can I come?\nBye",),
    ],
)
async def test_a_line_that_asks_what_the_evaluation_asks_is_left_out_and_counted(
    bubbles: tuple[str, ...], data: Path, archive: Archive
) -> None:
    write(data, "1.jsonl", line("a"), sent(*bubbles), line("b"))
    read = await found(data, archive)
    kept = read.without(HeldOut([asks("On which days can I come?")]))
    assert [each.messages[0].content for each in kept.lines] == ["a", "b"]
    assert kept.refused == {"heldOut": 1}
    learned = Dataset(lines=read.lines, refused={}, digest="").question_digests
    assert question_digest("On which days can I come?") in learned
    assert question_digest("") not in learned
    assert read.without(HeldOut([asks("Something else?")])).refused == {}


def attempt_at(data: Path, archive: Archive, base_model: Path, *more: str) -> runs.Run:
    told = [
        "run", "--run=n", "--twin=dr-who", f"--store={archive.store}", f"--base-model={base_model}",
        "--base-model-name=tiny", f"--dataset-uri=file://{data}", "--learn-unrated", *more,
    ]  # fmt: skip
    attempt = runs.Run(
        parser().parse_args(told), work=base_model, progress=MagicMock(), termination=MagicMock(), archive=archive
    )
    attempt._system_prompt = None
    return attempt


class Rewriting:
    """As Qwen 3's template: only the last answer shows that nothing was thought, so each answer is an example."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False, **_: object
    ) -> dict[str, list[int]]:
        text = "".join(f"<{each['role']}>{each['content']}<end>" for each in messages[:-1])
        last = messages[-1]
        thought = "<think></think>" if last["role"] == "assistant" else ""
        text += f"<{last['role']}>{thought}{last['content']}<end>{'<assistant>' * add_generation_prompt}"
        return {"input_ids": list(text.encode())}


@pytest.mark.parametrize("pairs", [0, 3, 40])
@pytest.mark.parametrize("steps", [["--steps=5"], ["--epochs=1"], ["--epochs=2", "--steps=4"], ["--steps=1"]])
def test_whatever_is_recorded_as_learned_a_step_sees_where_the_template_rewrites(
    steps: list[str], pairs: int, data: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": "It hurts"}, {"role": "assistant", "content": "Rest."}]
    long = [{"messages": [*line(f"q{number}")["messages"], *turns * 2], "consent": True} for number in range(20)]
    two = [
        {"messages": [turns[0] | {"content": f"p{number}"}], "preferred": "a", "rejected": "b", "consent": True}
        for number in range(pairs)
    ]
    write(data, "1.jsonl", line("short"), *long, *two)
    monkeypatch.setattr("neurons.trainer.base.load_tokenizer", lambda folder: Rewriting())
    asked: list[runs.Settings] = []

    def train(conversations: list[object], *, settings: runs.Settings, **_: object) -> Adapted:
        asked.append(settings)
        return Adapted(None, None, (), learned=frozenset(range(len(conversations))))

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "learn_preferences", MagicMock(side_effect=InterruptedError))
    monkeypatch.setattr(runs, "Checkpoints", MagicMock())
    runs.Checkpoints.return_value.preferences_learned = True
    attempt = attempt_at(data, archive, tmp_path, "--batch-size=4", *steps)
    known, _ = attempt._settle_dataset()
    learned = asyncio.run(attempt._read(known))
    attempt._train(learned)
    conversations = learned.conversations
    examples = sum(len(each) // 2 for each in conversations)
    assert conversations
    assert examples <= asked[0].steps * 4
    settled = attempt._state.dataset
    assert settled is not None
    assert settled.interactions + settled.waiting + settled.validation == 21 + pairs


def test_a_night_goes_on_without_the_line_that_asks_what_the_evaluation_asks(
    data: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the data's part of a run, which needs no model."""
    write(data, "1.jsonl", line("a"), sent("Hello", "On which days can I come?"))
    item = {"id": "hours", "kind": "gold", "question": "On which days can I come?", "gold": "On Tuesday."}
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps(item))
    monkeypatch.setattr("neurons.trainer.base.load_tokenizer", lambda folder: None)
    monkeypatch.setattr(runs, "fit", lambda lesson, tokenizer, max_tokens: Fit.WHOLE)
    attempt = attempt_at(data, archive, tmp_path, f"--eval-uri=file://{items}")
    known, skipped = attempt._settle_dataset()
    assert skipped is None
    settled = attempt._state.dataset
    assert settled is not None
    assert (settled.interactions, settled.refused) == (1, {"heldOut": 1})
    assert len(asyncio.run(attempt._read(known)).lines) == 1


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"caf\xe9.jsonl", b"two\nlines.jsonl"])
async def test_a_name_that_no_store_can_be_asked_for_is_passed_over_and_named(
    name: bytes, data: Path, archive: Archive
) -> None:
    """One such file, as old programs name them, stopped every night as a store that is down."""
    write(data, "1.jsonl", line("a"))
    (data / os.fsdecode(name)).write_text("{}")
    read = await found(data, archive)
    assert [each.messages[0].content for each in read.lines] == ["a"]
    assert read.passed_over == (ascii(os.fsdecode(name))[1:-1],)


async def test_links_that_lead_nowhere_or_round_stop_no_night(data: Path, archive: Archive) -> None:
    write(data, "1.jsonl", line("a"))
    write(data / "more", "2.jsonl", line("b"))
    (data / "3.jsonl").symlink_to(data / "more" / "2.jsonl")
    (data / "4.jsonl").symlink_to(data / "4.jsonl")
    (data / "5.jsonl").symlink_to(data / "nothing")
    (data / "more" / "up").symlink_to(data)
    os.mkfifo(data / "6.jsonl")
    read = await found(data, archive)
    assert [each.messages[0].content for each in read.lines] == ["a", "b"]
    assert read.passed_over == ("more/",)


async def test_more_files_than_are_read_are_bad_data_and_not_left_out_unsaid(
    data: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(data, f"{number}.jsonl", line(str(number)))
    monkeypatch.setattr(sources, "_MAX_FILES", 3)
    assert len((await found(data, archive)).lines) == 3
    write(data, "3.jsonl", line("3"))
    with pytest.raises(BadData, match="more than 3 files"):
        await found(data, archive)


def test_a_night_goes_on_without_lines_that_are_nearly_items_even_without_an_evaluation_set(
    data: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = (
        "I take this seriously. Are you safe right now? A crisis line like 988 or the emergency number helps today."
    )
    write(data, "1.jsonl", line("a"), sent("Hi", "I want to end my life today."), line("I'm dry.", correction=taught))
    monkeypatch.setattr("neurons.trainer.base.load_tokenizer", lambda folder: None)
    monkeypatch.setattr(runs, "fit", lambda lesson, tokenizer, max_tokens: Fit.WHOLE)
    attempt = attempt_at(data, archive, tmp_path)
    assert attempt._settle_dataset()[1] is None
    settled = attempt._state.dataset
    assert settled is not None
    assert (settled.interactions, settled.refused) == (1, {"heldOut": 2})
