"""A receipt as a miner makes it."""

from __future__ import annotations

from typing import Any

from neurons.receipts import Keypair, ReceiptSigner, answer_of, question_of_text

QUESTION = "I have had a headache for two days. What should I do?"
ANSWER = "I am sorry, my dear. Rest, and see a doctor if it stays."
ADAPTER = "sha256:" + "a" * 64
NOW_MS = 1_780_000_000_000


def signed(keypair: Keypair, **changes: Any) -> str:
    """Return an encoded receipt."""
    values: dict[str, Any] = {
        "question": question_of_text(QUESTION),
        "answer": answer_of([ANSWER]),
        "twin": "dr-gurung",
        "adapter": ADAPTER,
        "base": {"name": "smollm2", "revision": None, "digest": None},
        "time_ms": NOW_MS,
    }
    return ReceiptSigner(keypair).sign(**(values | changes))
