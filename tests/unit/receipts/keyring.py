"""Real keys for tests: the development keys of every Substrate chain."""

from __future__ import annotations

from typing import Any

import bittensor_core


def key(name: str, *, ed25519: bool = False) -> Any:
    """Return the development key `//Name`."""
    kind = bittensor_core.CRYPTO_ED25519 if ed25519 else bittensor_core.CRYPTO_SR25519
    return bittensor_core.Keypair.create_from_uri(f"//{name}", kind)


MINER = key("Alice")
OTHER_MINER = key("Charlie")
VALIDATOR = key("Bob")
STRANGER = key("Mallory")
COLDKEY = key("Cold")
