"""Signed extrinsics of the local subnet: what exactly is signed, and whether a signature is good.

The chain's own extrinsics are SCALE; these are one JSON text of the same fields, signed by the same keys. Genesis hash,
spec version, nonce and mortality are part of what is signed, so an extrinsic is good once, on one chain, for a while.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import bittensor as bt

from neurons.chain.local.addresses import checked
from neurons.chain.local.storage import JSON, dumps

GENESIS_HEADER: Final = "X-Genesis-Hash"
"""Of a request: for which chain its connection is. What that remembers of blocks holds for this one alone."""
_KINDS: Final = {
    "module": str, "function": str, "params": dict, "address": str, "crypto_type": int, "nonce": int,
    "genesis_hash": str, "spec_version": int, "birth": int, "signature": str,
}  # fmt: skip


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

        Once it is in the pool its block must be made, so what no node could have decoded is refused before.

        Raises:
            InvalidExtrinsic: it isn't one.
        """
        try:
            made = cls(**body)
            for name, kind in _KINDS.items():
                if type(getattr(made, name)) is not kind:
                    raise TypeError(f"{name} must be of type {kind.__name__}")  # noqa: TRY301 - as Python would say it
            if made.period is not None and type(made.period) is not int:
                raise TypeError("period must be of type int, or null")  # noqa: TRY301
            checked(made.address)
            json.dumps(made.params, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidExtrinsic(f"this is no extrinsic: {error}") from None
        return made

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
