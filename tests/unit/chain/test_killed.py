"""The chain's process is ended at every one of its writes: what comes out is as if nobody had touched it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import bittensor as bt
import pytest

from neurons.chain.connection import Chain
from neurons.chain.local.__main__ import Settings, main, parse, serve
from neurons.chain.local.enrolment import enrol
from neurons.chain.local.node import LocalChain
from neurons.chain.local.substrate import LocalSubstrate
from neurons.chain.weights import Outcome, read_outcome, set_weights
from tests.bench import chain as chain_bench
from tests.unit.chain.killing import everything, play, prepare
from tests.unit.chain.played import NETUID, coldkey_of, genesis, hotkey, keypair


@pytest.mark.timeout(600)  # it starts chains by the dozen, or processes, maybe beside other suites
async def test_the_benchmark_kills_as_often_as_it_is_told() -> None:
    found = await chain_bench.played(3, seconds=[])
    assert (found.kills, found.restarts, found.different, found.lost, found.twice) == (3, 3, 0, 0, 0)


@pytest.mark.timeout(600)
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
        process.wait(timeout=60)
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


@pytest.mark.timeout(600)  # it starts chains by the dozen, or processes, maybe beside other suites
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
        process.wait(timeout=60)
    with service(path, port) as process:
        await answering(url, process)
        assert await read_outcome(chain, submission) is Outcome.PENDING
        async with aiohttp.ClientSession() as session, session.post(f"{url}/blocks", json={"count": 5}) as made:
            assert made.status == 200
        assert await read_outcome(chain, submission) is Outcome.REVEALED
        process.terminate()
        assert process.wait(timeout=60) == 0
    await chain.close()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("missing/chain.db", None, "can't be used as a chain"),
        (
            "README.md",
            "# not a chain, and long enough to be read as a file of SQLite's, which it is not" * 20,
            "can't be used as a chain",
        ),
    ],
)
def test_a_file_that_can_hold_no_chain_is_told(
    tmp_path: Path, name: str, content: str | None, why: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["chain", "--file", str(path), *OWNER, "--port", str(free_port())])
    assert main() == 1
    assert why in caplog.text
    assert "Traceback" not in caplog.text + capsys.readouterr().err


OWNER = ["--owner-coldkey", coldkey_of("owner"), "--owner-hotkey", hotkey("owner").address]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--blocks", "never"], "give seconds, instant or manual"),
        (["--blocks", "0"], "give seconds, instant or manual"),
        (["--blocks", "inf"], "give seconds, instant or manual"),
        (["--blocks", "0.0001"], "give seconds, instant or manual"),
        (["--set", "tempos=3"], "no such hyperparameter"),
        ([*OWNER, "--set", "tempo=soon"], 'hyperparameter tempo is "soon": it takes an integer from 0 to 65535'),
        ([*OWNER, "--set", "tempo"], 'hyperparameter tempo is "": it takes an integer'),
        ([*OWNER, "--set", "tempo=-3"], "hyperparameter tempo is -3: it takes an integer"),
        ([*OWNER, "--set", "kappa=70000"], "it takes an integer from 0 to 65535"),
        ([*OWNER, "--set", "tempo=true"], "hyperparameter tempo is true: it takes an integer"),
        ([*OWNER, "--set", "commit_reveal_weights_enabled=False"], 'is "False": it takes true or false'),
        ([*OWNER, "--set", "epoch_consensus=Nul"], 'is "Nul": it takes Yuma or Null'),
        (["--owner-coldkey", "5x", *OWNER[2:]], "the owner's coldkey: '5x' is no ss58 address"),
        ([*OWNER[:3], OWNER[3][:-1] + "x"], "the owner's hotkey: "),
        ([*OWNER, "--netuid", "-1"], "--netuid"),
        ([*OWNER, "--max-uids", "0"], "--max-uids"),
        ([*OWNER, "--requests-per-second", "0"], "--requests-per-second"),
        ([*OWNER, "--port", "99999"], "--port"),
        ([*OWNER, "--block", "3"], "unrecognized arguments: --block"),
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
