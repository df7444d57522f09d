"""Offers and reports of fine-tune tasks, and the address of a dataset: whose word they are, and what they open."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from neurons.receipts import canonical, parse_canonical
from neurons.wire.capability import Capability, CapabilityError, read_capability, signed_url
from neurons.wire.tasks import (
    MAX_BYTES,
    TaskError,
    check_dataset_url,
    place_of,
    read_offer,
    read_report,
    reports_url,
    sign_offer,
    sign_report,
)
from tests.unit.receipts.keyring import MINER, STRANGER, VALIDATOR

SHA = "sha256:" + "0" * 64
TASK = "11111111-1111-4111-8111-111111111111"
ANOTHER = "22222222-2222-4222-8222-222222222222"
URL_OF_TASK = f"https://ask.clinic.example/v1/tasks/{TASK}/dataset?digest=x"
ME, VALIDATOR_ADDRESS = str(MINER.ss58_address), str(VALIDATOR.ss58_address)


def offer(by: Any = VALIDATOR, **changes: Any) -> bytes:
    given: dict[str, Any] = {
        "task": TASK, "miner": ME, "netuid": 42, "twin": "indra", "dataset": URL_OF_TASK, "dataset_digest": SHA,
        "interactions": 30, "parent": None, "topics": ("skin",), "offered_ms": 1000, "deadline_ms": 2000,
    }  # fmt: skip
    return sign_offer(by, **(given | changes))


def test_an_offer_is_signed_for_one_miner() -> None:
    read = read_offer(offer(), validator=VALIDATOR_ADDRESS, miner=ME)
    assert (read.dataset_digest, read.topics, read.deadline) == (SHA, ("skin",), 2000)
    with pytest.raises(TaskError, match="another miner"):
        read_offer(offer(), validator=VALIDATOR_ADDRESS, miner=VALIDATOR_ADDRESS)
    with pytest.raises(TaskError, match="did not sign"):
        read_offer(offer().replace(b"skin", b"bone"), validator=VALIDATOR_ADDRESS, miner=ME)
    with pytest.raises(TaskError, match="not by"):
        read_offer(offer(STRANGER), validator=VALIDATOR_ADDRESS, miner=ME)


def test_a_stranger_can_not_sign_in_the_validators_name() -> None:
    document = parse_canonical(offer(STRANGER)) | {"validator": VALIDATOR_ADDRESS}
    with pytest.raises(TaskError, match="did not sign"):
        read_offer(canonical(document), validator=VALIDATOR_ADDRESS, miner=ME)


@pytest.mark.parametrize(
    "dataset",
    [
        "https://ask.clinic.example/", "file:///etc/passwd", f"https://v/v1/tasks/{ANOTHER}/dataset",
        f"https://user:key@v/v1/tasks/{TASK}/dataset", f"https://v/v1/tasks/{TASK}/reports",
        f"https://v/v1/tasks/{TASK}/dataset#x", f"https://v/latest/meta-data?x=/v1/tasks/{TASK}/dataset",
        f"https://v/v1/tasks/{TASK}/dataset?" + "x" * 1000,
    ],
)  # fmt: skip
def test_a_dataset_is_at_its_tasks_address_and_nowhere_else(dataset: str) -> None:
    with pytest.raises(TaskError):
        read_offer(offer(dataset=dataset), validator=VALIDATOR_ADDRESS, miner=ME)


def test_reports_go_where_the_dataset_came_from() -> None:
    assert reports_url(URL_OF_TASK) == URL(f"https://ask.clinic.example/v1/tasks/{TASK}/reports")
    check_dataset_url(URL_OF_TASK, task=TASK)
    assert place_of(f"/v1/tasks/{TASK}/reports") == (TASK, "reports")
    assert place_of(f"/v1/tasks/{TASK}/reports/") is None


def test_a_report_is_its_miners_word() -> None:
    said = sign_report(MINER, task=TASK, state="finished", time_ms=5, adapter=SHA, detail="x" * 5000)
    read = read_report(said)
    assert (read.miner, read.adapter, len(read.detail)) == (ME, SHA, 1024)
    with pytest.raises(TaskError, match="not by"):
        read_report(said, miner=VALIDATOR_ADDRESS)
    with pytest.raises(TaskError, match="did not sign"):
        read_report(said.replace(b"finished", b"accepted"))
    with pytest.raises(TaskError, match="more than"):
        read_report(said + b" " * MAX_BYTES)
    with pytest.raises(TaskError, match="can't be read"):
        read_report(b"[" * 1000)


def test_an_address_opens_one_dataset_until_its_time() -> None:
    made = Capability(TASK, SHA, 10, 20, 500)
    url = URL(signed_url(VALIDATOR, made, base="http://gateway.default.svc:8080"))
    assert url.path == f"/v1/tasks/{TASK}/dataset"
    check_dataset_url(str(url), task=TASK)
    assert read_capability(TASK, url.query, keypair=VALIDATOR, now_ms=500) == made
    for task, query, keypair in (
        (ANOTHER, url.query, VALIDATOR),
        (TASK, url.update_query(until="600").query, VALIDATOR),
        (TASK, url.update_query(to="21").query, VALIDATOR),
        (TASK, url.update_query(digest="sha256:" + "1" * 64).query, VALIDATOR),
        (TASK, url.query, STRANGER),
        (TASK, {}, VALIDATOR),
        (TASK, url.update_query(until="9" * 40).query, VALIDATOR),
    ):
        with pytest.raises(CapabilityError, match="not one that this validator made"):
            read_capability(task, query, keypair=keypair, now_ms=1)
    with pytest.raises(CapabilityError, match="time is over"):
        read_capability(TASK, url.query, keypair=VALIDATOR, now_ms=501)
