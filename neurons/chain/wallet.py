"""The hotkey from a mounted Secret: `<folder>/<wallet>/hotkeys/<hotkey>`, plain JSON, as btcli writes it.

Only hotkeys belong in a cluster. A coldkey moves money, so a folder that holds one is refused as a whole, whatever else
is in it: the Secret is to be made anew, and the coldkey to be taken for known by others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bittensor as bt

from neurons.chain.errors import WalletError

COLDKEY_FILE = "coldkey"
PUBLIC_FILE = "coldkeypub.txt"


@dataclass(frozen=True)
class Hotkey:
    """A key that signs for one neuron. The SDK takes `keypair` wherever it takes a wallet."""

    keypair: bt.sp_core.Keypair
    coldkey: str | None
    """Address of the coldkey that is said to own it, from `coldkeypub.txt`; None if that isn't there."""

    @property
    def address(self) -> str:
        """The ss58 address."""
        return str(self.keypair.ss58_address)


def load_hotkey(folder: Path, *, wallet: str, hotkey: str) -> Hotkey:
    """Read a hotkey.

    Raises:
        WalletError: there is none, it is encrypted or damaged, or there is a coldkey.
    """
    refuse_coldkeys(folder)
    path = folder / wallet / "hotkeys" / hotkey
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        found = sorted(str(other.relative_to(folder)) for other in folder.glob("*/hotkeys/*") if other.is_file())
        raise WalletError(
            f"there is no hotkey {path}; the folder holds {', '.join(found) or 'none'}. Mount the wallet's Secret "
            f"there, with the key file as the item {wallet}/hotkeys/{hotkey}"
        ) from None
    except OSError as error:
        raise WalletError(
            f"the hotkey {path} can't be read: {error.strerror}. Let the pod's user read the Secret"
        ) from None
    if bt.sp_core.keyfile_data_is_encrypted(data):
        raise WalletError(
            f"the hotkey {path} is encrypted, and nobody is here to type its password: put the plain hotkey file in "
            "the Secret (btcli writes hotkeys plain by default)"
        )
    try:
        keypair = bt.sp_core.deserialize_keypair_from_keyfile_data(data)
    except (bt.sp_core.KeyfileError, ValueError) as error:
        raise WalletError(f"{path} is no key file: {error}. Copy it anew from the wallet's folder") from None
    coldkey = _public_coldkey(folder / wallet / PUBLIC_FILE)
    if coldkey == str(keypair.ss58_address):
        raise WalletError(
            f"the key in {path} is the wallet's coldkey under the name of a hotkey: take the Secret away, move what "
            "the coldkey holds to a new one, and mount a hotkey"
        )
    return Hotkey(keypair=keypair, coldkey=coldkey)


def refuse_coldkeys(folder: Path) -> None:
    """Look for coldkeys, also where Kubernetes keeps a Secret's real files.

    Raises:
        WalletError: there is one.
    """
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob(COLDKEY_FILE) if path.is_file())
    if found:
        raise WalletError(
            f"the Secret holds a coldkey ({', '.join(found)}). A coldkey moves money and must not be in a cluster: "
            "take it out of the Secret, move what it holds to a new coldkey, and mount only <wallet>/hotkeys/<hotkey>"
        )


def _public_coldkey(path: Path) -> str | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    try:
        return str(bt.sp_core.deserialize_keypair_from_keyfile_data(data).ss58_address)
    except (bt.sp_core.KeyfileError, ValueError) as error:
        raise WalletError(f"{path} is no public key file: {error}. Copy it anew, or leave it out") from None
