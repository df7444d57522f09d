"""Signatures by Substrate keys (sr25519, ed25519), with the key primitives that the bittensor SDK is built on.

Only `bittensor_core` is loaded, never the SDK: it takes milliseconds instead of seconds, and needs no network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, Protocol, cast

SR25519: Final = "sr25519"
ED25519: Final = "ed25519"
SCHEMES: Final = {0: ED25519, 1: SR25519}
"""By the SDK's numbers (`Keypair.crypto_type`)."""
_NUMBERS: Final = {scheme: number for number, scheme in SCHEMES.items()}


class Keypair(Protocol):
    """What signs: `bittensor.sp_core.Keypair`, or anything like it."""

    @property
    def ss58_address(self) -> str:
        """Its address."""

    @property
    def public_key(self) -> bytes:
        """Its public key, 32 bytes."""

    @property
    def crypto_type(self) -> int:
        """Its scheme: 0 is ed25519, 1 is sr25519."""

    def sign(self, payload: bytes) -> bytes:
        """Return the signature, 64 bytes."""


def scheme_of(keypair: Keypair) -> str:
    """Return the name of the key's scheme; raises ValueError for one that can't sign here."""
    scheme = SCHEMES.get(keypair.crypto_type)
    if scheme is None:
        raise ValueError(f"keys of type {keypair.crypto_type} can't sign: use an sr25519 or ed25519 hotkey")
    return scheme


@cache
def _verify() -> Callable[[bytes, bytes, str, int], bool]:
    from bittensor_core import verify  # noqa: PLC0415 - only what signs or verifies needs it

    return cast(Callable[[bytes, bytes, str, int], bool], verify)


def is_signed_by(address: str, payload: bytes, signature: bytes, *, scheme: str) -> bool:
    """Tell whether the key of this ss58 address signed the payload; nonsense of any kind is not signed."""
    number = _NUMBERS.get(scheme)
    if number is None:
        return False
    try:
        return bool(_verify()(payload, signature, address, number))
    except ValueError:  # an address that is none, a signature of another length
        return False
