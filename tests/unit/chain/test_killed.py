"""The chain's process is ended at every one of its writes: what comes out is as if nobody had touched it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bittensor as bt
import pytest
from aiohttp import web

from neurons.chain.axon import serve_axon
from neurons.chain.connection import Chain
from neurons.chain.local.__main__ import Settings, parse, serve
from neurons.chain.local.enrolment import enrol
from neurons.chain.local.node import LocalChain
from neurons.chain.local.storage import Database
from neurons.chain.local.substrate import LocalSubstrate
from neurons.chain.weights import Outcome, read_outcome, set_weights
from tests.unit.chain.played import NETUID, coldkey_of, genesis, hotkey, keypair, open_subnet

SHORT = {"tempo": 5, "immunity_period": 0}


class KilledError(Exception):
    """The process is gone."""


class Mortal(Database):
    """Dies at its nth transaction, `committed` or not."""

    def __init__(self, path: Path, *, dies_at: int = 0, committed: bool = False) -> None:
        super().__init__(path)
        self.transactions = 0
        self.dead = False
        self._dies_at, self._committed = dies_at, committed

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.dead:
            raise KilledError
        self.transactions += 1
        dies = self.transactions == self._dies_at
        with super().transaction():
            yield
            if dies and not self._committed:
                self.dead = True
                raise KilledError
        if dies:
            self.dead = True
            raise KilledError


class Watched:
    """A subnet that is started again on its file, at its port, whenever somebody finds it dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0

    async def start(self, *, dies_at: int, committed: bool) -> None:
        self.database = Mortal(self.path, dies_at=dies_at, committed=committed)
        self.subnet = await open_subnet(self.path, database=self.database, hyperparameters=SHORT)
        self.port = self.subnet.server.port
        self._lose_answers()

    def _lose_answers(self) -> None:
        async def silent_when_dead(_request: web.Request) -> web.Response | None:
            return web.Response(status=503) if self.database.dead else None

        self.subnet.intercept = silent_when_dead

    async def revive(self, _seconds: float = 0.0) -> None:
        if not self.database.dead:
            return
        self.restarts += 1
        await self.subnet.kill()
        self.database = Mortal(self.path)
        self.subnet = await open_subnet(self.path, database=self.database, hyperparameters=SHORT, port=self.port)
        self._lose_answers()

    async def advance_to(self, block: int) -> None:
        while self.subnet.service.chain.head < block:
            try:
                await self.subnet.advance(block - self.subnet.service.chain.head)
            except KilledError:
                await self.revive()


async def prepare(path: Path) -> None:
    """A validator with its permit (UID 0), two miners (1, 2)."""
    before = await open_subnet(path, hyperparameters=SHORT)
    client = await before.client()
    await enrol(client, keypair("validator-cold"), hotkey("validator").address, NETUID, stake_tao=100)
    for name in ("a", "b"):
        await enrol(client, keypair(f"{name}-cold"), hotkey(name).address, NETUID)
    await before.run_epoch()
    await before.stop()


async def play(path: Path, *, dies_at: int = 0, committed: bool = False) -> tuple[Watched, int]:
    """A miner serves and a validator sets weights in two rounds; returns what there is, and how many writes it took."""
    watched = Watched(path)
    await watched.start(dies_at=dies_at, committed=committed)
    chain = Chain(watched.subnet.url, sleep=watched.revive, retries=3)
    await serve_axon(chain, hotkey("a"), NETUID, address="10.0.0.1", port=8091)
    rounds: list[dict[int, float]] = [{1: 3.0, 2: 1.0}, {1: 1.0, 2: 3.0}]
    for weights in rounds:
        began = watched.subnet.service.chain.head
        submission = await set_weights(chain, hotkey("validator"), NETUID, weights, since=began + 1)
        await watched.advance_to(submission.block + 6)
        assert await read_outcome(chain, submission) is Outcome.REVEALED
    await chain.close()
    return watched, watched.database.transactions


def everything(chain: LocalChain) -> dict[str, Any]:
    """All of storage as of the head, and how often each thing happened."""
    rows = chain._database._connection.execute(
        "SELECT item, params, value, MAX(block) FROM storage GROUP BY item, params"
    )
    storage = {f"{item}{params}": value for item, params, value, _block in rows if value is not None}
    events = Counter(
        record["event"]["event_id"]
        for number in range(chain.head + 1)
        for record in chain.body(chain.header(number).hash)["events"]
    )
    return {"storage": storage, "events": events, "head": chain.head}


async def test_killed_at_every_write_it_ends_as_undisturbed(tmp_path: Path) -> None:
    await prepare(tmp_path / "prepared.db")
    undisturbed, writes = await play(Path(shutil.copy(tmp_path / "prepared.db", tmp_path / "undisturbed.db")))
    expected = everything(undisturbed.subnet.service.chain)
    await undisturbed.subnet.stop()
    assert expected["events"]["TimelockedWeightsCommitted"] == 2
    assert expected["events"]["TimelockedWeightsRevealed"] == 2
    assert expected["events"]["AxonServed"] == 1
    assert writes > 15
    for dies_at in range(1, writes + 1):
        for committed in (False, True):
            path = Path(shutil.copy(tmp_path / "prepared.db", tmp_path / f"killed-{dies_at}-{committed}.db"))
            killed, _ = await play(path, dies_at=dies_at, committed=committed)
            assert killed.restarts == 1
            found = everything(killed.subnet.service.chain)
            assert found == expected, f"killed at write {dies_at}, committed: {committed}"
            await killed.subnet.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(path: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "neurons.chain.local", "--file", str(path), "--port", str(port), "--blocks", "instant",
        "--owner-coldkey", coldkey_of("owner"), "--owner-hotkey", hotkey("owner").address,
        "--set", "tempo=5", "--set", "weights_rate_limit=0", "--set", "max_regs_per_block=9",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
        if process.stderr:
            process.stderr.close()


async def answering(url: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            try:
                async with session.get(f"{url}/healthz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def test_the_real_process_killed_and_started_again_goes_on(tmp_path: Path) -> None:
    path, port = tmp_path / "chain.db", free_port()
    url = f"http://127.0.0.1:{port}"
    chain = Chain(url)
    with service(path, port) as process:
        await answering(url, process)
        async with bt.Client("local", substrate=LocalSubstrate(url)) as client:
            await enrol(client, keypair("validator-cold"), hotkey("validator").address, NETUID, stake_tao=100)
            await enrol(client, keypair("a-cold"), hotkey("a").address, NETUID)
        async with aiohttp.ClientSession() as session, session.post(f"{url}/blocks", json={"count": 10}) as made:
            assert made.status == 200
        submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=1 + 10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    with service(path, port) as process:
        await answering(url, process)
        assert await read_outcome(chain, submission) is Outcome.PENDING
        async with aiohttp.ClientSession() as session, session.post(f"{url}/blocks", json={"count": 5}) as made:
            assert made.status == 200
        assert await read_outcome(chain, submission) is Outcome.REVEALED
        process.terminate()
        assert process.wait(timeout=10) == 0
    await chain.close()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--blocks", "never"], "give seconds, instant or manual"),
        (["--blocks", "0"], "give seconds, instant or manual"),
        (["--set", "tempos=3"], "no such hyperparameter"),
        ([], "say whose it is"),
    ],
)
def test_a_wrong_command_line_is_told(
    tmp_path: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--file", str(tmp_path / "none.db"), *arguments])
    assert why in capsys.readouterr().err


def test_a_command_line_says_how_the_chain_begins(tmp_path: Path) -> None:
    owner = ["--owner-coldkey", coldkey_of("owner"), "--owner-hotkey", hotkey("owner").address]
    found = parse(
        ["--file", str(tmp_path / "c.db"), *owner, "--set", "tempo=9", "--set", "epoch_consensus=Null", "--blocks", "2"]
    )
    assert found.genesis is not None
    assert found.genesis.hyperparameters == {"tempo": 9, "epoch_consensus": "Null"}
    assert (found.interval, found.genesis.block_seconds) == (2.0, 2.0)
    LocalChain.open(found.file, genesis()).close()
    assert parse(["--file", str(found.file)]).genesis is None


async def test_with_a_clock_of_its_own_nobody_else_moves_it(tmp_path: Path) -> None:
    stop = asyncio.Event()
    port = free_port()
    given = Settings(
        file=tmp_path / "chain.db",
        host="127.0.0.1",
        port=port,
        sealing="0.05",
        requests_per_second=None,
        genesis=genesis(block_seconds=0.05),
    )
    served = asyncio.create_task(serve(given, stop))
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while not served.done():
            try:
                async with session.post(f"{url}/blocks", json={"count": 1}) as answer:
                    assert answer.status == 404
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0)
        async with bt.Client("local", substrate=LocalSubstrate(url)) as client:
            assert (await client.wait_for_block(3)).number >= 3
    stop.set()
    await served
