"""The load of the signed wire is what a miner lets in: else its rate would be that of refusals."""

from __future__ import annotations

import time
from pathlib import Path

from bittensor import http_auth

from tests.bench.doors import AHEAD_NS, SignedDoor
from tests.bench.wrk import _each, _lua
from tests.unit.receipts.keyring import MINER, VALIDATOR

URL = "http://127.0.0.1:8091/v1/chat/completions"
BODY = '{"model": "indra", "messages": []}'


def test_each_request_is_signed_anew_and_lasts_for_a_stretch_of_load() -> None:
    door = SignedDoor(VALIDATOR, receiver=MINER.ss58_address)
    made = door.each(URL, BODY, 20)
    store = http_auth.InMemoryNonceStore()
    for headers in made:
        http_auth.verify(
            headers, BODY.encode(), method="POST", path="/v1/chat/completions", self_hotkey_ss58=MINER.ss58_address,
            nonce_store=store,
        )  # fmt: skip
    assert len({headers["X-Bittensor-Nonce"] for headers in made}) == 20
    assert int(made[0]["X-Bittensor-Nonce"]) + http_auth.DEFAULT_MAX_AGE * 1e9 > time.time_ns() + door.longest * 1e9
    assert AHEAD_NS < http_auth.DEFAULT_ALLOWED_SKEW * 1e9


def test_what_the_script_sends_is_the_body_that_was_signed(tmp_path: Path) -> None:
    script = _each(URL, BODY, {}, tmp_path / "each.txt")
    assert _lua("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8091\r\n")[:-1] in script
    assert _lua(f"\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}") in script
