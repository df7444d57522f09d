"""The hotkey from a mounted Secret. Only hotkeys are accepted: a coldkey moves money, and must not be in a cluster.

The Secret has the hotkey's file under any name (`hotkey`, say), as btcli writes it, and may have `coldkeypub.txt`. A
whole wallet's folder (`<wallet>/hotkeys/<hotkey>`) is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import bittensor_core

from neurons.receipts import Keypair

MAX_FILE_BYTES: Final = 64 * 1024
_COLDKEY: Final = "coldkey"
_PUBLIC: Final = "coldkeypub.txt"


class HotkeyError(Exception):
    """There is no hotkey to sign with, or something that must not be here; the message says what to do."""


class ColdkeyError(HotkeyError):
    """The key that would sign, or one beside it, is a coldkey."""


def load_hotkey(folder: Path) -> Keypair:
    """Return the key that signs; raises HotkeyError. No message holds anything of a key but its address."""
    files = sorted(_files(folder))
    for path in files:
        if path.name.lower().startswith(_COLDKEY) and path.name != _PUBLIC:
            raise _coldkey(path.name)
    keys = [path for path in files if not path.name.endswith(".txt")]
    if not keys:
        raise HotkeyError(
            f"the wallet's Secret holds no hotkey ({folder} is empty): create it from the hotkey's file alone, such as "
            "kubectl create secret generic NAME --from-file=hotkey=~/.bittensor/wallets/WALLET/hotkeys/HOTKEY"
        )
    if len(keys) > 1:
        raise HotkeyError(
            f"the wallet's Secret holds {len(keys)} keys ({', '.join(path.name for path in keys)}): leave the one that "
            "this pool signs with"
        )
    keypair = _read(keys[0])
    owner = next((_public(path) for path in files if path.name == _PUBLIC), None)
    if owner == str(keypair.ss58_address):
        raise _coldkey(keys[0].name)
    return keypair


def owner_of(folder: Path) -> str | None:
    """Return the address of the coldkey that is said to own the hotkey, by `coldkeypub.txt`; None if that isn't there.

    Raises:
        HotkeyError: the folder can't be read.
    """
    return next((_public(path) for path in sorted(_files(folder)) if path.name == _PUBLIC), None)


def refuse_coldkey(address: str, coldkeys: frozenset[str]) -> None:
    """Refuse a key that the chain knows as a coldkey, whatever its file is called; raises HotkeyError."""
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
        raise HotkeyError(
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


def _read(path: Path) -> Keypair:
    data = _bytes(path)
    if bittensor_core.keyfile_data_is_encrypted(data):
        raise HotkeyError(
            f"the key {path.name} in the wallet's Secret is encrypted, and nobody is here to type its password: put "
            "the hotkey's plain file there, as btcli writes hotkeys"
        )
    keypair = _parsed(data)
    if keypair is None or not _signs(keypair):
        raise HotkeyError(
            f"{path.name} in the wallet's Secret is no hotkey that can sign: copy the file "
            "~/.bittensor/wallets/WALLET/hotkeys/HOTKEY, not its public half"
        )
    return keypair


def _signs(keypair: Any) -> bool:
    try:
        return bool(keypair.verify(b"bettertherapy", keypair.sign(b"bettertherapy")))
    except (bittensor_core.KeyfileError, ValueError, RuntimeError):
        return False


def _public(path: Path) -> str | None:
    keypair = _parsed(_bytes(path))
    return None if keypair is None else str(keypair.ss58_address)


def _parsed(data: bytes) -> Keypair | None:
    try:
        keypair: Keypair = bittensor_core.deserialize_keypair_from_keyfile_data(data)
    except (bittensor_core.KeyfileError, ValueError):
        return None
    return keypair


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise HotkeyError(
            f"{path.name} of the wallet's Secret can't be read: {error.strerror}. The Secret must be mounted readable "
            "for the pod's group"
        ) from None
