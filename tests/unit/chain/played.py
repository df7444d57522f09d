"""A local subnet that tests drive: real HTTP, the SDK's real client, real keys, blocks when the test says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bittensor as bt
from aiohttp import web
from aiohttp.test_utils import TestServer

from neurons.chain.connection import Chain
from neurons.chain.local.enrolment import enrol
from neurons.chain.local.genesis import Genesis
from neurons.chain.local.node import LocalChain
from neurons.chain.local.service import RateLimit, Service
from neurons.chain.local.storage import Database
from neurons.chain.local.substrate import LocalSubstrate
from neurons.chain.wallet import Hotkey

NETUID = 1
TEMPO = 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def keypair(name: str) -> bt.sp_core.Keypair:
    return bt.sp_core.Keypair.create_from_uri(f"//{name}")


def hotkey(name: str, *, coldkey: str | None = None) -> Hotkey:
    return Hotkey(keypair(f"{name}-hot"), coldkey)


def coldkey_of(name: str) -> str:
    return str(keypair(f"{name}-cold").ss58_address)


def genesis(**changes: Any) -> Genesis:
    hyperparameters = {
        "tempo": TEMPO,
        "weights_rate_limit": 0,
        "serving_rate_limit": 0,
        "max_regs_per_block": 100,
        "immunity_period": 10,
        **changes.pop("hyperparameters", {}),
    }
    given: dict[str, Any] = {
        "owner_coldkey": coldkey_of("owner"),
        "owner_hotkey": hotkey("owner").address,
        "time": 1_790_000_000.0,
        "sealing_seed": b"s" * 32,
        "least_mortal_uids": 0,
        "hyperparameters": hyperparameters,
    }
    return Genesis(**(given | changes))


@dataclass
class Subnet:
    """The service and how to reach it."""

    path: Path
    service: Service
    server: TestServer
    clients: list[bt.Client] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    intercept: Handler | None = None
    """Answers in the service's place when it is set and gives an answer."""

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    def chain(self, **options: Any) -> Chain:
        """A connection as production code has it, that never really sleeps."""

        async def no_sleep(_seconds: float) -> None:
            return None

        made = Chain(self.url, **({"sleep": no_sleep} | options))
        self.chains.append(made)
        return made

    async def client(self) -> bt.Client:
        """The SDK's client."""
        made = bt.Client("local", substrate=LocalSubstrate(self.url))
        await made.connect()
        self.clients.append(made)
        return made

    async def enrol(self, *names: str, stake_tao: float = 0.0) -> list[int]:
        """Register neurons, each with a coldkey of its own."""
        client = await self.client()
        return [
            await enrol(client, keypair(f"{name}-cold"), hotkey(name).address, NETUID, stake_tao=stake_tao)
            for name in names
        ]

    async def advance(self, blocks: int = 1, **changes: Any) -> int:
        """Make blocks; `changes` are storage items that root would set, `__` for `.`, in the first."""
        items = {f"SubtensorModule.{item}/{NETUID}": value for item, value in changes.items()}
        return (await self.service.make_blocks(blocks, items)).number

    async def run_epoch(self) -> int:
        """Make blocks until the next epoch has run."""
        state = self.service.chain.state()
        due = int(state.get("SubtensorModule.LastEpochBlock", NETUID)) + int(state.get("SubtensorModule.Tempo", NETUID))
        return await self.advance(due - self.service.chain.head)

    async def kill(self) -> None:
        """End the service without a word to anybody; what it had not committed is gone."""
        await self.server.close()
        self.service.chain.close()

    async def stop(self) -> None:
        for client in self.clients:
            await client.close()
        for chain in self.chains:
            await chain.close()
        await self.kill()


async def open_subnet(
    path: Path,
    *,
    instant: bool = True,
    given: Genesis | None = None,
    database: Database | None = None,
    rate_limit: RateLimit | None = None,
    port: int | None = None,
    **changes: Any,
) -> Subnet:
    """Open a chain in a file, new or as it is, and serve it."""
    database = database or Database(path, durable=False)
    chain = LocalChain.open(path, given or genesis(**changes), database=database)
    service = Service(chain, instant=instant, rate_limit=rate_limit)
    app = service.application()
    made: list[Subnet] = []

    @web.middleware
    async def intercepted(request: web.Request, handler: Handler) -> web.StreamResponse:
        if made and made[0].intercept is not None:
            answer = await made[0].intercept(request)
            if answer is not None:
                return answer
        return await handler(request)

    app.middlewares.append(intercepted)
    server = TestServer(app, port=port)
    await server.start_server()
    made.append(Subnet(path, service, server))
    return made[0]
