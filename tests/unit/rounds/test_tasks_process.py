"""A task's whole way by processes: round, gateway and miners as they run, a ledger in SQLite, the local subnet.

Only the operator is played: it reads what a miner asks and publishes its word, in the folder that stands for a cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from bittensor import sp_core

from bettertherapy_api.task_states import PublishedTask, PublishedTasks
from bettertherapy_api.task_states import TaskState as Word
from neurons.ledger import Ledger, TaskState, Twin, derived_id
from neurons.ledger.rounds import TaskStates, tasks
from neurons.trainer import web_dataset
from neurons.validator.gateway.keys import new_key
from tests.unit.chain.conftest import no_symbol_cache, open_local, subnet
from tests.unit.chain.played import NETUID, Subnet, hotkey
from tests.unit.gateway.running_gateway import write_keys
from tests.unit.ledger.world import DAY_MS, Conversation
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import Twin as RoutedTwin
from tests.unit.miner.running_miner import header, held, report_object, slices, version
from tests.unit.rounds.people import SAMPLE, order
from tests.unit.rounds.test_process import WHERE, Processes, put_on_loopback
from tests.unit.rounds.test_whole import CHALLENGES, knowing

__all__ = ["no_symbol_cache", "open_local", "subnet"]
INDRA = version("indra", "a")
TWIN = Twin(uid=derived_id("twin", "indra"), name="indra")
ADAPTER = "sha256:" + "b" * 64
SECRET_WORDS = "My left elbow itches"


@dataclass(kw_only=True)
class KnowingAgent(FakeAgent):
    """An engine pod that answers each question of the set as its author would."""

    async def _answer(self, request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        said = str(body["messages"][-1]["content"])
        self.words = [next((knowing(each) for each in CHALLENGES if each.prompt == said), "Rest.")]
        return await super()._answer(request, body)  # which reads the words before it waits for anything


@dataclass
class MinerProcess:
    """One miner as its pod runs it, with a folder instead of a cluster."""

    name: str
    folder: Path
    chain: str
    more: tuple[str, ...] = ()
    port: int = 0
    process: asyncio.subprocess.Process | None = None
    output: list[str] = field(default_factory=list)

    @property
    def keypair(self) -> Any:
        return hotkey(self.name).keypair

    @property
    def axon(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def tasks(self) -> Path:
        return self.folder / "tables" / "tasks"

    def route(self, agent: FakeAgent) -> None:
        for part in ("slices", "reports"):
            (self.folder / "tables" / part).mkdir(parents=True, exist_ok=True)
        things = slices({"indra": RoutedTwin(versions=(INDRA,), uid=TWIN.uid)}, [agent], pool=header("p"))
        for number, thing in enumerate(things):
            (self.folder / "tables" / "slices" / f"{number}.json").write_text(json.dumps(thing))
        (self.folder / "tables" / "reports" / "a.json").write_text(json.dumps(report_object(agent)))
        wallet, access = self.folder / "wallet", self.folder / "access"
        for each in (wallet, access):
            each.mkdir(exist_ok=True)
        (wallet / "hotkey").write_bytes(sp_core.serialized_keypair_to_keyfile_data(self.keypair))

    async def start(self) -> None:
        """Start it; a second time at the port that it had."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neurons.miner", "--pool", "p", "--namespace", "clinic", "--host", "127.0.0.1",
            "--port", str(self.port), "--metrics-port", "0", "--access-dir", str(self.folder / "access"),
            "--tables-dir", str(self.folder / "tables"), "--drain-delay", "0", "--wallet-dir",
            str(self.folder / "wallet"), "--netuid", str(NETUID), "--chain", self.chain, *self.more,
            cwd=WHERE, env={**os.environ, "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.port = int((await listening(self.process, self.output))["port"])

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def publish(self, *told: PublishedTask) -> None:
        """Let the operator say so."""
        self.tasks.mkdir(parents=True, exist_ok=True)
        part = self.tasks / "part"
        part.write_text(PublishedTasks(tasks=told).to_json())
        part.replace(self.tasks / "tasks.json")


async def listening(process: asyncio.subprocess.Process, output: list[str]) -> dict[str, Any]:
    """Return the line by which a process says that it listens; what it writes is read on."""
    assert process.stderr is not None
    said: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            output.append(raw.decode())
            if '"listening"' in output[-1] and not said.done():
                said.set_result(json.loads(raw))
        if not said.done():
            said.set_exception(AssertionError("".join(output)))

    process.reader = asyncio.create_task(read())  # type: ignore[attr-defined]
    async with asyncio.timeout(120):
        return await said


async def gateway(folder: Path, chain: str, ledger_url: str, stack: AsyncExitStack) -> tuple[str, list[str]]:
    """Start the validator's gateway; returns its URL and what it writes."""
    write_keys(folder / "keys.json", clinic={"key": new_key()})
    output: list[str] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "neurons.validator.gateway", "--wallet-dir", str(folder / "wallet"), "--keys-file",
        str(folder / "keys.json"), "--state-dir", str(folder / "state"), "--netuid", str(NETUID), "--chain", chain,
        "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0", "--drain-delay", "0", "--drain-seconds", "5",
        cwd=WHERE, env={**os.environ, "LEDGER_URL": ledger_url, "PYTHONUNBUFFERED": "1", "HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def end() -> None:
        process.terminate()
        async with asyncio.timeout(60):
            await process.wait()

    stack.push_async_callback(end)
    return f"http://127.0.0.1:{(await listening(process, output))['port']}", output


async def yesterday_talks(ledger: Ledger, count: int = 3) -> None:
    noon = (time.time_ns() // 1_000_000 // DAY_MS) * DAY_MS - DAY_MS // 2
    for number in range(count):
        talk = Conversation(twin=TWIN, at_ms=noon + number * 1000)
        [answer] = talk.ask(f"{SECRET_WORDS}, number {number}.", "Use a cream without perfume.")
        talk.rate(answer, 4)
        await ledger.record(*talk.records)


async def known(ledger: Ledger) -> dict[str, TaskStates]:
    found = await tasks(ledger.database, since_ms=0, until_ms=2**50)
    return {each.task.miner.hotkey: each for each in found}


async def states(ledger: Ledger, miner: MinerProcess) -> list[TaskState]:
    found = (await known(ledger)).get(str(miner.keypair.ss58_address))
    return [] if found is None else [event.state for event in found.events]


async def until(ledger: Ledger, miner: MinerProcess, wanted: list[TaskState], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while await states(ledger, miner) != wanted:
            await asyncio.sleep(0.1)


async def test_a_task_travels_to_the_miners_and_what_came_of_it_back(subnet: Subnet, tmp_path: Path) -> None:
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("taker", "refuser")
    await subnet.run_epoch()
    processes = Processes(tmp_path, subnet.url)
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(KnowingAgent(pod="a", holds=held(INDRA)))
        taker = MinerProcess("taker", tmp_path / "taker", subnet.url, ("--tasks",))
        refuser = MinerProcess("refuser", tmp_path / "refuser", subnet.url)
        for miner in (taker, refuser):
            miner.route(agent)
            await miner.start()
            stack.push_async_callback(miner.kill)
            await put_on_loopback(subnet, miner)  # type: ignore[arg-type]
        ledger = await stack.enter_async_context(await Ledger.open(processes.ledger_url))
        await yesterday_talks(ledger)
        url, gateway_output = await gateway(tmp_path, subnet.url, processes.ledger_url, stack)
        processes.order.write_text(
            order(
                netuid=NETUID, network=subnet.url, itemsPerTwin=4, deadlineSeconds=600, challenges=f"file://{SAMPLE}",
                startedAt=datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"),
                tasks={"url": url, "minInteractions": 2},
            ).to_json()
        )  # fmt: skip
        round_of_it = await processes.start("run", "--ask-share", "0")

        claims = taker.tasks / "claims.json"
        async with asyncio.timeout(120):
            while not claims.exists() or not json.loads(claims.read_text()):
                if round_of_it.returncode is not None:
                    output, _ = await round_of_it.communicate()
                    raise AssertionError(output.decode() + "".join(taker.output))
                await asyncio.sleep(0.05)
        [claim] = json.loads(claims.read_text())
        assert await states(ledger, taker) == [], "nothing is promised that the operator didn't write down"
        data = await web_dataset.fetch(claim["dataset"], at_most=2**20, loopback=True)
        assert "sha256:" + hashlib.sha256(data).hexdigest() == claim["datasetDigest"]
        assert data.count(SECRET_WORDS.encode()) == 3

        def says(state: Word, **more: Any) -> PublishedTask:
            told = {part: claim[part] for part in ("id", "validator", "dataset", "deadline")}
            return PublishedTask(**told, state=state, **more)

        taker.publish(says(Word.ACCEPTED))
        output, _ = await round_of_it.communicate()
        assert round_of_it.returncode == 0, output.decode()
        assert await states(ledger, taker) == [TaskState.ACCEPTED]
        assert await states(ledger, refuser) == [TaskState.REFUSED]

        # Killed between its promise and its report, and started again when the run is done.
        await taker.kill()
        taker.publish(says(Word.FINISHED, adapter=ADAPTER, message="Promote by the miner's own gate, 40 items"))
        await taker.start()
        await until(ledger, taker, [TaskState.ACCEPTED, TaskState.FINISHED])
        finished = (await known(ledger))[str(taker.keypair.ss58_address)].events[-1]
        assert finished.adapter_digest == ADAPTER
        assert "Promote" in finished.detail

        everything = output.decode() + "".join(gateway_output + taker.output + refuser.output)
        assert SECRET_WORDS not in everything
        assert "signature=" not in everything, "what opens the dataset is in no log"
