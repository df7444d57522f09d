"""What miners deliver for their tasks: an adapter file by file, and nothing that is not what it says."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, FileEntry, Lineage, manifest_digest
from neurons.ledger.dataset import Bounds
from neurons.ledger.records import Miner, TaskState
from neurons.ledger.rounds import tasks
from neurons.validator.gateway import deliveries as module
from neurons.validator.gateway import task_desk
from neurons.validator.rounds.examining import waiting
from neurons.validator.rounds.tasks import disallowed, event_of, task_id
from neurons.wire.capability import Capability, signed_url
from neurons.wire.tasks import EXAMINATION, adapter_url
from tests.unit.gateway.test_task_desk import ADAPTER, DAY_OF_TALK, Desk, desk, now_ms
from tests.unit.ledger.world import GURUNG, NOON, Conversation, patient
from tests.unit.receipts.keyring import VALIDATOR

WEIGHTS = b"weights" * 1000
CONFIG = b'{"r": 8}'
WEIGHTS_FILE = "adapter_model.safetensors"


def manifest(
    given: Desk, *, files: dict[str, bytes] | None = None, run: str | None = None, parent: str | None = None,
    seed: int = 1, **sizes: int,
) -> bytes:  # fmt: skip
    entries = tuple(
        FileEntry(
            path=name, digest="sha256:" + hashlib.sha256(data).hexdigest(), size=sizes.get("size", len(data))
        )
        for name, data in (files or {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}).items()
    )  # fmt: skip
    base = BaseModelEntry(name="tiny")
    lineage = Lineage(run=run or f"task-{given.task.task_id}", parent_digest=parent, seed=seed)
    return AdapterManifest(base_model=base, rank=8, files=entries, lineage=lineage).to_bytes()


async def put(given: Desk, data: bytes, *, url: URL | None = None, **query: str) -> tuple[int, Any]:
    where = (url or adapter_url(given.task.dataset_uri)).update_query(query)
    sent = given.running.url + where.raw_path_qs
    async with given.running.client.put(URL(sent, encoded=True), data=data, headers={"Authorization": ""}) as response:
        return response.status, await response.json()


async def deliver(given: Desk, data: bytes, *, url: URL | None = None) -> str:
    """Deliver a whole adapter; returns its digest."""
    adapter = manifest_digest(data)
    for name, content in (("manifest.json", data), ("adapter_config.json", CONFIG), (WEIGHTS_FILE, WEIGHTS)):
        assert (await put(given, content, url=url, file=name, adapter=adapter))[0] == 200
    return adapter


def taking(folder: Path) -> dict[str, Any]:
    return {"settings": {"deliveries": f"file://{folder}/delivered"}}


async def test_an_adapter_is_taken_file_by_file_and_kept_by_its_digest(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        assert (await given.say("accepted"))[0] == 200
        data = manifest(given)
        adapter = manifest_digest(data)
        status, said = await put(given, data, file="manifest.json")
        assert (status, said["adapter"]) == (200, adapter)
        assert said["missing"] == ["adapter_config.json", "adapter_model.safetensors"]
        assert (await put(given, CONFIG, file="adapter_config.json", adapter=adapter))[0] == 200
        for _ in range(2):  # again, as after a lost answer
            status, said = await put(given, WEIGHTS, file="adapter_model.safetensors", adapter=adapter)
            assert (status, said["missing"]) == (200, [])
        folder = tmp_path / "delivered" / given.task.task_id / adapter.removeprefix("sha256:")
        assert (folder / "adapter_model.safetensors").read_bytes() == WEIGHTS
        assert sorted(each.name for each in folder.iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors", "manifest.json",
        ]  # fmt: skip
        assert [each.name for each in folder.parent.iterdir()] == [folder.name], "no part is left"


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("adapter_model.safetensors", WEIGHTS[:-1] + b"x", "changed"),
        ("adapter_model.safetensors", WEIGHTS[:-10], "cut off"),
        ("adapter_model.safetensors", WEIGHTS * 3, "more than"),
        ("other.bin", b"x", "no such file"),
        ("../../x", b"x", "no such file"),
    ],
)
async def test_a_file_that_is_not_the_manifests_is_refused_and_leaves_nothing(
    tmp_path: Path, file: str, data: bytes, words: str
) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        adapter = manifest_digest(manifest(given))
        await put(given, manifest(given), file="manifest.json")
        status, said = await put(given, data, file=file, adapter=adapter)
        assert status == 422
        assert words in said["error"]["message"]
        left = [each.name for each in (tmp_path / "delivered").rglob("*") if each.is_file()]
        assert left == ["manifest.json"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{}", "can't be read"),
        (b"x" * (4 * 1024 * 1024 + 1), "at most"),
        (None, "at most"),
    ],
)
async def test_a_manifest_that_is_none_or_promises_too_much_is_refused(
    tmp_path: Path, data: bytes | None, words: str
) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        status, said = await put(given, data or manifest(given, size=2 * 1024**3), file="manifest.json")
        assert status == 422
        assert words in said["error"]["message"]


async def test_a_file_without_its_manifest_and_a_fourth_version_are_refused(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        status, said = await put(given, WEIGHTS, file="adapter_model.safetensors", adapter=ADAPTER)
        assert (status, "comes first" in said["error"]["message"]) == (422, True)
        assert not list((tmp_path / "delivered").rglob("*")), "nor is a folder made for what nobody announced"
        taken = [(await put(given, manifest(given, seed=n), file="manifest.json"))[0] for n in range(5)]
        assert taken == [200] * module.MOST_VERSIONS + [422] * 2


async def test_only_who_has_the_tasks_address_delivers_and_only_while_it_is_under_way(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        status, said = await put(given, manifest(given), file="manifest.json")
        assert (status, said["error"]["code"]) == (409, "not_taken"), "nobody has accepted it yet"
        await given.say("accepted")
        forged = adapter_url(given.task.dataset_uri).update_query({"signature": "0" * 128})
        assert (await put(given, manifest(given), url=forged, file="manifest.json"))[0] == 403
        other = URL(
            str(adapter_url(given.task.dataset_uri)).replace(given.task.task_id, "1" * 8 + given.task.task_id[8:])
        )
        assert (await put(given, manifest(given), url=other, file="manifest.json"))[0] == 403
        await given.ledger.record(event_of(given.task, TaskState.WITHDRAWN, at_ms=now_ms()))
        assert (await put(given, manifest(given), file="manifest.json"))[0] == 409


async def test_a_validator_that_examines_nothing_takes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        await given.say("accepted")
        status, said = await put(given, manifest(given), file="manifest.json")
        assert (status, said["error"]["code"]) == (404, "no_deliveries")


async def test_the_examination_gets_what_no_miner_can_open(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        talk = Conversation(patient_id=patient(held_out=True), at_ms=NOON)
        [answer] = talk.ask("May I swim?", "Yes.")
        talk.correct(answer, "Yes, from Tuesday on.")
        await given.ledger.record(*talk.records)
        bounds = Bounds.of(DAY_OF_TALK)
        hidden = await given.ledger.held_out(twin_uid=GURUNG.uid, bounds=bounds, day=DAY_OF_TALK)
        own = given.task.task_id

        def opened(digest: str, what: str = EXAMINATION) -> str:
            capability = Capability(own, digest, bounds.start_ms, bounds.end_ms, now_ms() + 60_000, what)
            return URL(signed_url(VALIDATOR, capability, base=given.running.url)).raw_path_qs

        assert (await given.fetch(opened(hidden.digest)))[0] == 410, "before it is finished nothing is examined"
        await given.say("accepted")
        adapter = await deliver(given, manifest(given))
        assert (await given.say("finished", adapter=adapter))[0] == 200
        assert await given.fetch(opened(hidden.digest)) == (200, hidden.data)
        status, data = await given.fetch(opened(given.task.dataset_digest))
        assert (status, data.count(b"\n")) == (200, 3)
        mine = URL(given.task.dataset_uri).raw_path_qs.replace("/dataset?", "/examination?")
        assert (await given.fetch(mine))[0] == 403, "the miner's own address opens nothing of it"
        await given.ledger.erase(patient_id=talk.patient_id)
        assert (await given.fetch(opened(hidden.digest)))[0] == 410
        assert TaskState.WITHDRAWN not in await given.states(), "the task itself has lost nothing"


@asynccontextmanager
async def two_tasks(folder: Path) -> AsyncIterator[tuple[Desk, Desk]]:
    """Mallory's task, and that of another on the subnet, of the same dataset."""
    async with desk(folder, **taking(folder)) as thief:
        made = thief.task
        miner = Miner(hotkey=str(VALIDATOR.ss58_address), registered_block=100)
        own, bounds = task_id(made.twin, made.dataset_digest, miner), Bounds.of(DAY_OF_TALK)
        url = signed_url(
            VALIDATOR, Capability(own, made.dataset_digest, bounds.start_ms, bounds.end_ms, made.deadline_ms),
            base=thief.running.url,
        )  # fmt: skip
        owner = replace(thief, task=replace(made, task_id=own, miner=miner, dataset_uri=url), miner=VALIDATOR)
        await thief.ledger.record(owner.task)
        for each in (thief, owner):
            assert (await each.say("accepted"))[0] == 200
        yield thief, owner


async def test_who_learns_anothers_digest_and_reports_it_first_gains_nothing_and_harms_nobody(tmp_path: Path) -> None:
    async with two_tasks(tmp_path) as (thief, owner):
        stolen = manifest_digest(manifest(owner))
        status, said = await thief.say("finished", adapter=stolen)
        assert (status, said["error"]["code"]) == (425, "not_delivered"), "a miner comes back after that"
        assert await deliver(owner, manifest(owner)) == stolen
        status, said = await put(thief, manifest(owner), file="manifest.json")
        assert (status, "another task" in said["error"]["message"]) == (422, True), "not with its bytes either"
        assert (await thief.say("finished", adapter=stolen))[0] == 425
        assert (await owner.say("finished", adapter=stolen))[0] == 200
        found = await tasks(owner.ledger.database, since_ms=0, until_ms=2**50)
        assert disallowed(found, at_ms=now_ms()) == []
        assert [each.task.task_id for each in waiting(found)] == [owner.task.task_id]


async def test_a_report_counts_only_with_the_whole_adapter_and_is_said_again_without_it(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        data = manifest(given)
        adapter = manifest_digest(data)
        await put(given, data, file="manifest.json")
        await put(given, CONFIG, file="adapter_config.json", adapter=adapter)
        assert (await given.say("finished", adapter=adapter))[0] == 425
        assert await given.states() == [TaskState.ACCEPTED]
        await put(given, WEIGHTS, file=WEIGHTS_FILE, adapter=adapter)
        assert (await given.say("finished", adapter=adapter))[0] == 200
        shutil.rmtree(tmp_path / "delivered" / given.task.task_id)  # as whoever frees the claim
        assert (await given.say("finished", adapter=adapter))[0] == 200
        assert await given.states() == [TaskState.ACCEPTED, TaskState.FINISHED]


async def test_a_version_of_another_run_or_from_another_parent_is_not_taken(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        for data in (manifest(given, run="night-2"), manifest(given, parent=ADAPTER)):
            status, said = await put(given, data, file="manifest.json")
            assert (status, said["error"]["code"]) == (422, "not_taken")


async def test_an_erasure_finds_what_was_delivered_though_it_is_never_reported(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        first, second = [await deliver(given, manifest(given, seed=seed)) for seed in (1, 2)]
        await deliver(given, manifest(given, seed=2))
        erased = await given.ledger.erase(patient_id=given.talks[0].patient_id)
        assert sorted(each.adapter_digest for each in erased.retrain) == sorted([first, second])


async def _opened(given: Desk) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin to deliver a manifest, and send nothing of it."""
    url = adapter_url(given.task.dataset_uri).update_query({"file": "manifest.json"})
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(given.running.url).port)
    head = f"PUT {url.raw_path_qs} HTTP/1.1\r\nHost: v\r\nContent-Length: 100000\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def test_one_task_holds_one_place_so_that_its_slow_files_keep_no_other_out(tmp_path: Path) -> None:
    async with two_tasks(tmp_path) as (slow, other):
        opened = [await _opened(slow) for _ in range(task_desk.MOST_DELIVERIES + 2)]
        answers = [asyncio.create_task(reader.readline()) for reader, _ in opened]
        done, waiting_ = await asyncio.wait(answers, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        while len(waiting_) > 1:
            more, waiting_ = await asyncio.wait(waiting_, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert more, "all but one are sent away"
            done |= more
        assert all(b" 503 " in each.result() or b" 429 " in each.result() for each in done)
        await deliver(other, manifest(other))
        for each in waiting_:
            each.cancel()
        for _, writer in opened:
            writer.close()


async def test_a_file_that_drips_is_ended_though_it_never_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_desk, "GRACE_SECONDS", 0.3)
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        reader, writer = await _opened(given)
        answer = asyncio.create_task(reader.readline())
        async with asyncio.timeout(10):
            while not answer.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
        assert b" 408 " in answer.result()
        writer.close()
