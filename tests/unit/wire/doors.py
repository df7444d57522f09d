"""A door with everything real but the chain: keys, signatures, and a metagraph written down."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from neurons.receipts import MetagraphFile, NeuronEntry
from neurons.wire.admission import Admission, Caller, Policy
from neurons.wire.metagraph import FileReading
from neurons.wire.nonces import MemoryNonces, Nonces
from neurons.wire.signer import RequestSigner, target_of
from tests.unit.receipts.keyring import COLDKEY, MINER, OTHER_MINER, VALIDATOR

URL_ASKED = URL("http://miner.example/v1/chat/completions")
BODY = b'{"model": "dr-gurung", "messages": []}'


def neuron(uid: int, keypair: Any, *, permit: bool = False, stake: float = 0.0) -> NeuronEntry:
    return NeuronEntry(
        uid=uid, hotkey=keypair.ss58_address, coldkey=COLDKEY.ss58_address, validator_permit=permit, stake=stake
    )


def metagraph(*neurons: NeuronEntry) -> MetagraphFile:
    """Bob validates with 5,000 alpha; Alice and Charlie mine."""
    rows = neurons or (neuron(0, VALIDATOR, permit=True, stake=5000), neuron(1, MINER), neuron(2, OTHER_MINER))
    return MetagraphFile(netuid=42, block=1000, neurons=rows)


@dataclass
class Written:
    """A metagraph source that a test sets."""

    metagraph: MetagraphFile | None = field(default_factory=metagraph)
    age_seconds: float = 0.0
    problem: Exception | None = None

    def latest(self) -> FileReading:
        return FileReading(self.metagraph, self.age_seconds, self.problem)

    async def refresh(self) -> FileReading:
        return self.latest()


@dataclass
class Clock:
    """Nanoseconds that a test moves."""

    ns: int = field(default_factory=time.time_ns)

    def __call__(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


class Door:
    """A miner's admission, and validators before it."""

    def __init__(
        self, *, policy: Policy | None = None, nonces: Nonces | None = None, source: Written | None = None
    ) -> None:
        self.clock = Clock()
        self.source = source or Written()
        self.policy = policy or Policy()
        if nonces is None:
            nonces = MemoryNonces(
                window_seconds=self.policy.max_age, skew_seconds=self.policy.allowed_skew, clock_ns=self.clock
            )
            self.clock.forward(self.policy.allowed_skew + 1)  # it judges what was signed since it began
        self.nonces = nonces
        self.admission = Admission(
            hotkey=MINER.ss58_address, policy=self.policy, nonces=nonces, source=self.source, clock_ns=self.clock
        )

    def sign(
        self, keypair: Any = VALIDATOR, *, receiver: str = MINER.ss58_address, body: bytes = BODY, url: URL = URL_ASKED
    ) -> dict[str, str]:
        signer = RequestSigner(keypair, clock_ns=self.clock)
        return signer.headers(method="POST", url=url, body=body, receiver=receiver)

    async def admit(
        self, headers: dict[str, str], *, body: bytes = BODY, method: str = "POST", url: URL = URL_ASKED
    ) -> Caller:
        presented = self.admission.present(headers)
        return await self.admission.admit(presented, body, method=method, target=target_of(url))
