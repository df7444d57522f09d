"""What a miner announces is what it signed, for its subnet, and now."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from neurons.receipts import canonical
from neurons.wire.announcement import AnnouncementError, announce, read_announcement
from tests.unit.receipts.keyring import MINER, OTHER_MINER
from tests.unit.receipts.samples import ADAPTER, NOW_MS

TWINS = [
    {"name": "dr-okafor", "doctor": None, "versions": [{"adapter": None, "weightPercent": 100, "pods": 1}]},
    {"name": "dr-gurung", "doctor": "Dr. Indra Gurung",
     "versions": [{"adapter": ADAPTER, "weightPercent": 95, "pods": 2}]},
]  # fmt: skip
BASE = {"name": "smollm2", "revision": None, "digest": None}


def announced(keypair: Any = MINER) -> bytes:
    return announce(keypair, netuid=42, time_ms=NOW_MS, base=BASE, twins=TWINS)


def read(data: bytes, **changes: Any) -> Any:
    return read_announcement(data, **({"hotkey": MINER.ss58_address, "now_ms": NOW_MS, "netuid": 42} | changes))


def test_a_miner_says_which_versions_answer() -> None:
    said = read(announced())
    assert [twin.name for twin in said.twins] == ["dr-gurung", "dr-okafor"]
    assert said.holds("dr-gurung", ADAPTER)
    assert said.holds("dr-okafor", None)
    assert not said.holds("dr-gurung", None)
    assert not said.holds("dr-nobody", ADAPTER)


def test_a_version_that_no_pod_holds_does_not_answer() -> None:
    versions = [{"adapter": ADAPTER, "weightPercent": 100, "pods": 0}, {"adapter": None, "weightPercent": 0, "pods": 1}]
    twins = [{"name": "dr-gurung", "doctor": None, "versions": versions}]
    said = read(announce(MINER, netuid=42, time_ms=NOW_MS, base=BASE, twins=twins))
    assert not said.holds("dr-gurung", ADAPTER)
    assert said.holds("dr-gurung", None)
    assert said.held == {"dr-gurung": {None}}


@pytest.mark.parametrize(
    ("data", "changes", "says"),
    [
        (announced(OTHER_MINER), {}, "is of another miner"),
        (announced().replace(b"dr-okafor", b"dr-okafox"), {}, "did not sign this announcement"),
        (announced(), {"netuid": 7}, "for subnet 42, and not for 7"),
        (announced(), {"now_ms": NOW_MS + 61_000}, "61 s old, 60 s are allowed"),
        (announced(), {"now_ms": NOW_MS - 6_000}, "6 s ahead of this clock"),
        (b"", {}, "no JSON"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", {}, "nested too deep"),
        (b'{"format":"bettertherapy-announcement/9"}', {}, "no announcement"),
        (announced() + b" ", {}, "canonical"),
    ],
    ids=["another", "changed", "subnet", "old", "future", "empty", "deep", "format", "spaced"],
)
def test_what_is_no_announcement_of_that_miner_is_refused_in_words(
    data: bytes, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(AnnouncementError, match=says):
        read(data, **changes)


def test_a_pretender_signs_no_announcement_of_another() -> None:
    document = json.loads(announced(OTHER_MINER)) | {"hotkey": MINER.ss58_address}
    with pytest.raises(AnnouncementError, match="did not sign"):
        read(canonical(document))


def test_a_receipts_signature_is_no_announcements() -> None:
    document = json.loads(announced())
    signature = document.pop("signature")
    again = "0x" + bytes(MINER.sign(b"bettertherapy-receipt/1\n" + canonical(document))).hex()
    assert again != signature
    with pytest.raises(AnnouncementError, match="did not sign"):
        read(canonical(document | {"signature": again}))


def test_a_refusal_does_not_speak_to_a_terminal() -> None:
    with pytest.raises(AnnouncementError, match="Extra inputs") as caught:
        read(canonical(json.loads(announced()) | {"\x1b[2J\u202e": 1}))
    assert str(caught.value).isprintable()


def test_an_announcement_of_more_versions_than_any_miner_has_is_not_taken_apart() -> None:
    """One of the most bytes that are taken would hold 120 MB of each validator, and its thread for seconds."""
    versions = [{"adapter": None, "weightPercent": 0, "pods": 1}] * 64
    twins = [{"name": f"t{number}", "doctor": None, "versions": versions} for number in range(2900)]
    data = announce(MINER, netuid=42, time_ms=NOW_MS, base=BASE, twins=twins)
    began = time.thread_time()
    with pytest.raises(AnnouncementError, match="more than 40000 versions"):
        read(data)
    assert time.thread_time() - began < 0.5
