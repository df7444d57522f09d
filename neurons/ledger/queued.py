"""A ledger with a queue on disk in front of it: answering goes on while the database is away, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from neurons.ledger.records import AnyRecord
from neurons.ledger.views import ConsentState, Erasure, History, QuestionView, Written


class QueuedLedger:
    """A `Recorder`. Records are appended to the queue and fsynced, then written to the ledger in the background.

    `async with QueuedLedger.open(url, folder=…) as ledger`. It opens without the database being up.
    """

    @classmethod
    async def open(cls, url: str, *, folder: Path, max_bytes: int = 1 << 30) -> Self:
        """Return the queue in `folder` before the ledger at `url`. Raises QueueInUse, QueueFull."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop writing in the background; what is queued stays on disk."""
        raise NotImplementedError

    async def drained(self, *, timeout_seconds: float) -> bool:
        """Wait until everything queued so far is in the ledger; False when it isn't in time."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """How many records are queued and not yet in the ledger."""
        raise NotImplementedError

    @property
    def waiting_seconds(self) -> float:
        """For how long the oldest of them has waited since this process knows it."""
        raise NotImplementedError

    async def record(self, *records: AnyRecord) -> Written:
        """Return when the records are safe on disk (`new` counts them). Raises QueueFull: nothing was kept."""
        raise NotImplementedError

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """Return a session with what is still queued; while the ledger is away, what this process remembers.

        Raises NotFound; never LedgerDown.
        """
        raise NotImplementedError

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """Raises LedgerDown."""
        raise NotImplementedError

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """As `Recorder.question`; waits shortly for what is still queued."""
        raise NotImplementedError

    async def consent(self, *, patient_id: str) -> ConsentState:
        """As `Recorder.consent`; what is still queued counts."""
        raise NotImplementedError

    async def erase(self, *, patient_id: str) -> Erasure:
        """As `Recorder.erase`; what is still queued of the patient will be dropped when it is written."""
        raise NotImplementedError
