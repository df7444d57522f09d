"""What a claim has to be before anything is asked about it, and before it leaves this process."""

from __future__ import annotations

from typing import Final

from neurons.invisible import has_word
from neurons.privacy import find_identifiers
from neurons.sources.errors import ClaimRefused

MAX_CHARACTERS: Final = 2_000


def check_claim(claim: str) -> None:
    """Raise ClaimRefused for what can't be looked up anywhere."""
    if not has_word(claim):
        raise ClaimRefused("the claim has no word in it")
    if len(claim) > MAX_CHARACTERS:
        raise ClaimRefused(f"the claim is longer than {MAX_CHARACTERS:,} characters; ask for one statement at a time")


def check_leaves(claim: str) -> None:
    """Raise ClaimRefused for a claim that others must not see.

    Rules only, as a last check: whoever asks has taken names out before (`neurons.privacy.Deidentifier`).
    """
    check_claim(claim)
    if find_identifiers(claim):
        raise ClaimRefused("the claim holds something that may identify a person, and is not sent to others")
