"""What a claim has to be before anything is asked about it, and before it leaves this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from neurons.invisible import has_word
from neurons.privacy import PrivacyError, find_identifiers
from neurons.sources.errors import ClaimRefused, NoAnswer

MAX_CHARACTERS: Final = 2_000
MAX_PASSAGES: Final = 100
"""Of one search."""


class Finder(Protocol):
    """What finds what identifies a person: `neurons.privacy.Deidentifier`, with its models for names."""

    def find(self, text: str) -> Sequence[object]:
        """Return what it finds. Raises PrivacyError for a text in which it can't look."""
        ...


def check_claim(claim: str) -> None:
    """Raise ClaimRefused for what can't be looked up anywhere."""
    if not has_word(claim):
        raise ClaimRefused("the claim has no word in it")
    if len(claim) > MAX_CHARACTERS:
        raise ClaimRefused(f"the claim is longer than {MAX_CHARACTERS:,} characters; ask for one statement at a time")


def check_limit(limit: int) -> None:
    """Raise ValueError for a number of passages that nobody can mean."""
    if not 1 <= limit <= MAX_PASSAGES:
        raise ValueError(f"a search gives 1 to {MAX_PASSAGES} passages, not {limit}")


async def check_leaves(text: str, *, finder: Finder, until: float) -> None:
    """Raise ClaimRefused for a text that others must not see, or of which that can't be said; NoAnswer out of time.

    The rules look first, since they cost little; then whatever `finder` has besides them, in a thread, until `until` of
    time.monotonic.
    """
    check_claim(text)
    refused = ClaimRefused("the claim holds something that may identify a person, and is not sent to others")
    if find_identifiers(text):
        raise refused
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            found = await asyncio.to_thread(finder.find, text)
    except PrivacyError:
        raise ClaimRefused("whom the claim may identify can't be looked for, and so it is not sent to others") from None
    except TimeoutError:
        raise NoAnswer("there was no time to look for what may identify a person, and nothing was sent") from None
    if found:
        raise refused
