"""The methods of the SDK's `Substrate` seam that a subnet's neurons never ask for, and that a local subnet lacks."""

from __future__ import annotations

from typing import Any, NoReturn

from bittensor import ChainError
from bittensor.settings import DEFAULT_ERA_PERIOD


class AbsentParts:
    """They say so; nothing pretends to have been done."""

    async def decode_scale(self, type_string: str, data: Any) -> NoReturn:
        """Not here: nothing is SCALE."""
        _lacks(f"SCALE ({type_string})")

    async def mev_next_key(self) -> bytes | None:
        """Return the MEV shield's key: there is no shield here."""
        return None

    async def prepare(
        self,
        call: Any,
        *,
        address: str,
        crypto_type: int = 1,
        nonce: int | None = None,
        period: int | None = DEFAULT_ERA_PERIOD,
        tip: int = 0,
        metadata_hash: bytes | None = None,
    ) -> NoReturn:
        """Not here: keys that sign elsewhere."""
        _lacks("signing elsewhere")

    async def submit_signature(
        self,
        unsigned: Any,
        signature: bytes | str,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> NoReturn:
        """Not here: keys that sign elsewhere."""
        _lacks("signing elsewhere")

    def multisig_account(self, signatories: list[str], threshold: int) -> NoReturn:
        """Not here: multisig."""
        _lacks("multisig")

    async def submit_multisig(
        self,
        call: Any,
        keypair: Any,
        multisig_account: Any,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> NoReturn:
        """Not here: multisig."""
        _lacks("multisig")


def _lacks(what: str) -> NoReturn:
    raise ChainError(f"the local subnet has no {what}")
