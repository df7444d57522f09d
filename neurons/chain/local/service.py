"""The local subnet over HTTP: `POST /rpc` answers what the SDK's `Substrate` seam asks.

Answers are `{"result": …}`; a refusal is status 422 with `{"error": …}`, too many requests are 429 with `Retry-After`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import hdrs, web

from neurons.chain.local import calls, epochs, runtime_apis, sealing
from neurons.chain.local.extrinsics import GENESIS_HEADER, InvalidExtrinsic
from neurons.chain.local.node import Header, LocalChain, UnknownBlock
from neurons.chain.local.runtime_apis import UnknownMethod
from neurons.chain.local.storage import JSON, State, dumps
from neurons.chain.local.subnet import DispatchError, Subnet

log = logging.getLogger("neurons.chain.local")

LONGEST_WAIT_SECONDS: Final = 30.0
MOST_BLOCKS: Final = 10_000
MOST_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 30.0
"""Longest time a client may take to send its body."""

CONSTANTS: Final[dict[tuple[str, str], JSON]] = {
    ("Balances", "ExistentialDeposit"): 500,
    ("SubtensorModule", "InitialStartCallDelay"): 0,
}


_WRONG: Final = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, web.RequestPayloadError,
    sqlite3.ProgrammingError, sqlite3.InterfaceError,
)  # fmt: skip
"""What comes of parameters of another form: of the last two, SQLite's of what is no number or text."""


class Refused(Exception):  # noqa: N818 - what is answered
    """The request can't be answered; the message says why."""


@dataclass
class RateLimit:
    """At most `per_second` requests a client, with a burst of as many; None lets all through."""

    per_second: float | None = None
    clock: Callable[[], float] = time.monotonic
    _free_at: dict[str, float] = field(default_factory=dict)

    def seconds_to_wait(self, client: str) -> float:
        """Count a request; returns 0, or how long the client has to wait before it may ask."""
        if self.per_second is None:
            return 0.0
        now = self.clock()
        self._free_at = {known: free for known, free in self._free_at.items() if free > now}
        free = max(now, self._free_at.get(client, 0.0))
        if free - now >= 1.0:
            return free - now
        self._free_at[client] = free + 1.0 / self.per_second
        return 0.0


class Service:
    """One chain, served.

    `instant`: each extrinsic makes a block; otherwise only `make_blocks` does. `driven`: whoever can reach the service
    may move its clock and set storage as root would, by `POST /blocks`; for development only.
    """

    def __init__(
        self, chain: LocalChain, *, instant: bool = False, driven: bool = False, rate_limit: RateLimit | None = None
    ) -> None:
        self.chain = chain
        self._instant = instant
        self._driven = driven
        self._rate_limit = rate_limit or RateLimit()
        self._new_block = asyncio.Condition()

    def application(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[_no_browsers])
        app.router.add_post("/rpc", self._rpc)
        if self._driven:
            app.router.add_post("/blocks", self._blocks)
        app.router.add_get("/healthz", self._healthz)
        app.on_startup.append(self._go_on)
        return app

    async def make_blocks(self, count: int = 1, changes: dict[str, JSON] | None = None) -> Header:
        """Make blocks, the first of them with `changes`; returns the last one's header."""
        for index in range(count):
            self.chain.make_block(changes if index == 0 else None)
            if index % 64 == 63:
                await asyncio.sleep(0)  # others may ask meanwhile
        async with self._new_block:
            self._new_block.notify_all()
        return self.chain.header()

    async def _go_on(self, _app: web.Application) -> None:
        """Whoever ended the process may have done so between an extrinsic's arrival and its block."""
        if self._instant and self.chain.has_waiting:
            await self.make_blocks()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"block": self.chain.head})

    async def _blocks(self, request: web.Request) -> web.Response:
        try:
            body = await _document(request)
            count = int(body.get("count", 1))
            if not 0 < count <= MOST_BLOCKS:
                return _error(f"make 1 to {MOST_BLOCKS} blocks at a time, not {count}")
            header = await self.make_blocks(count, body.get("changes"))
        except _WRONG as error:
            return _error(f"wrong parameters: {error!r}")
        return _result(vars(header))

    async def _rpc(self, request: web.Request) -> web.Response:
        if request.headers.get(GENESIS_HEADER, self.chain.genesis_hash) != self.chain.genesis_hash:
            return web.Response(status=409, text="another chain was begun here: connect anew")
        wait = self._rate_limit.seconds_to_wait(request.remote or "")
        if wait:
            return web.Response(status=429, headers={"Retry-After": f"{wait:.3f}"}, text="too many requests")
        try:
            body = await _document(request)
            method, params = str(body["method"]), dict(body.get("params") or {})
            if method not in METHODS:
                return _error(f"there is no method {method}; there are {', '.join(METHODS)}")
            return _result(await METHODS[method](self, **params))
        except (Refused, UnknownBlock, UnknownMethod, InvalidExtrinsic, DispatchError) as error:
            return _error(str(error))
        except _WRONG as error:
            return _error(f"wrong parameters: {error!r}")

    # what can be asked --------------------------------------------------------------------

    async def _info(self) -> JSON:
        return {
            "genesis_hash": self.chain.genesis_hash,
            "spec_version": self.chain.spec_version,
            "block": self.chain.head,
            "block_seconds": self.chain.state().get("Aura.SlotDuration") / 1000,
        }

    async def _header(self, number: int | None = None, block_hash: str | None = None) -> JSON:
        return vars(self.chain.header(number, block_hash=block_hash))

    async def _block(self, number: int | None = None, block_hash: str | None = None) -> JSON:
        header = self.chain.header(number, block_hash=block_hash)
        return vars(header) | self.chain.body(header.hash)

    async def _query(self, item: str, params: list[Any], block_hash: str | None = None) -> JSON:
        return _read(self._readable(item, block_hash), item, params)

    async def _query_map(self, item: str, params: list[Any], block_hash: str | None = None) -> JSON:
        entries = self._readable(item, block_hash).scan(item, *params)
        return [[key[0] if len(key) == 1 else list(key), value] for key, value in entries]

    async def _query_batch(self, item: str, param_sets: list[list[Any]], block_hash: str | None = None) -> JSON:
        state = self._readable(item, block_hash)
        return [_read(state, item, params) for params in param_sets]

    async def _runtime_call(self, api: str, method: str, params: Any, block_hash: str | None = None) -> JSON:
        return runtime_apis.call(self.chain.state(block_hash), api, method, params)

    async def _constant(self, module: str, name: str) -> JSON:
        if (module, name) == ("Aura", "SlotDuration"):
            return self.chain.state().get("Aura.SlotDuration")
        if (module, name) not in CONSTANTS:
            raise Refused(f"the local subnet has no constant {module}.{name}")
        return CONSTANTS[module, name]

    async def _next_nonce(self, address: str) -> JSON:
        return self.chain.next_nonce(address)

    async def _sealing(self, netuid: int) -> JSON:
        """How weights are sealed for a subnet now: for which key, and for which of drand's rounds."""
        state = self.chain.state()
        subnet = Subnet.existing(state, netuid)
        tempo, start = int(subnet.hyperparameter("tempo") or 0), epochs.next_epoch_start_block(subnet)
        if not subnet.hyperparameter("commit_reveal_weights_enabled") or start is None:
            return None
        block = start + (int(subnet.hyperparameter("commit_reveal_period")) - 1) * tempo
        seconds = state.get("Timestamp.Now") / 1000
        seconds += (block - self.chain.head) * state.get("Aura.SlotDuration") / 1000
        seed = bytes.fromhex(state.get("Local.SealingSeed"))
        return {"key": sealing.address_of(seed), "reveal_round": sealing.round_before(seconds)}

    async def _submit(self, extrinsic: JSON) -> JSON:
        extrinsic_hash = self.chain.submit(extrinsic)
        if self._instant and self.chain.receipt(extrinsic_hash) is None:
            await self.make_blocks()
        return extrinsic_hash

    async def _receipt(self, extrinsic_hash: str, wait: float = 0.0) -> JSON:
        """What became of an extrinsic; waits for its block as long as is asked."""
        await self._wait(lambda: self.chain.receipt(extrinsic_hash) is not None, wait)
        return self.chain.receipt(extrinsic_hash)

    async def _next_header(self, after: int, wait: float = 0.0) -> JSON:
        """The header of the block after a number; null if there is none as long as is asked to wait."""
        await self._wait(lambda: self.chain.head > after, wait)
        return vars(self.chain.header(after + 1)) if self.chain.head > after else None

    async def _wait(self, reached: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)), self._new_block:
                await self._new_block.wait_for(reached)
        except TimeoutError:
            return

    def _readable(self, item: str, block_hash: str | None) -> State:
        if item.startswith("Local."):
            raise Refused(f"{item} is the service's own and can't be read")
        return self.chain.state(block_hash)


@web.middleware
async def _no_browsers(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Refuse what a page of whichever site sends from a developer's browser: nothing else guards this door there."""
    if hdrs.ORIGIN in request.headers or "Sec-Fetch-Site" in request.headers:
        return web.json_response({"error": "this is for programs: no page of a browser may ask here"}, status=403)
    return await handler(request)


async def _document(request: web.Request) -> Any:
    """Return what was sent; raises HTTPRequestTimeout, and what else comes of a body that is none."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.json()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body didn't arrive within {BODY_SECONDS:.0f} s") from None


def _read(state: State, item: str, params: list[Any]) -> JSON:
    if item == "System.Account":
        return {"nonce": state.get("System.Nonce", *params, default=0), "data": {"free": calls.balance(state, *params)}}
    return state.get(item, *params)


def _result(value: JSON) -> web.Response:
    return web.json_response({"result": value}, dumps=dumps)


def _error(message: str) -> web.Response:
    return web.json_response({"error": message}, status=422)


Ask = Callable[..., Awaitable[JSON]]
METHODS: Final[dict[str, Ask]] = {
    "info": Service._info,
    "header": Service._header,
    "block": Service._block,
    "query": Service._query,
    "query_map": Service._query_map,
    "query_batch": Service._query_batch,
    "runtime_call": Service._runtime_call,
    "constant": Service._constant,
    "next_nonce": Service._next_nonce,
    "sealing": Service._sealing,
    "submit": Service._submit,
    "receipt": Service._receipt,
    "next_header": Service._next_header,
}
