"""What can go wrong when a source is asked. No message holds the claim, an address with a query, or a key.

SourceError
├── NotConfigured    a licence key or a file is missing; says which and where to put it
├── ClaimRefused     the claim must not leave this process, or is none
├── CorpusRefused    a corpus isn't the one that was named, or can't be read
├── Retracted        the source has what is cited, and says that it was taken back
└── NoAnswer         the service has not answered this time
    ├── RateLimited  it asks to wait; `seconds` says how long
    └── FormatChanged  it answered something that isn't its documented format
"""

from __future__ import annotations


class SourceError(Exception):
    """A source can't be asked, or has no answer."""


class NotConfigured(SourceError):  # noqa: N818 - said of the source
    """Something that the person who runs it has to give is missing."""


class ClaimRefused(SourceError):  # noqa: N818
    """The claim is empty, too long, or holds what must not be sent to others."""


class CorpusRefused(SourceError):  # noqa: N818
    """A corpus' bytes have another digest than was named, or can't be read as what they are said to be."""


class Retracted(SourceError):  # noqa: N818
    """What is cited was taken back, or its publisher doubts it: nothing is supported by it."""


class NoAnswer(SourceError):  # noqa: N818
    """The source was asked and has not answered within its time."""


class RateLimited(NoAnswer):
    """The service refuses more requests for now."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class FormatChanged(NoAnswer):
    """The service's answer isn't in the format that it documents; trying again would not help."""
