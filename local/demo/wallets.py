"""Keys for a local subnet, made on this machine and kept between runs. Only hotkeys ever leave it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bittensor_core

from demo.errors import DemoError

HOTKEY: Final = "default"


@dataclass(frozen=True)
class Wallet:
    """Two keys: the coldkey owns and pays, the hotkey signs."""

    coldkey: Any
    hotkey: Any

    @property
    def address(self) -> str:
        """The hotkey's ss58 address."""
        return str(self.hotkey.ss58_address)

    @property
    def secret(self) -> dict[str, bytes]:
        """What a Secret may hold of it: the hotkey's file, and the coldkey's public half."""
        public = bittensor_core.Keypair(
            ss58_address=self.coldkey.ss58_address, public_key=bytes(self.coldkey.public_key), crypto_type=1
        )
        return {
            "hotkey": bytes(bittensor_core.serialized_keypair_to_keyfile_data(self.hotkey)),
            "coldkeypub.txt": bytes(bittensor_core.serialized_keypair_to_keyfile_data(public)),
        }


def open_wallet(folder: Path, name: str) -> Wallet:
    """Return a wallet of the folder, laid out as btcli does; made where there is none.

    Raises:
        DemoError: a file in it is no key.
    """
    return Wallet(
        coldkey=_key(folder / name / "coldkey"),
        hotkey=_key(folder / name / "hotkeys" / HOTKEY),
    )


def _key(path: Path) -> Any:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = bittensor_core.Keypair.create_from_mnemonic(bittensor_core.Keypair.generate_mnemonic())
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes(bittensor_core.serialized_keypair_to_keyfile_data(made)))
        part.replace(path)
    try:
        return bittensor_core.deserialize_keypair_from_keyfile_data(path.read_bytes())
    except (bittensor_core.KeyfileError, ValueError):
        raise DemoError(
            f"{path} is no key file", remedy="delete it: keys of the demo's local subnet are worth nothing"
        ) from None
