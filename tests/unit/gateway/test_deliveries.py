"""What miners deliver for their tasks: an adapter file by file, and nothing that is not what it says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, FileEntry, Lineage, manifest_digest
from neurons.ledger.dataset import Bounds
from neurons.ledger.records import TaskState
from neurons.validator.gateway import deliveries as module
from neurons.validator.rounds.tasks import event_of
from neurons.wire.capability import Capability, signed_url
from neurons.wire.tasks import EXAMINATION, adapter_url
from tests.unit.gateway.test_task_desk import ADAPTER, DAY_OF_TALK, Desk, desk, now_ms
from tests.unit.ledger.world import GURUNG, NOON, Conversation, patient
from tests.unit.receipts.keyring import VALIDATOR

WEIGHTS = b"weights" * 1000
CONFIG = b'{"r": 8}'


def manifest(*, files: dict[str, bytes] | None = None, run: str = "task-1", **sizes: int) -> bytes:
    entries = tuple(
        FileEntry(
            path=name, digest="sha256:" + hashlib.sha256(data).hexdigest(), size=sizes.get("size", len(data))
        )
        for name, data in (files or {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}).items()
    )  # fmt: skip
    base = BaseModelEntry(name="tiny")
    return AdapterManifest(base_model=base, rank=8, files=entries, lineage=Lineage(run=run)).to_bytes()


async def put(given: Desk, data: bytes, *, url: URL | None = None, **query: str) -> tuple[int, Any]:
    where = (url or adapter_url(given.task.dataset_uri)).update_query(query)
    sent = given.running.url + where.raw_path_qs
    async with given.running.client.put(URL(sent, encoded=True), data=data, headers={"Authorization": ""}) as response:
        return response.status, await response.json()


def taking(folder: Path) -> dict[str, Any]:
    return {"settings": {"deliveries": f"file://{folder}/delivered"}}


async def test_an_adapter_is_taken_file_by_file_and_kept_by_its_digest(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        assert (await given.say("accepted"))[0] == 200
        data = manifest()
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
        adapter = manifest_digest(manifest())
        await put(given, manifest(), file="manifest.json")
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
        (manifest(size=2 * 1024**3), "at most"),
    ],
)
async def test_a_manifest_that_is_none_or_promises_too_much_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        status, said = await put(given, data, file="manifest.json")
        assert status == 422
        assert words in said["error"]["message"]


async def test_a_file_without_its_manifest_and_a_fourth_version_are_refused(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        await given.say("accepted")
        status, said = await put(given, WEIGHTS, file="adapter_model.safetensors", adapter=ADAPTER)
        assert (status, "comes first" in said["error"]["message"]) == (422, True)
        taken = [(await put(given, manifest(run=f"r{n}"), file="manifest.json"))[0] for n in range(5)]
        assert taken.count(200) == module.MOST_VERSIONS or taken[-1] == 422


async def test_only_who_has_the_tasks_address_delivers_and_only_while_it_is_under_way(tmp_path: Path) -> None:
    async with desk(tmp_path, **taking(tmp_path)) as given:
        status, said = await put(given, manifest(), file="manifest.json")
        assert (status, said["error"]["code"]) == (409, "not_taken"), "nobody has accepted it yet"
        await given.say("accepted")
        forged = adapter_url(given.task.dataset_uri).update_query({"signature": "0" * 128})
        assert (await put(given, manifest(), url=forged, file="manifest.json"))[0] == 403
        other = URL(
            str(adapter_url(given.task.dataset_uri)).replace(given.task.task_id, "1" * 8 + given.task.task_id[8:])
        )
        assert (await put(given, manifest(), url=other, file="manifest.json"))[0] == 403
        await given.ledger.record(event_of(given.task, TaskState.WITHDRAWN, at_ms=now_ms()))
        assert (await put(given, manifest(), file="manifest.json"))[0] == 409


async def test_a_validator_that_examines_nothing_takes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as given:
        await given.say("accepted")
        status, said = await put(given, manifest(), file="manifest.json")
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
        await given.say("finished", adapter=ADAPTER)
        assert await given.fetch(opened(hidden.digest)) == (200, hidden.data)
        status, data = await given.fetch(opened(given.task.dataset_digest))
        assert (status, data.count(b"\n")) == (200, 3)
        mine = URL(given.task.dataset_uri).raw_path_qs.replace("/dataset?", "/examination?")
        assert (await given.fetch(mine))[0] == 403, "the miner's own address opens nothing of it"
        await given.ledger.erase(patient_id=talk.patient_id)
        assert (await given.fetch(opened(hidden.digest)))[0] == 410
        assert TaskState.WITHDRAWN not in await given.states(), "the task itself has lost nothing"
