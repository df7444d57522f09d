"""The hotkey from a mounted Secret, plain JSON, as btcli writes it.

The Secret has the hotkey's file under any name (`hotkey`, say), and may have `coldkeypub.txt`. A whole wallet's folder
(`<wallet>/hotkeys/<hotkey>`) is read as well. Only hotkeys belong in a cluster: a coldkey moves money, so a folder that
holds one is refused as a whole, whatever else is in it. The Secret is to be made anew, and the coldkey to be taken for
known by others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bittensor as bt

from neurons.chain.errors import ColdkeyError, WalletError

MAX_FILE_BYTES: Final = 64 * 1024
_COLDKEY: Final = "coldkey"
_PUBLIC: Final = "coldkeypub.txt"


@dataclass(frozen=True)
class Hotkey:
    """A key that signs for one neuron. The SDK takes `keypair` wherever it takes a wallet."""

    keypair: bt.sp_core.Keypair
    coldkey: str | None = None
    """Address of the coldkey that is said to own it, from `coldkeypub.txt`; None if that isn't there."""

    @property
    def address(self) -> str:
        """The ss58 address."""
        return str(self.keypair.ss58_address)


def load_hotkey(folder: Path) -> Hotkey:
    """Read the key that signs. No message holds anything of a key but its address.

    Raises:
        WalletError: there is none, or not one; it is encrypted or damaged.
        ColdkeyError: there is a coldkey.
    """
    files = sorted(_files(folder))
    for path in [*files, *folder.rglob(_COLDKEY)]:  # also where kubelet keeps a Secret's real files
        if path.name.lower().startswith(_COLDKEY) and path.name != _PUBLIC and path.is_file():
            raise _coldkey(str(path.relative_to(folder)))
    texts = [path for path in files if path.name.endswith(".txt")]  # public halves, or what is taken for such
    secret = {path for path in texts if _is_secret(_bytes(path))}
    for path in secret:
        if path.name == _PUBLIC:
            raise _coldkey(str(path.relative_to(folder)))
    keys = [path for path in files if path not in texts or path in secret]
    if not keys:
        raise WalletError(
            f"the wallet's Secret holds no hotkey ({folder} is empty): create it from the hotkey's file alone, such as "
            "kubectl create secret generic NAME --from-file=hotkey=$HOME/.bittensor/wallets/WALLET/hotkeys/HOTKEY"
        )
    if len(keys) > 1:
        raise WalletError(
            f"the wallet's Secret holds {len(keys)} keys ({', '.join(path.name for path in keys)}): leave the one that "
            "this pool signs with"
        )
    keypair = _read(keys[0])
    owner = next((_public(path) for path in files if path.name == _PUBLIC), None)
    if owner == str(keypair.ss58_address):
        raise _coldkey(keys[0].name)
    return Hotkey(keypair=keypair, coldkey=owner)


def refuse_coldkey(address: str, coldkeys: frozenset[str]) -> None:
    """Refuse a key that the chain knows as a coldkey, whatever its file is called; raises ColdkeyError."""
    if address in coldkeys:
        raise _coldkey(address)


def _coldkey(what: str) -> ColdkeyError:
    return ColdkeyError(
        f"the wallet's Secret holds a coldkey ({what}). A coldkey moves money and must not be in a cluster: delete the "
        "Secret, move what the coldkey holds to a new one, and create the Secret anew with a hotkey alone"
    )


def _files(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise WalletError(
            f"the wallet's Secret is not there ({folder}: {error.strerror}): create the Secret that "
            "spec.miner.walletSecretRef names"
        ) from None
    for path in paths:
        if path.name.startswith("."):  # kubelet's own: ..data and the folder it points to
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _read(path: Path) -> bt.sp_core.Keypair:
    data = _bytes(path)
    if bt.sp_core.keyfile_data_is_encrypted(data):
        raise WalletError(
            f"the key {path.name} in the wallet's Secret is encrypted, and nobody is here to type its password: put "
            "the hotkey's plain file there, as btcli writes hotkeys"
        )
    keypair = _parsed(data)
    if keypair is None or not _signs(keypair):
        raise WalletError(
            f"{path.name} in the wallet's Secret is no hotkey that can sign: copy the file "
            "~/.bittensor/wallets/WALLET/hotkeys/HOTKEY, not its public half"
        )
    return keypair


def _is_secret(data: bytes) -> bool:
    """Tell whether a file holds more of a key than its public half; encrypted, nobody can say that it doesn't."""
    if bt.sp_core.keyfile_data_is_encrypted(data):
        return True
    keypair = _parsed(data)
    return keypair is not None and _signs(keypair)


def _signs(keypair: bt.sp_core.Keypair) -> bool:
    try:
        return bool(keypair.verify(b"bettertherapy", keypair.sign(b"bettertherapy")))
    except (bt.sp_core.KeyfileError, ValueError, RuntimeError):
        return False


def _public(path: Path) -> str | None:
    keypair = _parsed(_bytes(path))
    return None if keypair is None else str(keypair.ss58_address)


def _parsed(data: bytes) -> bt.sp_core.Keypair | None:
    try:
        keypair = bt.sp_core.deserialize_keypair_from_keyfile_data(data)
    except (bt.sp_core.KeyfileError, ValueError):
        return None
    return keypair


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise WalletError(
            f"{path.name} of the wallet's Secret can't be read: {error.strerror}. The Secret must be mounted readable "
            "for the pod's group"
        ) from None
