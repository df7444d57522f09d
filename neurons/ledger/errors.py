"""What can go wrong with the ledger.

    LedgerError
    ├── BadRecord        a record that can't be true; the caller's mistake
    ├── NotFound         there is no such session, or it is another patient's
    ├── LedgerDown       the database can't be reached; trying again may help
    ├── SchemaMismatch   the database has another release's tables
    ├── QueueFull        the queue on disk is at its bound, or its disk is full
    ├── QueueInUse       another process writes to this queue
    └── BadBackup        a backup that is damaged, or of another kind

No message holds a text or an id of a patient.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Anything of these; the message is a sentence that says what to do."""


class BadRecord(LedgerError, ValueError):  # noqa: N818 - said of the record
    """A record has a field that can't be true."""


class NotFound(LedgerError):  # noqa: N818
    """There is no such session, question or answer of this patient."""


class LedgerDown(LedgerError):  # noqa: N818
    """The database doesn't answer. What was to be written is not written; trying again may help."""


class SchemaMismatch(LedgerError):  # noqa: N818
    """The database has no tables, or another release's."""


class QueueFull(LedgerError):  # noqa: N818
    """Nothing more can be queued on disk."""


class QueueInUse(LedgerError):  # noqa: N818
    """Another process has the queue."""


class BadBackup(LedgerError):  # noqa: N818
    """The backup can't be restored; nothing was changed."""


def in_words(error: Exception) -> str:
    """Return an error as a sentence; of one that isn't the ledger's the message may quote a text, so only its kind."""
    return str(error) if isinstance(error, LedgerError) else f"{type(error).__name__}."
