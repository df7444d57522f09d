"""Signed extrinsics of the local subnet: what exactly is signed, and whether a signature is good.

The chain's own extrinsics are SCALE; these are one JSON text of the same fields, signed by the same keys. Genesis hash,
spec version, nonce and mortality are part of what is signed, so an extrinsic is good once, on one chain, for a while.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import bittensor as bt

from neurons.chain.local.storage import JSON, dumps


class InvalidExtrinsic(Exception):  # noqa: N818 - the chain's name for it
    """The chain takes no such extrinsic into its pool; it has cost no nonce and changed nothing."""


@dataclass(frozen=True)
class LocalCall:
    """A composed call: a pallet's function with plain JSON parameters (bytes as 0x-hex)."""

    module: str
    function: str
    params: dict[str, JSON]

    @property
    def data(self) -> bytes:
        """The call's bytes; the SDK takes anything that has them for a composed call."""
        return dumps([self.module, self.function, self.params]).encode()

    @classmethod
    def of(cls, call: Any) -> Self:
        """Return a composed call from one that the SDK's builders made, or as it is if it is composed already."""
        if isinstance(call, cls):
            return call
        module, function, params = call
        return cls(module, function, {name: _plain(value) for name, value in params.items()})


@dataclass(frozen=True, kw_only=True)
class Extrinsic:
    """A call, who signs it, and for which chain and time; `signature` is empty until it is signed."""

    module: str
    function: str
    params: dict[str, JSON] = field(default_factory=dict)
    address: str
    crypto_type: int
    nonce: int
    genesis_hash: str
    spec_version: int
    birth: int
    """Block from which it may be included."""
    period: int | None
    """For so many blocks; None for ever."""
    signature: str = ""

    @property
    def payload(self) -> bytes:
        """The 32 bytes to sign: the BLAKE2b hash of all fields but the signature."""
        fields = {name: value for name, value in asdict(self).items() if name != "signature"}
        return hashlib.blake2b(dumps(fields).encode(), digest_size=32).digest()

    @property
    def hash(self) -> str:
        """What it is known by, 0x-hex."""
        return "0x" + hashlib.blake2b(dumps(asdict(self)).encode(), digest_size=32).hexdigest()

    @classmethod
    def parse(cls, body: JSON) -> Self:
        """Read an extrinsic from JSON.

        Raises:
            InvalidExtrinsic: it isn't one.
        """
        try:
            return cls(**body)
        except TypeError as error:
            raise InvalidExtrinsic(f"this is no extrinsic: {error}") from None

    def check_signature(self) -> None:
        """Verify the signature.

        Raises:
            InvalidExtrinsic: it isn't by `address`, or not of this payload.
        """
        try:
            good = bt.sp_core.verify(
                self.payload, bytes.fromhex(self.signature.removeprefix("0x")), self.address, self.crypto_type
            )
        except (ValueError, TypeError) as error:
            raise InvalidExtrinsic(f"Transaction has a bad signature: {error}") from None
        if not good:
            raise InvalidExtrinsic(
                f"Transaction has a bad signature: it isn't {self.address}'s of this call. Sign with that account's key"
            )


def _plain(value: Any) -> JSON:
    if isinstance(value, bytes | bytearray):
        return "0x" + bytes(value).hex()
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
