"""What a validator's question costs a miner beside the answer: its signature verified, a receipt signed.

Processor time of one thread, each sample a whole request: headers looked at, 1 KiB of body hashed and its signature
verified by the SDK, metagraph of 256 neurons, rate, nonce in memory; then the receipt over question and answer.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import Any, Final

from yarl import URL

from neurons.receipts import MetagraphFile, NeuronEntry, ReceiptSigner, answer_of, question_of_messages
from neurons.wire.admission import Admission, Policy
from neurons.wire.metagraph import FileReading
from neurons.wire.nonces import MemoryNonces
from neurons.wire.signer import RequestSigner, target_of
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.unit.receipts.keyring import MINER, VALIDATOR, key

SAMPLES: Final = 1000
TARGET_MS: Final = 0.5
NEURONS: Final = 256
ASKED: Final = URL("http://miner.example/v1/chat/completions")


class _Source:
    def __init__(self) -> None:
        others = [key(f"Neuron{number}") for number in range(NEURONS - 1)]
        rows = tuple(
            NeuronEntry(uid=uid, hotkey=each.ss58_address, coldkey=each.ss58_address, validator_permit=True, stake=1000)
            for uid, each in enumerate([VALIDATOR, *others])
        )
        self._reading = FileReading(MetagraphFile(netuid=42, block=1, neurons=rows), 0.0, None)

    def latest(self) -> FileReading:
        return self._reading

    async def refresh(self) -> FileReading:
        return self._reading


def measure(options: Options) -> Result:
    """Measure; `options` has nothing that matters here."""
    del options
    samples = asyncio.run(_samples())
    both = [verified + signed for verified, signed in zip(samples["verify"], samples["receipt"], strict=True)]
    figures = [
        _figure("validator", "sign one request", samples["sign"]),
        _figure("miner", "admit one request", samples["verify"]),
        _figure("miner", "sign one receipt", samples["receipt"]),
        _figure("miner", "both", both, target=TARGET_MS),
    ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(
        name="wire",
        title="Signed requests and receipts",
        how=f"{SAMPLES} requests with 1 KiB of body, one after another, in one process; processor time of its thread.",
        figures=tuple(figures),
        notes=(f"The measuring process, SDK and {NEURONS} neurons included, took at most {memory:.0f} MB.",),
        command="make bench BENCH_ARGS=wire",
    )


async def _samples() -> dict[str, list[float]]:
    policy = Policy(per_second=1e6, burst=10 * SAMPLES, allowed_skew=0.0)
    nonces = MemoryNonces(window_seconds=policy.max_age, skew_seconds=0.0)
    admission = Admission(hotkey=MINER.ss58_address, policy=policy, nonces=nonces, source=_Source())
    signer, receipts = RequestSigner(VALIDATOR), ReceiptSigner(MINER)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "word " * 190}]
    body, answer = json.dumps({"model": "dr-gurung", "messages": messages}).encode(), "word " * 300
    base = {"name": "biomistral-7b", "revision": None, "digest": None}
    found: dict[str, list[float]] = {"sign": [], "verify": [], "receipt": []}

    def timed(name: str, begun: float) -> None:
        found[name].append((time.thread_time() - begun) * 1000)

    for _ in range(SAMPLES):
        begun = time.thread_time()
        headers = signer.headers(method="POST", url=ASKED, body=body, receiver=MINER.ss58_address)
        timed("sign", begun)
        begun = time.thread_time()
        await admission.admit(admission.present(headers), body, method="POST", target=target_of(ASKED))
        timed("verify", begun)
        begun = time.thread_time()
        receipts.sign(
            question=question_of_messages(messages), answer=answer_of([answer]), twin="dr-gurung",
            adapter="sha256:" + "a" * 64, base=base, time_ms=time.time_ns() // 10**6,
        )  # fmt: skip
        timed("receipt", begun)
    return found


def _figure(subject: str, figure: str, values: list[float], *, target: float | None = None) -> Figure:
    spread = Spread.of(values)
    return Figure(
        subject=subject,
        figure=figure,
        unit="ms",
        spread=spread,
        digits=3,
        p99=percentile(values, 99),
        target=f"p50 at most {target:g} ms" if target is not None else None,
        met=spread.median <= target if target is not None else None,
    )
