"""A miner with a wallet: validators come in by signature, others by token, and nobody else."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import pytest

from neurons.miner import settings
from neurons.miner.__main__ import main
from neurons.miner.errors import StartError
from neurons.miner.settings import MAX_BODY_BYTES, SIGNED_DOOR, TOKEN_DOOR
from neurons.receipts import write_metagraph
from neurons.wire.announcement import read_announcement
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, digest, eventually_async, held, version
from tests.unit.miner.signing_miner import CHAT, INDRA, QUESTION, neuron, on_subnet, signing, validator, wallet
from tests.unit.receipts.keyring import COLDKEY, MINER, STRANGER
from tests.unit.wire.redis_server import RedisServer

SIGNED = "bettertherapy_miner_signed_requests_total"


async def test_a_validator_is_answered_and_so_is_a_token(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        status, _, body = await bob.ask()
        assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "It is fine.")
        assert (await bob.get("/v1/models"))[0] == 200
        assert (await bob.get("/v1/models/indra?x=%2F"))[0] == 200
        assert (await miner.ask("indra"))[0] == 200
        assert miner.metric(SIGNED, outcome="admitted") == 3


async def test_a_stranger_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner, STRANGER) as mallory:
        reader = mallory.signer.headers(
            method="POST", url=miner.client._build_url(CHAT), body=b"", receiver=MINER.ss58_address
        )
        # No body follows: whoever waited for it would answer 408 after half a minute.
        async with aiohttp.ClientSession(miner.url) as session:
            headers = {**reader, "Content-Length": str(MAX_BODY_BYTES)}
            async with session.post(CHAT, headers=headers, data=_never()) as response:
                assert response.status == 403
                assert "is not registered on subnet 42" in (await response.json())["error"]["message"]
        assert miner.metric(SIGNED, outcome="not_registered") == 1


async def _never():  # type: ignore[no-untyped-def]  # a body that doesn't come
    yield b" "


async def test_a_signed_request_is_not_let_in_by_its_token(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner, STRANGER) as mallory:
        headers = mallory.signer.headers(
            method="GET", url=miner.client._build_url("/v1/models"), body=b"", receiver=MINER.ss58_address
        )
        async with miner.client.get("/v1/models", headers=headers) as response:
            assert response.status == 403


async def test_a_replayed_request_is_refused_in_words(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        url = miner.client._build_url("/v1/models")
        headers = bob.signer.headers(method="GET", url=url, body=b"", receiver=MINER.ss58_address)
        for status in (200, 401):
            async with bob.session.get(url, headers=headers) as response:
                assert response.status == status
                document = await response.json()
        error = document["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "replayed")


async def test_a_compressed_body_is_refused_as_it_came(tmp_path: Path) -> None:
    """What is signed are the bytes as they are sent. Whoever has a token may send it packed."""
    async with signing(tmp_path) as miner, validator(miner) as caller:
        plain = json.dumps({"model": "indra", "messages": QUESTION}).encode()
        packed = gzip.compress(plain)
        url = caller.url(CHAT)
        for signed_bytes in (packed, plain):
            headers = caller.signer.headers(method="POST", url=url, body=signed_bytes, receiver=MINER.ss58_address)
            async with caller.session.post(
                url, data=packed, headers=headers | {"Content-Encoding": "gzip"}
            ) as response:
                document = await response.json()
                assert (response.status, document["error"]["code"]) == (415, "content_encoding")
                assert "send a signed body as it is" in document["error"]["message"]
        async with miner.client.post(CHAT, data=packed, headers={"Content-Encoding": "gzip"}) as response:
            assert response.status == 200
        async with miner.client.post(CHAT, data=plain, headers={"Content-Encoding": "identity"}) as response:
            assert response.status == 200


async def test_a_body_that_is_too_large_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    async with signing(tmp_path) as miner, validator(miner) as bob:
        status, _, body = await bob.ask(messages=[{"role": "user", "content": "x" * MAX_BODY_BYTES}])
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(("doors", "by_token", "by_signature"), [
    ({TOKEN_DOOR, SIGNED_DOOR}, 200, 200), ({TOKEN_DOOR}, 200, 401), ({SIGNED_DOOR}, 401, 200),
])  # fmt: skip
async def test_only_the_doors_that_are_open_let_in(
    tmp_path: Path, doors: set[str], by_token: int, by_signature: int
) -> None:
    async with signing(tmp_path, doors=frozenset(doors)) as miner, validator(miner) as bob:
        assert (await miner.ask("indra"))[0] == by_token
        assert (await bob.ask())[0] == by_signature


async def test_two_miners_with_one_store_accept_a_request_once(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nonces-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            shared = {"nonce_store": server.url, "replicas": 2}
            async with signing(tmp_path, **shared) as one, signing(tmp_path, **shared) as other, validator(one) as bob:
                assert (await bob.get("/v1/models"))[0] in (200, 503)  # the store begins with the first question
                url = one.client._build_url("/v1/models")
                headers = bob.signer.headers(method="GET", url=url, body=b"", receiver=MINER.ss58_address)
                statuses = []
                for miner in (one, other, one):
                    async with bob.session.get(f"{miner.url}/v1/models", headers=headers) as response:
                        statuses.append(response.status)
                assert statuses == [200, 401, 401]
                server.stop()
                status, body = await bob.get("/v1/models")
                assert (status, json.loads(body)["error"]["code"]) == (503, "nonce_store_down")
                assert (await one.ask("indra"))[0] == 200, "tokens need no store"
        finally:
            server.stop()


async def test_miners_that_share_no_store_keep_the_signed_door_shut(tmp_path: Path) -> None:
    async with signing(tmp_path, replicas=2) as miner, validator(miner) as bob:
        status, _, body = await bob.ask()
        assert status == 503
        assert "set NONCE_STORE_URL in spec.miner.pod.env" in json.loads(body)["error"]["message"]
        assert (await miner.ask("indra"))[0] == 200


async def test_the_metagraph_counts_from_when_it_changes(tmp_path: Path) -> None:
    async with signing(tmp_path, caller_burst=10_000) as miner, validator(miner) as bob:
        assert (await bob.ask())[0] == 200
        write_metagraph(tmp_path / "metagraph.json", netuid=42, block=1001, neurons=(neuron(1, MINER),))

        async def refused() -> bool:
            return (await bob.ask())[0] == 403

        await eventually_async(refused)


async def test_the_announcement_says_which_versions_answer_now(tmp_path: Path) -> None:
    other = version("okafor", "b")
    agent = FakeAgent(pod="a", holds=held(INDRA))
    async with signing(tmp_path, agent=agent) as miner, validator(miner) as bob:
        miner.route({"indra": Twin(versions=(INDRA,), doctor="Dr. Indra Gurung"), "okafor": Twin(versions=(other,))})
        status, data = await bob.get("/v1/announcement")
        assert status == 200
        said = read_announcement(data, hotkey=MINER.ss58_address, now_ms=_now(), netuid=42)
        assert [(twin.name, twin.doctor) for twin in said.twins] == [("indra", "Dr. Indra Gurung")]
        assert said.holds("indra", digest("a")), "no pod holds the other twin's"
        async with aiohttp.ClientSession(miner.url) as session, session.get("/v1/announcement") as response:
            assert response.status == 401


def _now() -> int:
    return time.time_ns() // 10**6


async def test_without_a_wallet_there_is_no_door_no_receipt_and_no_announcement(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA))
    async with agent, RunningMiner(tmp_path) as miner, validator(miner) as bob:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        status, headers, document = await miner.ask("indra")
        assert status == 200
        assert not [name for name in headers if "receipt" in name.lower()]
        assert "receipt" not in json.dumps(document)
        assert (await bob.ask())[0] == 401
        async with miner.client.get("/v1/announcement") as response:
            assert response.status == 404
        assert "signed_requests" not in miner.service.metrics.render().decode()


def test_a_miner_without_a_wallet_loads_no_sdk() -> None:
    code = (
        "import sys, neurons.miner.__main__; from neurons.miner.service import MinerService\n"
        "from neurons.miner import settings; MinerService(settings.parse(['--pool', 'p']))\n"
        "loaded = {'bittensor', 'bittensor_core', 'redis'} & sys.modules.keys(); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_coldkey_in_the_secret_ends_the_miner_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (wallet(tmp_path) / "coldkey").write_text("$NACL")
    monkeypatch.setattr(sys, "argv", ["miner", "--pool", "p", "--wallet-dir", str(tmp_path / "wallet")])
    assert main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the wallet's Secret holds a coldkey (coldkey)" in json.loads(line)["message"]


async def test_a_key_that_the_chain_knows_as_a_coldkey_ends_the_miner(tmp_path: Path) -> None:
    miner = RunningMiner(tmp_path, subnet=on_subnet(tmp_path, COLDKEY))
    with pytest.raises(StartError, match="delete the Secret"):
        async with asyncio.timeout(30):
            await miner.service.run()


def test_the_stores_password_stands_in_no_message(tmp_path: Path) -> None:
    subnet = on_subnet(tmp_path, nonce_store="http://user:hunter2@nonces")
    with pytest.raises(StartError, match="no address of a Redis-protocol server") as caught:
        RunningMiner(tmp_path, subnet=subnet)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_settings_come_from_arguments_and_the_pods_environment(tmp_path: Path) -> None:
    given = settings.parse(
        ["--pool", "p", "--wallet-dir", str(tmp_path), "--netuid", "42", "--chain", "finney",
         "--external-address", "203.0.113.7:80", "--replicas", "3"],
        {"NONCE_STORE_URL": "redis://n", "MIN_VALIDATOR_STAKE": "1000", "CALLER_RATE": "5", "DOORS": "signed"},
    )  # fmt: skip
    assert given.doors == {SIGNED_DOOR}
    assert given.subnet == settings.SubnetSettings(
        wallet_dir=tmp_path, netuid=42, chain="finney", external_address="203.0.113.7:80", replicas=3,
        nonce_store="redis://n", min_stake=1000, caller_rate=5,
    )  # fmt: skip
    assert settings.parse(["--pool", "p"], {}).subnet is None


@pytest.mark.parametrize(
    "arguments",
    [["--doors", "window"], ["--doors", "signed"], ["--caller-rate", "-1"], ["--caller-rate", "0"], ["--netuid", "-1"]],
)
def test_settings_that_can_not_be_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        settings.parse(["--pool", "p", *arguments], {})
