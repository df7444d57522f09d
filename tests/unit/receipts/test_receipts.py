"""What a receipt says, who can have signed it, and that nothing in it can be changed."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.receipts import (
    ReceiptError,
    ReceiptSigner,
    answer_of,
    canonical,
    decode,
    question_of_input,
    question_of_messages,
    question_of_prompt,
    question_of_text,
)
from tests.unit.receipts.keyring import MINER, OTHER_MINER, key
from tests.unit.receipts.samples import ANSWER, NOW_MS, QUESTION, signed


def document(receipt: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(receipt + "=" * (-len(receipt) % 4))))


def plain(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encoded(changed: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(canonical(changed)).rstrip(b"=").decode()


@pytest.mark.parametrize("ed25519", [False, True])
def test_a_receipt_is_its_hotkeys_in_either_scheme(ed25519: bool) -> None:
    receipt = decode(signed(key("Alice", ed25519=ed25519)))
    assert receipt.is_genuine()
    assert (receipt.twin, receipt.time, receipt.cached, receipt.choices) == ("dr-gurung", NOW_MS, False, 1)
    assert receipt.scheme == ("ed25519" if ed25519 else "sr25519")


def test_the_digests_can_be_computed_with_nothing_but_sha256() -> None:
    """The examples of docs/receipts.md."""
    said = b'{"messages":[{"content":"I have had a headache for two days.","role":"user"}]}'
    assert question_of_text("I have had a headache for two days.") == plain(said)
    assert answer_of(["Rest, my dear."]) == plain(b"Rest, my dear.")
    assert answer_of(["a", "b"]) == plain(b'["a","b"]')
    assert question_of_prompt("Say") == plain(b'{"prompt":"Say"}')
    assert question_of_input({"model": "x", "input": "Hi", "instructions": None}) == plain(b'{"input":"Hi"}')


def test_members_in_any_order_and_nulls_are_the_same_question() -> None:
    one = [{"role": "assistant", "content": None, "tool_calls": [], "refusal": None}]
    other = [{"tool_calls": [], "content": None, "role": "assistant"}]
    assert question_of_messages(one) == question_of_messages(other)
    assert question_of_messages(one) != question_of_messages([{"role": "assistant", "tool_calls": []}])


def test_texts_are_not_normalized() -> None:
    assert question_of_text("é") != question_of_text("e\u0301")
    assert answer_of(["Rest."]) != answer_of(["Rest.\n"])
    assert answer_of(['["a","b"]']) == answer_of(["a", "b"]), "which of the two it is, `choices` says"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("question", question_of_text("Another question")), ("answer", answer_of(["Take ten aspirins."])),
        ("twin", "dr-okafor"), ("adapter", None), ("adapter", "sha256:" + "b" * 64), ("cached", True), ("choices", 2),
        ("time", NOW_MS + 1), ("unsigned", ["tool_calls"]), ("hotkey", OTHER_MINER.ss58_address),
        ("base", {"name": "other", "revision": None, "digest": None}), ("scheme", "ed25519"),
        ("signature", "0x" + "00" * 64),
    ],
)  # fmt: skip
def test_whatever_is_changed_breaks_the_signature(member: str, value: Any) -> None:
    changed = document(signed(MINER)) | {member: value}
    assert not decode(encoded(changed)).is_genuine()


def test_names_that_look_like_the_documents_own_members_are_signed_as_they_are() -> None:
    awkward = 'x","time":1,"scheme":"ed25519","signature":"0x00'
    receipt = signed(
        MINER, twin=awkward, base={"name": awkward, "revision": ',"time":', "digest": None}, unsigned=(',"time":',)
    )
    assert encoded(document(receipt)) == receipt, "it is canonical"
    read = decode(receipt)
    assert read.is_genuine()
    assert (read.twin, read.base.name, read.time) == (awkward, awkward, NOW_MS)


def test_what_is_proven_is_all_that_the_document_says() -> None:
    read = decode(signed(MINER))
    for name, value in {
        "twin": "dr-okafor", "choices": 2, "base": read.base.model_copy(update={"name": "other"}), "unsigned": ("a",),
    }.items():  # fmt: skip
        assert not read.model_copy(update={name: value}).is_genuine(), name


def test_a_signature_of_the_bare_document_is_no_receipts() -> None:
    """Whoever gets a hotkey to sign some JSON has no receipt: the format's name stands before what is signed."""
    bare = document(signed(MINER))
    del bare["signature"]
    signature = "0x" + bytes(MINER.sign(canonical(bare))).hex()
    assert not decode(encoded(bare | {"signature": signature})).is_genuine()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"), ("!!", "not base64url"), ("a" * 10_000, "more than 8192"), ("W10", "no JSON object"),
        (base64.urlsafe_b64encode(b'{"b":1,"a":2}').decode(), "canonical"),
        (encoded({"format": "bettertherapy-receipt/9"}), "this release reads bettertherapy-receipt/1"),
        (encoded({"format": "bettertherapy-receipt/1"}), "damaged receipt"),
        ('{"a":' + "[" * 500 + "]" * 500 + "}", "nested too deep"),
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_said_in_words(text: str, says: str) -> None:
    with pytest.raises(ReceiptError, match=says):
        decode(text)


def test_a_member_that_is_not_in_the_format_is_refused() -> None:
    with pytest.raises(ReceiptError, match="extra"):
        decode(encoded(document(signed(MINER)) | {"extra": 1}))


@pytest.mark.parametrize(
    "changes",
    [{"time": str(NOW_MS)}, {"time": float(NOW_MS)}, {"choices": "1"}, {"choices": True}, {"cached": "no"},
     {"cached": 0}],
    ids=str,
)  # fmt: skip
def test_what_was_not_signed_as_it_stands_is_refused(changes: dict[str, Any]) -> None:
    """Of one signature there is one document: who reads by the specification alone must not judge otherwise."""
    with pytest.raises(ReceiptError, match="damaged receipt"):
        decode(encoded(document(signed(MINER)) | changes))


@pytest.mark.parametrize("member", ["cached", "choices", "unsigned", "base.digest", "base.revision"])
def test_a_signed_member_that_was_left_out_is_missed(member: str) -> None:
    changed = document(signed(MINER))
    del (changed["base"] if "." in member else changed)[member.removeprefix("base.")]
    with pytest.raises(ReceiptError, match=f"{member}: Field required"):
        decode(encoded(changed))


def test_what_would_speak_to_a_terminal_is_refused() -> None:
    with pytest.raises(ReceiptError, match="twin"):
        decode(signed(MINER, twin="dr\x1b[2J"))


def test_a_refusal_does_not_speak_to_a_terminal_either() -> None:
    with pytest.raises(ReceiptError, match="Extra inputs") as caught:
        decode(encoded(document(signed(MINER)) | {"\x1b[2J\x9b\u202e✓ signature": 1}))
    assert str(caught.value).isprintable()


def test_the_json_itself_is_read_too() -> None:
    receipt = signed(MINER)
    assert decode(canonical(document(receipt)).decode()) == decode(receipt)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_text_makes_the_reader_fail_in_another_way(text: str) -> None:
    with pytest.raises(ReceiptError):
        decode(text)


def test_a_receipt_fits_a_header() -> None:
    longest = signed(
        MINER, twin="d" * 63, base={"name": "m" * 128, "revision": "r" * 128, "digest": "sha256:" + "c" * 64}
    )
    assert len(longest) < 2048
    assert decode(longest).is_genuine()


def test_receipts_load_no_sdk() -> None:
    code = (
        "import sys; from tests.unit.receipts.samples import *; from tests.unit.receipts.keyring import MINER\n"
        "from neurons.receipts import decode; assert decode(signed(MINER)).is_genuine()\n"
        "assert 'bittensor' not in sys.modules, 'the SDK takes seconds to load'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_key_that_can_not_sign_is_refused() -> None:
    class Ecdsa:
        ss58_address, public_key, crypto_type = "5x", b"", 2

        def sign(self, payload: bytes) -> bytes:
            return payload

    with pytest.raises(ValueError, match="sr25519 or ed25519"):
        ReceiptSigner(Ecdsa())


def test_samples_are_what_their_names_say() -> None:
    receipt = decode(signed(MINER))
    assert (receipt.question, receipt.answer) == (question_of_text(QUESTION), answer_of([ANSWER]))
