"""What a miner on a subnet is given to be measured: a hotkey, a metagraph in which a validator may ask it, a store."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bittensor_core

from neurons.receipts import NeuronEntry, answer_of, decode, question_of_messages, write_metagraph
from tests.bench.doors import SignedDoor
from tests.bench.servers.instant import DIGEST
from tests.unit.receipts.keyring import COLDKEY, MINER, VALIDATOR
from tests.unit.wire.redis_server import RedisServer

NETUID: Final = 42


class Wired:
    """The files of one hotkey, in a folder whose path is short (a socket's has at most 107 bytes)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        wallet, metagraph = folder / "wallet", folder / "metagraph.json"
        wallet.mkdir()
        (wallet / "hotkey").write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(MINER))
        neurons = tuple(
            NeuronEntry(
                uid=uid, hotkey=each.ss58_address, coldkey=COLDKEY.ss58_address, validator_permit=each is VALIDATOR,
                stake=1000,
            )
            for uid, each in enumerate((VALIDATOR, MINER))
        )  # fmt: skip
        write_metagraph(metagraph, netuid=NETUID, block=1000, time_ms=time.time_ns() // 10**6, neurons=neurons)
        self.options = ("--wallet-dir", str(wallet), "--metagraph-file", str(metagraph), "--netuid", str(NETUID),
                        "--caller-rate", "1000000", "--caller-burst", "1000000")  # fmt: skip
        """The miner's; one validator makes all of the load, so that its rate is no limit."""
        self.door = SignedDoor(VALIDATOR, receiver=MINER.ss58_address)

    @contextlib.contextmanager
    def nonce_store(self) -> Iterator[str]:
        """Run a Redis server and return its address."""
        server = RedisServer(self._folder)
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def is_proven(receipt: str | None, *, question: str, says: str) -> bool:
    """Tell whether the miner's receipt proves the instant engine's answer to a chat body. Raises ReceiptError."""
    read = decode(receipt or "")
    asked = question_of_messages(json.loads(question)["messages"])
    return read.is_genuine() and (read.question, read.answer, read.adapter) == (asked, answer_of([says]), DIGEST)
