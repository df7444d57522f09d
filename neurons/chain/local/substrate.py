"""The SDK's `Substrate` seam against a local subnet's service: `bt.Client(substrate=LocalSubstrate(url))`.

Everything above this is the SDK's own code, as it runs against the real chain. One thing is done here that the SDK
does there: it can seal weights for drand only, which a local chain can't open. So it is told that weights go in the
open, and `submit` seals them for the chain's own key before they are signed; what is sent is a commit like any other.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import aiohttp
from bittensor import Balance, ChainError, ConnectionNotReady, ExtrinsicResult, RpcConnectionError, RpcPolicyError
from bittensor.settings import DEFAULT_ERA_PERIOD

from neurons.chain.local.absent import AbsentParts
from neurons.chain.local.extrinsics import GENESIS_HEADER, Extrinsic, LocalCall
from neurons.chain.local.genesis import COMMIT_REVEAL_VERSION
from neurons.chain.local.sealing import SealedWeights
from neurons.chain.local.storage import JSON, dumps

WAIT_SECONDS: Final = 20.0
"""How long one request waits for a block; it is asked again as often as it takes."""
MOST_HASHES: Final = 1024
SET_WEIGHTS: Final = {("SubtensorModule", "set_weights"), ("SubtensorModule", "set_mechanism_weights")}


class LocalSubstrate(AbsentParts):
    """The seam's 31 methods; what a subnet's neurons never ask for raises `ChainError`.

    As the seam wants: reads raise `ChainError` for what the chain refuses, a refused extrinsic is a result, and
    `RpcConnectionError` (`RpcPolicyError` when rate-limited) says that there was no answer.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 30.0, resends: int = 2) -> None:
        """`url` is the service's. An extrinsic that got no answer is sent again `resends` times: it counts once."""
        self.url = url.rstrip("/")
        self.token_symbols: dict[int, str] = {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._resends = resends
        self._session: aiohttp.ClientSession | None = None
        self._info: dict[str, Any] = {}
        self._hashes: dict[int | None, str] = {}

    def balance(self, rao: int, netuid: int = 0) -> Balance:
        """Return an amount with this chain's symbol."""
        return Balance(int(rao), netuid, self.token_symbols.get(netuid) if netuid else None)

    async def connect(self) -> None:
        """Open the connection; nothing if it is open."""
        if self._session is not None:
            return
        self._session = aiohttp.ClientSession(timeout=self._timeout, json_serialize=dumps)
        try:
            self._info = await self._ask("info")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        self._info, self._hashes = {}, {}  # of this chain alone; the next may be another
        if session is not None:
            await session.close()

    async def _ask(self, question: str, /, **params: Any) -> Any:
        if self._session is None:
            raise ConnectionNotReady("the connection isn't open: use `async with` or connect() first")
        asked = {"method": question, "params": params}
        headers = {GENESIS_HEADER: self._info["genesis_hash"]} if self._info else {}
        try:
            async with self._session.post(f"{self.url}/rpc", json=asked, headers=headers) as response:
                if response.status in {403, 429}:
                    raise RpcPolicyError(
                        f"{self.url} takes no request now (HTTP {response.status})",
                        status_code=response.status,
                        retry_after=response.headers.get("Retry-After"),
                    )
                if response.status == 413:
                    raise ChainError(f"this is larger than {self.url} takes")
                if response.status == 409:
                    raise RpcConnectionError(f"another chain was begun at {self.url}: connect anew")
                if response.status not in {200, 422}:
                    raise RpcConnectionError(f"{self.url} answers HTTP {response.status}")
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RpcConnectionError(f"{self.url} doesn't answer: {str(error) or type(error).__name__}") from error
        if "error" in answer:
            raise ChainError(str(answer["error"]))
        return answer["result"]

    # reads ----------------------------------------------------------------------------------

    async def block_hash(self, block: int | None = None) -> str:
        """Return a block's hash, the head's by default; that of a number is asked for once."""
        if block in self._hashes:
            return self._hashes[block]
        header = await self._ask("header", number=block)
        if len(self._hashes) >= MOST_HASHES:
            self._hashes.clear()
        self._hashes[int(header["number"])] = str(header["hash"])
        return str(header["hash"])

    async def block_number(self) -> int:
        """Return the head's number."""
        return int((await self._ask("header"))["number"])

    async def finalized_block_number(self) -> int:
        """Return the last final block's number; here every block is final at once."""
        return await self.block_number()

    async def block_time(self) -> float:
        """Return the seconds between blocks."""
        return float(self._info["block_seconds"])

    async def spec_version(self) -> int:
        """Return the runtime's version at the head."""
        self._info = await self._ask("info")
        return int(self._info["spec_version"])

    async def get_block(self, block_number: int | None = None, block_hash: str | None = None) -> dict[str, Any] | None:
        """Return a block's header and extrinsics."""
        found = await self._ask("block", number=block_number, block_hash=block_hash)
        return {"header": _header(found), "extrinsics": found["extrinsics"]}

    async def query(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> Any:
        """Read a storage item."""
        if (module, storage_function) == ("SubtensorModule", "CommitRevealWeightsEnabled"):
            return False  # see the module: `submit` seals
        return await self._ask("query", item=f"{module}.{storage_function}", params=params or [], block_hash=block_hash)

    async def map_has_entries(
        self, module: str, storage_function: str, params: list[Any], block_hash: str | None = None
    ) -> bool:
        """Tell whether a map has entries under a prefix."""
        return bool(await self.query_map(module, storage_function, params, block_hash))

    async def query_map(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> list[tuple[Any, Any]]:
        """Read a map's entries as (key, value)."""
        entries = await self._ask(
            "query_map", item=f"{module}.{storage_function}", params=params or [], block_hash=block_hash
        )
        return [(key, value) for key, value in entries]

    async def query_batch(
        self, module: str, storage_function: str, param_sets: list[list[Any]], block_hash: str | None = None
    ) -> list[Any]:
        """Read one map's values for many keys, in their order."""
        item = f"{module}.{storage_function}"
        return list(await self._ask("query_batch", item=item, param_sets=param_sets, block_hash=block_hash))

    async def runtime_call(self, api: str, method: str, params: list[Any], block_hash: str | None = None) -> Any:
        """Call a runtime API."""
        return await self._ask("runtime_call", api=api, method=method, params=params, block_hash=block_hash)

    async def constant(self, module: str, name: str) -> Any:
        """Read a pallet's constant."""
        return await self._ask("constant", module=module, name=name)

    async def blocks(self, *, finalized: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Yield the head's header, as a node does when one subscribes, and then that of each new block."""
        header = await self._ask("header")
        while True:
            if header is not None:
                last = int(header["number"])
                yield {"header": _header(header)}
            header = await self._ask("next_header", after=last, wait=self._wait_seconds)

    async def events(self, block_hash: str | None = None) -> list[dict[str, Any]]:
        """Return a block's events."""
        return list((await self._ask("block", block_hash=block_hash))["events"])

    # calls ----------------------------------------------------------------------------------

    async def compose(self, call: Any) -> LocalCall:
        """Return a call ready to be signed."""
        return LocalCall.of(call)

    async def estimate_fee(self, call: Any, keypair: Any) -> Balance:
        """Return the fee: there is none here."""
        return Balance.from_rao(0)

    async def estimate_weight(self, call: Any, keypair: Any) -> dict[str, int]:
        """Return the dispatch weight: it isn't counted here."""
        return {"ref_time": 0, "proof_size": 0}

    async def account_next_index(self, address: str) -> int:
        """Return an account's next nonce."""
        return int(await self._ask("next_nonce", address=address))

    async def submit(
        self,
        call: Any,
        keypair: Any,
        *,
        nonce: int | None = None,
        period: int | None = DEFAULT_ERA_PERIOD,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        """Seal if these are weights, sign, send, and wait for the block."""
        composed, reveal_round = await self._sealed(LocalCall.of(call), keypair.ss58_address)
        signed = await self._signed(composed, keypair, nonce=nonce, period=period)
        result = await self.submit_signed(
            signed, keypair, wait_for_inclusion=wait_for_inclusion, wait_for_finalization=wait_for_finalization
        )
        return result if reveal_round is None else replace(result, data={"reveal_round": reveal_round})

    async def sign_extrinsic(self, call: Any, keypair: Any, *, nonce: int, period: int) -> tuple[bytes, str]:
        """Return a signed extrinsic's bytes and hash, without sending it."""
        signed = await self._signed(LocalCall.of(call), keypair, nonce=nonce, period=period)
        return dumps(vars(signed)).encode(), signed.hash

    async def submit_signed(
        self,
        extrinsic: Extrinsic,
        keypair: Any,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        """Send a signed extrinsic and wait for its block; without an answer it is sent again, as the same."""
        for attempt in range(self._resends + 1):
            try:
                await self._ask("submit", extrinsic=vars(extrinsic))
                break
            except ChainError as error:
                return ExtrinsicResult(success=False, message=error.message, error=error)
            except RpcPolicyError:
                raise
            except RpcConnectionError:
                if attempt == self._resends:
                    raise
        if not (wait_for_inclusion or wait_for_finalization):
            return ExtrinsicResult(success=True, message="Submitted (not waiting).")
        receipt = None
        while receipt is None:
            receipt = await self._ask("receipt", extrinsic_hash=extrinsic.hash, wait=self._wait_seconds)
        return _outcome(receipt)

    async def find_extrinsic(self, extrinsic_hash: str, block_hash: str) -> ExtrinsicResult | None:
        """Return the outcome of an extrinsic if it is in that block."""
        receipt = await self._ask("receipt", extrinsic_hash=extrinsic_hash)
        return _outcome(receipt) if receipt is not None and receipt["block_hash"] == block_hash else None

    async def _signed(self, call: LocalCall, keypair: Any, *, nonce: int | None, period: int | None) -> Extrinsic:
        self._info = await self._ask("info")
        unsigned = Extrinsic(
            module=call.module,
            function=call.function,
            params=call.params,
            address=str(keypair.ss58_address),
            crypto_type=int(keypair.crypto_type),
            nonce=await self.account_next_index(keypair.ss58_address) if nonce is None else nonce,
            genesis_hash=self._info["genesis_hash"],
            spec_version=self._info["spec_version"],
            birth=self._info["block"],
            period=period,
        )
        signature = keypair.sign(unsigned.payload)
        if inspect.isawaitable(signature):
            signature = await signature
        return replace(unsigned, signature="0x" + bytes(signature).hex())

    async def _sealed(self, call: LocalCall, hotkey: str) -> tuple[LocalCall, int | None]:
        """Return weights as a commit and the round that opens it, if the subnet wants that; any other call as it is."""
        if (call.module, call.function) not in SET_WEIGHTS:
            return call, None
        sealing: JSON = await self._ask("sealing", netuid=call.params["netuid"])
        if sealing is None:
            return call, None
        weights = SealedWeights(
            hotkey=hotkey,
            uids=call.params["dests"],
            values=call.params["weights"],
            version_key=call.params["version_key"],
        )
        params = {
            "netuid": call.params["netuid"],
            "mecid": call.params.get("mecid", 0),
            "commit": "0x" + weights.seal(sealing["key"]).hex(),
            "reveal_round": sealing["reveal_round"],
            "commit_reveal_version": COMMIT_REVEAL_VERSION,
        }
        return LocalCall("SubtensorModule", "commit_timelocked_mechanism_weights", params), sealing["reveal_round"]

    @property
    def _wait_seconds(self) -> float:
        # Shorter than a request may take, or every wait would look like a service that doesn't answer.
        return min(WAIT_SECONDS, (self._timeout.total or WAIT_SECONDS) / 2)


def _header(found: dict[str, Any]) -> dict[str, Any]:
    return {"number": found["number"], "hash": found["hash"], "parentHash": found["parent"]}


def _outcome(receipt: dict[str, Any]) -> ExtrinsicResult:
    error = receipt["error"]
    return ExtrinsicResult(
        success=error is None,
        message="Success" if error is None else error["message"],
        block_hash=receipt["block_hash"],
        extrinsic_id=f"{receipt['block_number']}-{receipt['extrinsic_idx']:04d}",
        fee=Balance.from_rao(0),
        events=receipt["events"],
        error=None if error is None else ChainError(error["message"], error["name"]),
    )
