"""The protocol itself: what the SDK signs, byte for byte, and what the signer adds."""

from __future__ import annotations

import hashlib

import pytest
from bittensor import http_auth
from yarl import URL

from neurons.receipts import Keypair
from neurons.wire.payload import body_digest, payload
from neurons.wire.signer import RequestSigner, target_of
from tests.unit.receipts.keyring import key

NONCE_NS = 1_752_076_800_000_000_000
BODY = b'{"prompt": "hello"}'
URL_SIGNED = URL("http://miner.example/generate?stream=false")
ALICE, ALICE_ED, BOB = key("Alice"), key("Alice", ed25519=True), key("Bob")

# The golden vectors of btauth/1, as the SDK's signed-requests guide publishes them for other implementations.
PAYLOAD = [
    "btauth/1", "sr25519", "POST", "/generate?stream=false",
    "341c57448e531310fbbe83f44cea2a5e838bd9e8a6b82b269f01d0dbbc23c3cc", "1752076800000000000",
    "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
]  # fmt: skip
ED25519_SIGNATURE = (
    "0x1a6b631988bf1f7ea093ab9d5acf61f05c316d0b0e428b24b487b75a5f6ee0e1"
    "a56a26918fdf871b6cf09437e6588023a4ce423cf622621b2a7feee17612f704"
)


def test_the_published_payload_is_what_the_sdk_signs() -> None:
    payload = http_auth.build_payload(
        scheme="sr25519", method="POST", path=target_of(URL_SIGNED), body=BODY, nonce_ns=NONCE_NS,
        sender_ss58=ALICE.ss58_address, receiver_ss58=BOB.ss58_address,
    )  # fmt: skip
    assert payload.decode().split("\n") == PAYLOAD
    assert hashlib.sha256(BODY).hexdigest() == PAYLOAD[4]


def test_the_signer_makes_the_published_ed25519_signature() -> None:
    signer = RequestSigner(ALICE_ED, clock_ns=lambda: NONCE_NS)
    headers = signer.headers(method="POST", url=URL_SIGNED, body=BODY, receiver=BOB.ss58_address)
    assert headers == {
        "X-Bittensor-Version": "1",
        "X-Bittensor-Hotkey": "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu",
        "X-Bittensor-Receiver": PAYLOAD[7],
        "X-Bittensor-Nonce": PAYLOAD[5],
        "X-Bittensor-Crypto": "ed25519",
        "X-Bittensor-Signature": ED25519_SIGNATURE,
    }


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
@pytest.mark.parametrize("body", [b"", BODY, "पेट दुख्यो".encode()])
@pytest.mark.parametrize(("method", "path"), [("post", "/"), ("GET", "/v1/models?a=%C3%A9&b=1")])
def test_what_is_signed_is_byte_for_byte_the_sdks(scheme: str, body: bytes, method: str, path: str) -> None:
    who = {"sender_ss58": ALICE.ss58_address, "receiver_ss58": BOB.ss58_address}
    norm = http_auth.build_payload(scheme=scheme, method=method, path=path, body=body, nonce_ns=NONCE_NS, **who)
    ours = payload(
        scheme=scheme, method=method, target=path, digest=body_digest(body), nonce_ns=NONCE_NS,
        sender=ALICE.ss58_address, receiver=BOB.ss58_address,
    )  # fmt: skip
    assert ours == norm


@pytest.mark.parametrize("keypair", [ALICE, ALICE_ED], ids=["sr25519", "ed25519"])
def test_the_sdk_takes_what_the_signer_signs_also_of_a_body_that_is_hashed_already(keypair: Keypair) -> None:
    signer = RequestSigner(keypair)
    target = target_of(URL_SIGNED)
    for headers in (
        signer.headers(method="POST", url=URL_SIGNED, body=BODY, receiver=BOB.ss58_address),
        signer.headers_of(method="POST", target=target, digest=body_digest(BODY), receiver=BOB.ss58_address),
    ):
        caller = http_auth.verify(
            headers, BODY, method="POST", path=target, self_hotkey_ss58=BOB.ss58_address,
            nonce_store=http_auth.InMemoryNonceStore(),
        )  # fmt: skip
        assert caller.hotkey_ss58 == keypair.ss58_address


def test_two_tries_in_the_same_nanosecond_have_two_nonces() -> None:
    signer = RequestSigner(ALICE, clock_ns=lambda: NONCE_NS)
    made = [signer.headers(method="GET", url=URL_SIGNED, body=b"", receiver=BOB.ss58_address) for _ in range(3)]
    assert [int(headers["X-Bittensor-Nonce"]) - NONCE_NS for headers in made] == [0, 1, 2]


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("http://m/v1/models", "/v1/models"), ("http://m", "/"), ("http://m/a b?q=é&x=1", "/a%20b?q=%C3%A9&x=1"),
        ("http://m/v1/models/dr%2Dx?a=%2F", "/v1/models/dr-x?a=/"),
    ],
)  # fmt: skip
def test_what_is_signed_is_what_is_sent(asked: str, target: str) -> None:
    assert target_of(URL(asked)) == target
