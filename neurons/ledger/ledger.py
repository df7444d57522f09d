"""The ledger: records in, each once; sessions, consent and lineage out."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from neurons.ledger.records import AnyRecord
from neurons.ledger.views import ConsentState, Erasure, History, QuestionView, Written


class Recorder(Protocol):
    """What a gateway writes to and reads from: the `Ledger` itself, or a `QueuedLedger` in front of it."""

    async def record(self, *records: AnyRecord) -> Written:
        """Write records, together or not at all; ones that are there already change nothing.

        A `Ledger` raises LedgerDown when nothing was written (or it isn't known: write again, that is harmless); a
        `QueuedLedger` returns when they are safe on its disk, and raises QueueFull.
        """

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """Return the last `limit` turns of a session.

        Raises NotFound when there is no such session or it isn't this patient's; LedgerDown.
        """

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """Return a patient's latest sessions, newest first, each with its first turn only. Raises LedgerDown."""

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """Return all of one question: every answer, which one won, ratings, corrections.

        With `patient_id` it must be this patient's. Raises NotFound, LedgerDown.
        """

    async def consent(self, *, patient_id: str) -> ConsentState:
        """Return whether the patient's conversations may be learned from. Raises LedgerDown."""

    async def erase(self, *, patient_id: str) -> Erasure:
        """Erase a patient: everything of theirs goes, and what arrives later is dropped.

        Says which lines of datasets and which adapters are concerned, and marks these for retraining. Raises LedgerDown.
        """


class Ledger:
    """The ledger in one database. Opened by `Ledger.open(url)`; a `Recorder`.

    `url` is `postgresql://user:password@host:5432/name`, or `sqlite:////var/lib/ledger/ledger.db` (embedded).
    """

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0, pool: int = 10) -> Self:
        """Return the ledger at this address. Raises LedgerDown, SchemaMismatch (run `migrate`)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back all connections."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> None:
        """Return when the database answers. Raises LedgerDown."""
        raise NotImplementedError

    async def record(self, *records: AnyRecord) -> Written:
        """See `Recorder.record`."""
        raise NotImplementedError

    async def history(self, *, session_id: str, patient_id: str, limit: int = 64) -> History:
        """See `Recorder.history`."""
        raise NotImplementedError

    async def sessions(self, *, patient_id: str, limit: int = 100) -> tuple[History, ...]:
        """See `Recorder.sessions`."""
        raise NotImplementedError

    async def question(self, *, question_id: str, patient_id: str | None = None) -> QuestionView:
        """See `Recorder.question`."""
        raise NotImplementedError

    async def consent(self, *, patient_id: str) -> ConsentState:
        """See `Recorder.consent`."""
        raise NotImplementedError

    async def erase(self, *, patient_id: str) -> Erasure:
        """See `Recorder.erase`."""
        raise NotImplementedError
