"""The local chain itself: a pool, blocks that take extrinsics from it, and what is kept of both.

Nothing here reads a clock: a block is made when somebody says so, and its time is the genesis time plus its number.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from neurons.chain.local import calls, epochs
from neurons.chain.local.extrinsics import Extrinsic, InvalidExtrinsic
from neurons.chain.local.genesis import Genesis
from neurons.chain.local.storage import JSON, Database, State, dumps
from neurons.chain.local.subnet import DispatchError, Subnet

KEPT_BLOCKS = 1200
"""How far back storage can be read."""
FORGET_EVERY = 100


class UnknownBlock(Exception):  # noqa: N818 - the chain's name for it
    """There is no such block, or its storage is no longer kept."""


@dataclass(frozen=True)
class Header:
    """A block's number, hash and parent."""

    number: int
    hash: str
    parent: str


class LocalChain:
    """One chain in one file. Not safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Open a chain that has its genesis block; use `open`."""
        self._database = database
        head = database.head()
        if head is None:
            raise ValueError("this file holds no chain yet: open it with a genesis")
        self.head = head
        self.genesis_hash = self.header(0).hash
        """The hash of block 0."""

    @classmethod
    def open(cls, path: Path, genesis: Genesis | None = None, *, database: Database | None = None) -> Self:
        """Open the chain in a file, or begin one with a genesis; what is there already goes on as it is.

        Raises:
            ValueError: there is no chain in the file and no genesis to begin with.
        """
        database = database or Database(path)
        if database.head() is None:
            if genesis is None:
                raise ValueError(f"{path} holds no chain yet: say with which genesis it begins")
            state = State(database, 0)
            genesis.write(state)
            with database.transaction():
                state.flush(0)
                # The sealing seed is secret, and part of what makes this chain no other.
                digest = hashlib.blake2b(dumps(sorted(_texts(state))).encode(), digest_size=32).hexdigest()
                database.add_block(0, "0x" + digest, "0x" + "0" * 64, {"extrinsics": [], "events": []})
        return cls(database)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def spec_version(self) -> int:
        """The runtime's version as of the head."""
        return int(self.state().get("System.SpecVersion"))

    def state(self, block_hash: str | None = None) -> State:
        """Return storage as of a block, the head without one; writes to it go nowhere.

        Raises:
            UnknownBlock: there is none, or it is too old.
        """
        number = self.head if block_hash is None else self.header(block_hash=block_hash).number
        if number < self.head - KEPT_BLOCKS:
            raise UnknownBlock(f"State already discarded for block {number}: the last {KEPT_BLOCKS} can be read")
        return State(self._database, number)

    def header(self, number: int | None = None, *, block_hash: str | None = None) -> Header:
        """Return a block's header by number or hash, the head's by default.

        Raises:
            UnknownBlock: there is none.
        """
        if number is None and block_hash is None:
            number = self.head
        found = self._database.block(number=number, block_hash=block_hash)
        if found is None:
            raise UnknownBlock(f"there is no block {number if block_hash is None else block_hash}")
        return Header(*found[:3])

    def body(self, block_hash: str | None = None) -> JSON:
        """Return a block's extrinsics and events.

        Raises:
            UnknownBlock: there is none.
        """
        header = self.header(block_hash=block_hash)
        found = self._database.block(number=header.number)
        return found[3] if found else {"extrinsics": [], "events": []}

    def next_nonce(self, address: str) -> int:
        """Return the nonce of an account's next extrinsic, counting what waits in the pool."""
        waiting = [body for _hash, body in self._database.pool() if body["address"] == address]
        return int(self.state().get("System.Nonce", address, default=0)) + len(waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether extrinsics wait for a block."""
        return bool(self._database.pool())

    def receipt(self, extrinsic_hash: str) -> JSON | None:
        """Return what became of an extrinsic; None while it is in no block."""
        return self._database.receipt(extrinsic_hash)

    def submit(self, body: JSON) -> str:
        """Take an extrinsic into the pool, or find it there or in a block; returns its hash.

        The same extrinsic again changes nothing, so whoever got no answer may send it again.

        Raises:
            InvalidExtrinsic: it isn't signed by who it says, or not for this chain, or not at this time.
        """
        extrinsic = Extrinsic.parse(body)
        if self.receipt(extrinsic.hash) is not None or any(
            known == extrinsic.hash for known, _ in self._database.pool()
        ):
            return extrinsic.hash
        if extrinsic.genesis_hash != self.genesis_hash:
            raise InvalidExtrinsic("Transaction is for another chain: its genesis hash isn't this one's; connect anew")
        if extrinsic.spec_version != self.spec_version:
            raise InvalidExtrinsic(
                f"Transaction is for runtime {extrinsic.spec_version}, and this is {self.spec_version}: compose it anew"
            )
        if extrinsic.period is not None and not extrinsic.birth <= self.head + 1 <= extrinsic.birth + extrinsic.period:
            raise InvalidExtrinsic("Transaction has an ancient birth block: sign it anew")
        expected = self.next_nonce(extrinsic.address)
        if extrinsic.nonce != expected:
            why = "outdated" if extrinsic.nonce < expected else "from the future"
            raise InvalidExtrinsic(
                f"Transaction is {why}: the account's next nonce is {expected}, not {extrinsic.nonce}"
            )
        extrinsic.check_signature()
        with self._database.transaction():
            self._database.add_to_pool(extrinsic.hash, body)
        return extrinsic.hash

    def make_block(self, changes: dict[str, JSON] | None = None) -> Header:
        """Make the next block from what waits; `changes` are items that are set in it, as root would.

        All of it is one transaction.
        """
        parent, number = self.header(), self.head + 1
        state = State(self._database, number)
        state.put("Timestamp.Now", value=state.get("Timestamp.Now") + state.get("Aura.SlotDuration"))
        for item, value in (changes or {}).items():
            name, *params = item.split("/")
            state.put(name, *(int(param) if param.isdigit() else param for param in params), value=value)
        events: list[dict[str, Any]] = []
        for netuid in state.get("Local.Netuids"):
            events += [
                {"phase": "Initialization", "extrinsic_idx": None, "event": event}
                for event in epochs.begin_block(Subnet(state, netuid))
            ]
        included = self._database.pool()
        receipts = [self._apply(state, Extrinsic.parse(body), index) for index, (_hash, body) in enumerate(included)]
        for receipt in receipts:
            events += receipt["events"]
        content = [number, parent.hash, [extrinsic_hash for extrinsic_hash, _ in included], events]
        block_hash = "0x" + hashlib.blake2b(dumps(content).encode(), digest_size=32).hexdigest()
        with self._database.transaction():
            state.flush(number)
            self._database.add_block(
                number, block_hash, parent.hash, {"extrinsics": [body for _, body in included], "events": events}
            )
            for (extrinsic_hash, _body), receipt in zip(included, receipts, strict=True):
                place = {"block_number": number, "block_hash": block_hash}
                self._database.add_receipt(extrinsic_hash, number, receipt | place)
                self._database.take_from_pool(extrinsic_hash)
            if number % FORGET_EVERY == 0 and number > KEPT_BLOCKS:
                self._database.forget(number - KEPT_BLOCKS)
        self.head = number
        return Header(number, block_hash, parent.hash)

    def _apply(self, state: State, extrinsic: Extrinsic, index: int) -> dict[str, Any]:
        state.put("System.Nonce", extrinsic.address, value=extrinsic.nonce + 1)
        error = None
        try:
            events = calls.dispatch(
                state,
                signer=extrinsic.address,
                module=extrinsic.module,
                function=extrinsic.function,
                params=extrinsic.params,
            )
            events.append({"module_id": "System", "event_id": "ExtrinsicSuccess", "attributes": {}})
        except DispatchError as refused:
            error = {"name": refused.name, "message": str(refused)}
            events = [{"module_id": "System", "event_id": "ExtrinsicFailed", "attributes": error}]
        applied = [{"phase": "ApplyExtrinsic", "extrinsic_idx": index, "event": event} for event in events]
        return {"extrinsic_idx": index, "error": error, "events": applied}


def _texts(state: State) -> list[tuple[str, str, str]]:
    return [(item, params, text or "") for (item, params), text in state.writes.items()]
