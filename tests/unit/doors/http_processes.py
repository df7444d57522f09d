"""All processes that answer HTTP, as they run: an agent and its engine, a miner, a gateway with its pages, a chain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.report import EngineReport, PodRef, PodReport
from bettertherapy_api.routing import BaseModelRef, PodEntry, PoolHeader, RoutingSlice, TwinEntry, Version
from neurons.agent.saved_routing import save_routing
from neurons.cluster import RoutingView
from neurons.receipts import NeuronEntry, write_metagraph
from neurons.validator.gateway.keys import hash_of
from neurons.validator.gateway.sessions import kept_secret
from neurons.validator.pages.cookies import Cookies
from tests.bench.processes import free_port
from tests.standin import BASE
from tests.unit.miner.signing_miner import wallet
from tests.unit.receipts.keyring import COLDKEY, MINER, VALIDATOR, key

ROOT: Final = Path(__file__).parents[3]
TOKEN: Final = "a-token-of-good-length"
KEY: Final = "bt-a-key-of-good-length"
TWIN: Final = "indra"
START_SECONDS: Final = 240.0
NETUID: Final = 42
TASK: Final = "11111111-1111-4111-8111-111111111111"
VISITORS: Final = 500


@dataclass(frozen=True)
class Door:
    """One process."""

    name: str
    port: int
    log: Path
    process: asyncio.subprocess.Process
    authorization: str
    """What lets a client in, in the header `Authorization`."""
    routes: tuple[tuple[str, str], ...]
    """Its methods and paths."""
    visitors: tuple[tuple[str, str], ...] = ()
    """Cookies of browsers that its pages know, each with the token of its forms."""


@asynccontextmanager
async def all_doors(folder: Path, *, level: str = "INFO") -> AsyncIterator[Mapping[str, Door]]:
    """Run them all, each ready; end them afterwards."""
    async with AsyncExitStack() as stack:
        starter = _Starter(stack, folder, level)
        yield {door.name: door for door in [await starter.agent(), await starter.miner(), *await starter.others()]}


class _Starter:
    def __init__(self, stack: AsyncExitStack, folder: Path, level: str) -> None:
        self._stack, self._folder, self._level = stack, folder, level
        self._agent_port = 0
        self._miner_port = 0

    async def agent(self) -> Door:
        folder, port = self._folder / "agent", free_port()
        self._agent_port = port
        folder.mkdir()
        socket = folder / "vllm.sock"
        await self._start("engine", "tests.standin", "--uds", str(socket))
        view = RoutingView("pool")
        view.put({"metadata": {"name": names.routing_slice_name("pool", 0)}, **self._slice().to_dict()})
        save_routing(folder / "adapters" / ".routing.json", view.saved())
        config = folder / "kubeconfig"
        config.write_text(_NO_CLUSTER)
        door = await self._start(
            "agent", "neurons.agent", "--pool=pool", "--namespace=clinic", "--pod-name=pod-0", "--pod-uid=0",
            "--host=127.0.0.1", f"--port={port}", "--metrics-port=0", f"--socket={socket}", f"--run-dir={folder}",
            f"--adapters-dir={folder / 'adapters'}", f"--pvc-dir={folder}", f"--log-level={self._level}", port=port,
            environment={"KUBECONFIG": str(config)}, ready="/readyz",
            routes=(("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/embeddings"),
                    ("POST", "/tokenize"), ("GET", "/v1/models"), ("GET", "/readyz"), ("GET", "/agent/v1/status"),
                    ("GET", "/agent/v1/lessons"), ("GET", "/agent/v1/lessons/x")),
        )  # fmt: skip
        assert door is not None
        return door

    async def miner(self) -> Door:
        folder, port = self._folder / "miner", free_port()
        self._miner_port = port
        (folder / "access").mkdir(parents=True)
        (folder / "access" / "clinic").write_text(TOKEN)
        report = PodReport(
            pod=PodRef(name="pod-0", uid="0"), ready=True, engine=EngineReport(live=True), adapters={}
        )  # fmt: skip
        for part, name, document in (
            ("slices", names.routing_slice_name("pool", 0), self._slice().to_dict()),
            ("reports", "pod-0", report.to_dict()),
        ):
            (folder / "tables" / part).mkdir(parents=True)
            (folder / "tables" / part / f"{name}.json").write_text(json.dumps({"metadata": {"name": name}, **document}))
        rows = tuple(
            NeuronEntry(
                uid=uid, hotkey=each.ss58_address, coldkey=key(f"Owner{uid}").ss58_address, stake=1000,
                validator_permit=each is VALIDATOR, axon=f"127.0.0.1:{port}" if each is MINER else None,
                block_at_registration=uid,
            )
            for uid, each in enumerate((VALIDATOR, MINER))
        )  # fmt: skip
        write_metagraph(
            self._folder / "metagraph.json", netuid=NETUID, block=1000, time_ms=time.time_ns() // 10**6, neurons=rows
        )
        door = await self._start(
            "miner", "neurons.miner", "--pool=pool", "--namespace=clinic", "--host=127.0.0.1", f"--port={port}",
            "--metrics-port=0", f"--access-dir={folder / 'access'}", f"--tables-dir={folder / 'tables'}",
            "--hold-seconds=2", "--drain-delay=0", "--lessons=off", f"--wallet-dir={wallet(folder)}",
            f"--netuid={NETUID}", f"--metagraph-file={self._folder / 'metagraph.json'}", "--caller-rate=100000",
            "--caller-burst=100000", f"--log-level={self._level}", port=port, ready="/readyz", authorization=TOKEN,
            routes=(("POST", "/v1/chat/completions"), ("POST", "/v1/responses"), ("POST", "/v1/completions"),
                    ("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", f"/v1/models/{TWIN}"),
                    ("GET", "/v1/announcement"), ("POST", "/v1/tasks"), ("GET", "/healthz")),
        )  # fmt: skip
        assert door is not None
        return door

    async def others(self) -> list[Door]:
        folder, port, chain_port = self._folder / "gateway", free_port(), free_port()
        folder.mkdir()
        (folder / "wallet").mkdir()
        wallet(folder, VALIDATOR)
        keys = [{"id": "clinic", "hash": hash_of(KEY), "perMinute": 1_000_000, "burst": 100_000}]
        (folder / "keys.json").write_text(json.dumps({"format": "bettertherapy-keys/1", "keys": keys}))
        options = [
            f"--wallet-dir={folder / 'wallet'}", f"--keys-file={folder / 'keys.json'}",
            f"--metagraph-file={self._folder / 'metagraph.json'}", f"--state-dir={folder / 'state'}",
            "--host=127.0.0.1", f"--port={port}", "--metrics-port=0", "--drain-delay=0", "--deadline-seconds=5",
            f"--log-level={self._level}", "--pages-per-minute=1000000", f"--pages=http://localhost:{port}",
        ]  # fmt: skip
        gateway = await self._start(
            "gateway", "tests.bench.servers.gateway", *options, port=port, ready="/readyz", authorization=KEY,
            environment={"LEDGER_URL": f"sqlite:///{folder}/ledger.db"},
            routes=(("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("POST", "/v1/sessions"),
                    ("GET", "/v1/sessions"), ("GET", "/v1/sessions/00000000-0000-0000-0000-000000000000"),
                    ("POST", "/v1/ratings"), ("POST", "/v1/preferences"), ("GET", "/v1/rounds/x"),
                    ("GET", "/"), ("GET", f"/doctor/{TWIN}"), ("GET", "/sign-in"), ("POST", "/sign-in"),
                    ("POST", f"/doctor/{TWIN}/ask"), ("POST", f"/doctor/{TWIN}/rate"),
                    ("POST", f"/doctor/{TWIN}/prefer"), ("POST", f"/doctor/{TWIN}/consent"),
                    ("POST", f"/doctor/{TWIN}/anew"), ("POST", "/receipt"), ("POST", "/language"),
                    ("POST", "/sign-out"), ("GET", "/desk"), ("GET", "/miners"), ("GET", "/static/x"),
                    ("POST", f"/desk/{TWIN}/upload"), ("POST", f"/v1/tasks/{TASK}/reports"),
                    ("GET", f"/v1/tasks/{TASK}/dataset"), ("PUT", f"/v1/tasks/{TASK}/adapter")),
        )  # fmt: skip
        chain = await self._start(
            "chain", "neurons.chain.local", f"--file={self._folder / 'chain.db'}", f"--port={chain_port}",
            "--blocks=manual", f"--owner-coldkey={COLDKEY.ss58_address}", f"--owner-hotkey={VALIDATOR.ss58_address}",
            port=chain_port, ready="/healthz", routes=(("POST", "/rpc"), ("POST", "/blocks"), ("GET", "/healthz")),
        )  # fmt: skip
        assert gateway is not None
        assert chain is not None
        return [replace(gateway, visitors=tuple(_visitors(folder / "state"))), chain]

    def _slice(self) -> RoutingSlice:
        return RoutingSlice(
            pool=PoolHeader(
                name="pool", uid="pool-uid", generation=1, base_model=BaseModelRef(name=BASE), max_loras=4,
                max_lora_rank=16,
            ),
            twins={
                "uid-indra": TwinEntry(
                    name=TWIN, doctor="Indra Gurung",
                    versions=(Version(served_name=BASE, digest=None, weight_percent=100),),
                )
            },
            pods={"0": PodEntry(name="pod-0", address=f"127.0.0.1:{self._agent_port}")},
        )  # fmt: skip

    async def _start(
        self,
        name: str,
        module: str,
        *options: str,
        port: int | None = None,
        ready: str = "",
        authorization: str = "",
        environment: Mapping[str, str] | None = None,
        routes: tuple[tuple[str, str], ...] = (),
    ) -> Door | None:
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *options, cwd=ROOT, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        self._stack.push_async_callback(_end, process)
        if port is None:
            return None
        async with asyncio.timeout(START_SECONDS):
            while (await asked(port, f"GET {ready} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))[0] != 200:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        bearer = f"Bearer {authorization}" if authorization else "Bearer x"
        return Door(name, port, log, process, bearer, routes)


def _visitors(state: Path) -> Iterator[tuple[str, str]]:
    """Yield cookies and tokens as the pages give them: one visitor may change little in a minute."""
    cookies = Cookies(kept_secret(state), secure=False)
    for _ in range(VISITORS):
        visitor = cookies.new_visitor()
        yield cookies.of_visitor(visitor).partition(";")[0], cookies.token(visitor)


async def asked(port: int, request: bytes, *, seconds: float = 20.0) -> tuple[int, bytes]:
    """Send bytes as they are; return the answer's status and body, 0 where none came. Raises TimeoutError."""
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            while head.split(b" ", 2)[1] == b"100":
                head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            if length is not None:
                body = await reader.readexactly(int(length[1])) if not request.startswith(b"HEAD") else b""
            elif b"chunked" in head.lower():
                body = await reader.readuntil(b"0\r\n\r\n")
            else:
                body = await reader.read()
    except (OSError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        if writer is not None:
            writer.transport.abort()
    return int(head.split(b" ", 2)[1]), body


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


_NO_CLUSTER: Final = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""
