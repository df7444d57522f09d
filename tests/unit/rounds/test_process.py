"""`python -m neurons.validator.rounds` as processes, on the local subnet, with miners at private addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from bittensor import sp_core

from neurons.ledger import Ledger
from neurons.ledger.rounds import claims, round_rows
from neurons.validator.rounds.challenges import load_challenges
from tests.unit.chain.conftest import no_symbol_cache, open_local, subnet
from tests.unit.chain.played import NETUID, Subnet, hotkey
from tests.unit.rounds.people import ROUND, SAMPLE, order
from tests.unit.rounds.test_whole import ExaminedMiner, guessing, knowing

__all__ = ["no_symbol_cache", "open_local", "subnet"]
WHERE = Path(__file__).parents[3]


class Processes:
    """Starts the program as a Job's pod does: an order in a file, the hotkey in a folder, the ledger by its URL."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.ledger_url = folder, f"sqlite:///{folder}/ledger.db"
        self.order = folder / "round.json"
        self.order.write_text(
            order(
                netuid=NETUID, network=url, itemsPerTwin=4, deadlineSeconds=600, challenges=f"file://{SAMPLE}"
            ).to_json()
        )
        self.wallet = folder / "wallet"
        self.wallet.mkdir()
        key = self.wallet / "hotkey"
        key.write_bytes(sp_core.serialized_keypair_to_keyfile_data(hotkey("validator").keypair))

    async def start(self, command: str, *more: str) -> asyncio.subprocess.Process:
        environment = {
            **os.environ, "LEDGER_URL": self.ledger_url, "POD_UID": "pod-1", "HOME": str(self.folder),
            "TWINS_FILE": str(self.folder / "none.json"),
        }  # fmt: skip
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neurons.validator.rounds", command, "--order", str(self.order), "--wallet-dir",
            str(self.wallet), *more, cwd=WHERE, env=environment, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def run(self, command: str, *more: str) -> tuple[int, str]:
        process = await self.start(command, *more)
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


async def put_on_loopback(on: Subnet, miner: ExaminedMiner) -> None:
    """Write where a miner is into the chain, which by itself takes no address of this machine's own."""
    host, _, port = miner.axon.rpartition(":")
    axon = {
        "block": 1, "version": 1, "ip": int(ipaddress.ip_address(host)), "port": int(port), "ip_type": 4, "protocol": 4,
    }  # fmt: skip
    address = str(miner.keypair.ss58_address)
    await on.service.make_blocks(1, {f"SubtensorModule.Axons/{NETUID}/{address}": axon})


async def test_a_round_by_processes_from_its_order_to_weights_in_force(subnet: Subnet, tmp_path: Path) -> None:
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("good", "bad")
    await subnet.run_epoch()
    async with AsyncExitStack() as stack:
        for miner in (ExaminedMiner("good", knowing), ExaminedMiner("bad", guessing)):
            await stack.enter_async_context(miner)
            await put_on_loopback(subnet, miner)
        processes = Processes(tmp_path, subnet.url)
        status, output = await processes.run("run", "--ask-share", "0")
        assert status == 0, output
        weights = await processes.start("weights")
        async with await Ledger.open(processes.ledger_url) as ledger:
            rows = await round_rows(ledger.database, ROUND)
            assert rows.round is not None
            assert rows.finished is not None
            assert len(rows.answers) == 8
            assert all(each.receipt_valid for each in rows.answers)
            validator, outcomes = rows.round.validator, set[str]()
            while "committed" not in outcomes and weights.returncode is None:
                await asyncio.sleep(0.2)
                made = await claims(ledger.database, validator=validator, netuid=NETUID)
                outcomes = {event.outcome for each in made for event in each.events}
            weights.kill()  # as a node that is gone
            await weights.communicate()
            assert "committed" in outcomes
            await subnet.run_epoch()
            status, output = await processes.run("weights")
            assert status == 0, output
            [claimed] = await claims(ledger.database, validator=validator, netuid=NETUID)
            assert [event.outcome for event in claimed.events] == ["committed", "revealed"]
        status, output = await processes.run("recompute", "--token", "t")
        assert status == 0, output
        questions = [challenge.question for challenge in load_challenges(SAMPLE).challenges]
        assert not [each for each in questions if each in output], "no question is in a log"


async def test_what_stands_against_a_round_is_its_last_word(subnet: Subnet, tmp_path: Path) -> None:
    processes = Processes(tmp_path, subnet.url)
    (processes.wallet / "hotkey").unlink()
    status, output = await processes.run("run")
    last = json.loads(output.rstrip().rpartition("\n")[2])
    assert (status, last["failure"]["class"]) == (1, "WalletMissing")
