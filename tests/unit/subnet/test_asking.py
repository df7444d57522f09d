"""A question as a validator puts it: whom it goes to, and that only a proven answer is taken."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bettertherapy_api import names
from neurons.receipts import MetagraphFile, decode, write_metagraph
from neurons.receipts.__main__ import main as receipts
from neurons.subnet.__main__ import main
from neurons.subnet.announced import announcements, refusal_text
from neurons.subnet.asking import Answered, ask, miner_of, text_of
from neurons.subnet.errors import SubnetError
from neurons.wire.announcement import Announcement
from neurons.wire.signer import RequestSigner
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, held
from tests.unit.miner.signing_miner import INDRA, neuron, on_subnet, wallet
from tests.unit.receipts.keyring import MINER, OTHER_MINER, VALIDATOR
from tests.unit.receipts.samples import signed

TEXT = "I have had a headache for two days."


async def announced_by(metagraph: MetagraphFile) -> dict[str, Announcement | str]:
    """Return what is announced, once the miner has read who may ask."""
    async with asyncio.timeout(30):
        while True:
            said = await announcements(metagraph.neurons, RequestSigner(VALIDATOR), netuid=42)
            if any(isinstance(each, Announcement) and each.twins for each in said.values()):
                return said
            await asyncio.sleep(0.05)


async def test_the_command_asks_the_miner_that_has_the_twin_and_leaves_what_verify_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = on_subnet(tmp_path)
    async with FakeAgent(pod="p1", holds=held(INDRA)) as agent, RunningMiner(tmp_path, subnet=settings) as miner:
        miner.route({"indra": Twin((INDRA,), doctor="Dr. Indra")})
        miner.report([agent])
        axon = miner.url.removeprefix("http://")
        neurons = (
            neuron(0, VALIDATOR, permit=True),
            neuron(1, OTHER_MINER).model_copy(update={"axon": "127.0.0.1:1"}),
            neuron(2, MINER).model_copy(update={"axon": axon}),
        )
        metagraph = MetagraphFile(netuid=42, block=1000, time=time.time_ns() // 10**6, neurons=neurons)
        said = await announced_by(metagraph)
        with pytest.raises(SubnetError, match=r"No miner announces sita now.*UID 2: it announces indra"):
            miner_of("sita", neurons, said)
        with pytest.raises(SubnetError, match=r"doesn't announce indra now.*UID 1: it can't be reached"):
            miner_of("indra", neurons, said, hotkey=OTHER_MINER.ss58_address)

        file = tmp_path / "shown.json"
        write_metagraph(file, netuid=42, block=1000, neurons=neurons, time_ms=metagraph.time)
        keys = tmp_path / "bob"
        keys.mkdir()
        run = ["ask", "indra", TEXT, "--metagraph", str(file), "--wallet", str(wallet(keys, VALIDATOR)), "-o", "json"]
        assert await asyncio.to_thread(main, run) == 0
        answered = json.loads(capsys.readouterr().out)

    assert (answered["uid"], answered["answer"], answered["adapter"]) == (2, "It is fine.", "sha256:" + "a" * 64)
    assert decode(answered["receipt"]).hotkey == MINER.ss58_address
    prove = ["verify", answered["receipt"], "--twin", "indra", "--adapter", answered["adapter"],
             "--question", json.dumps(answered["messages"]), "--metagraph", str(file)]  # fmt: skip
    assert receipts([*prove, "--answer", answered["answer"]]) == 0
    assert receipts([*prove, "--answer", answered["answer"] + " Take two."]) == 1
    assert "The answer was altered" in capsys.readouterr().out


def test_a_hotkey_that_nobody_has_is_said_to_be_nobodys() -> None:
    with pytest.raises(SubnetError, match=r"No miner of this subnet has the hotkey abc: .*whole") as caught:
        miner_of("indra", [neuron(1, MINER)], {}, hotkey="abc")
    assert "announces" not in str(caught.value)


def test_a_refusal_is_told_in_the_miners_words_alone() -> None:
    body = {"error": {"message": "you are\nnot registered", "type": "permission_error", "code": "not_registered"}}
    assert refusal_text(json.dumps(body).encode()) == "you are not registered"
    assert refusal_text(b'{"error": 7}') == '{"error": 7}'


async def ask_one_that(answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Ask a registered miner that answers so and announces nothing."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        asked = neuron(1, MINER).model_copy(update={"axon": f"127.0.0.1:{server.port}"})
        metagraph = MetagraphFile(netuid=42, block=1000, neurons=(asked,))
        nothing = Announcement.model_construct(twins=())
        await ask(metagraph, asked, nothing, RequestSigner(VALIDATOR), twin="indra", text=TEXT, max_tokens=8)


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (200, {}, "without a receipt"),
        (200, {names.RECEIPT_HEADER: "nonsense!"}, "This is no receipt"),
        (200, {names.RECEIPT_HEADER: signed(OTHER_MINER, twin="indra")}, "signed by another miner"),
        (200, {names.RECEIPT_HEADER: signed(MINER)}, "Another doctor's twin"),
        (403, {}, "answered 403: no permit"),
    ],
    ids=["none", "junk", "another miner's", "another twin's", "refused"],
)
async def test_what_the_receipt_does_not_prove_is_discarded(status: int, headers: dict[str, str], says: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        body = {"choices": [{"message": {"content": "x"}}]}
        return web.Response(
            status=status, headers=headers, text=json.dumps(body) if status == 200 else "no permit\x1b[2J"
        )

    with pytest.raises(SubnetError, match=says) as caught:
        await ask_one_that(answer)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000, rb'{"choices":[{"message":{"content":"half \ud83d"}}]}',
        b'{"choices":[{"message":{"content":"x"}},{"message":{"content":"y"}}]}',
    ],
    ids=["deep", "half a character", "two answers"],
)  # fmt: skip
async def test_a_miner_that_sends_what_is_no_answer_is_told_so(body: bytes) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(headers={names.RECEIPT_HEADER: signed(MINER, twin="indra")}, body=body)

    with pytest.raises(SubnetError, match="it is no chat completion"):
        await ask_one_that(answer)


def test_an_answer_does_not_move_the_cursor() -> None:
    answered = Answered(
        uid=1, hotkey=MINER.ss58_address, axon="127.0.0.1:1", twin="indra", adapter=None, messages=[], seconds=1.0,
        answer="Rest.\x1b[2J\x9b1A\r\u202e\n\tआराम गर्\u200dनुहोस्।", receipt="x",
    )  # fmt: skip
    shown = text_of(answered)
    assert shown.startswith("Rest. [2J 1A  \n\tआराम गर्\u200dनुहोस्।\n")


def test_a_question_needs_a_subnet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "indra", TEXT, "--wallet", str(wallet(tmp_path))]) == 1
    assert "Give --network and --netuid" in capsys.readouterr().err
