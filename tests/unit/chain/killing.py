"""A game on a local chain whose process ends at one of its writes, and what is left in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from neurons.chain.axon import serve_axon
from neurons.chain.connection import Chain
from neurons.chain.local.enrolment import enrol
from neurons.chain.local.node import LocalChain
from neurons.chain.local.storage import Database
from neurons.chain.weights import Outcome, read_outcome, set_weights
from tests.unit.chain.played import NETUID, hotkey, keypair, open_subnet

SHORT = {"tempo": 5, "immunity_period": 0}


class KilledError(Exception):
    """The process is gone."""


class Mortal(Database):
    """Dies at its nth transaction, `committed` or not."""

    def __init__(self, path: Path, *, dies_at: int = 0, committed: bool = False) -> None:
        super().__init__(path, durable=False)
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


ROUNDS: Sequence[Mapping[int, float]] = ({1: 3.0, 2: 1.0}, {1: 1.0, 2: 3.0})


async def play(
    path: Path, *, dies_at: int = 0, committed: bool = False, rounds: Sequence[Mapping[int, float]] = ROUNDS
) -> tuple[Watched, int]:
    """A miner serves and a validator sets weights in rounds; returns what there is, and how many writes it took."""
    watched = Watched(path)
    await watched.start(dies_at=dies_at, committed=committed)
    chain = Chain(watched.subnet.url, sleep=watched.revive, retries=3)
    await serve_axon(chain, hotkey("a"), NETUID, address="10.0.0.1", port=8091)
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
