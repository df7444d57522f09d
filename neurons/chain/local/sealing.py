"""Weights sealed for a later epoch: to the local chain's own key, where the real chain's are sealed to drand's future.

drand can't be reached offline, and its public key can't be replaced in the SDK. So the seal is a box for an ed25519 key
that the chain holds; that it stays closed until its round is up to the chain. Rounds are drand's own arithmetic, on the
chain's clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import bittensor as bt
from bittensor import timelock

from neurons.chain.local.storage import dumps


class CannotOpen(Exception):  # noqa: N818 - what happened, not a mistake of ours
    """The ciphertext isn't for this chain's key, or what is in it is no weights."""


@dataclass(frozen=True)
class SealedWeights:
    """What a commit hides; the hotkey is in it so that nobody can commit another's ciphertext as their own."""

    hotkey: str
    uids: list[int]
    values: list[int]
    version_key: int

    def seal(self, key: str) -> bytes:
        """Close it for the chain's ed25519 key (an ss58 address)."""
        box = bt.sp_core.Keypair.encrypt_for(key, dumps(vars(self)).encode(), bt.CRYPTO_ED25519)
        return bytes(box)

    @classmethod
    def open(cls, ciphertext: bytes, seed: bytes) -> Self:
        """Open with the chain's seed (32 bytes).

        Raises:
            CannotOpen: it was closed for another key, or is damaged.
        """
        keypair = bt.sp_core.Keypair.create_from_seed(seed, bt.CRYPTO_ED25519)
        try:
            found = cls(**json.loads(bytes(keypair.decrypt(ciphertext))))
            numbers = [found.version_key, *found.uids, *found.values]
            if type(found.hotkey) is not str or any(type(number) is not int for number in numbers):
                raise TypeError("UIDs, weights and version key are integers")  # noqa: TRY301
        except (ValueError, TypeError, RecursionError) as error:
            raise CannotOpen(f"these weights weren't sealed for this chain: {error}") from None
        return found


def address_of(seed: bytes) -> str:
    """Return the ss58 address that weights are sealed for."""
    return str(bt.sp_core.Keypair.create_from_seed(seed, bt.CRYPTO_ED25519).ss58_address)


def round_before(seconds: float) -> int:
    """Return the last of drand's rounds that is published by a time (seconds since 1970)."""
    return timelock.current_round(seconds)
