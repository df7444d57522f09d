"""Only a hotkey is taken from the wallet's Secret; whatever else is there is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from bittensor import sp_core

from neurons.wire.hotkey import HotkeyError, load_hotkey, refuse_coldkey
from tests.unit.receipts.keyring import COLDKEY, MINER, OTHER_MINER

PLAIN = sp_core.serialized_keypair_to_keyfile_data(MINER)
PUBLIC = sp_core.serialized_keypair_to_keyfile_data(
    sp_core.Keypair(ss58_address=MINER.ss58_address, public_key=bytes(MINER.public_key), crypto_type=1)
)


def mounted(folder: Path, files: dict[str, bytes]) -> Path:
    """Lay files out as kubelet mounts a Secret."""
    data = folder / "..2026_01_01"
    data.mkdir()
    (folder / "..data").symlink_to(data.name)
    for name, content in files.items():
        (data / name).write_bytes(content)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@pytest.mark.parametrize("name", ["hotkey", "default", "miner-1"])
def test_the_secrets_one_key_signs(tmp_path: Path, name: str) -> None:
    folder = mounted(tmp_path, {name: PLAIN, "coldkeypub.txt": sp_core.serialized_keypair_to_keyfile_data(COLDKEY)})
    assert load_hotkey(folder).ss58_address == MINER.ss58_address


def test_a_wallets_folder_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "clinic" / "hotkeys" / "one"
    path.parent.mkdir(parents=True)
    path.write_bytes(PLAIN)
    assert load_hotkey(tmp_path).ss58_address == MINER.ss58_address


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"hotkey": PLAIN, "coldkey": b"$NACL..."}, "holds a coldkey (coldkey)"),
        ({"hotkey": PLAIN, "coldkey.json": b"x"}, "holds a coldkey (coldkey.json)"),
        ({"hotkey": PLAIN, "coldkeypub.txt": PUBLIC}, "holds a coldkey (hotkey)"),
        ({}, "holds no hotkey"),
        ({"coldkeypub.txt": PUBLIC}, "holds no hotkey"),
        ({"a": PLAIN, "b": sp_core.serialized_keypair_to_keyfile_data(OTHER_MINER)}, "holds 2 keys (a, b)"),
        ({"hotkey": sp_core.encrypt_keyfile_data(PLAIN, "password")}, "is encrypted"),
        ({"hotkey": PUBLIC}, "not its public half"),
        ({"hotkey": b"nonsense"}, "is no hotkey that can sign"),
        ({"hotkey": b""}, "is no hotkey that can sign"),
    ],
    ids=["coldkey", "named so", "by its public half", "empty", "public only", "two", "encrypted", "public", "junk",
         "nothing"],
)  # fmt: skip
def test_what_is_no_hotkey_is_refused_in_words(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(HotkeyError) as caught:
        load_hotkey(mounted(tmp_path, files))
    assert says in str(caught.value)
    assert "privateKey" not in str(caught.value)


def test_a_secret_that_is_not_there_is_named_by_the_field_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(HotkeyError, match=r"spec\.miner\.walletSecretRef"):
        load_hotkey(tmp_path / "none")


def test_what_the_chain_knows_as_a_coldkey_is_refused_under_any_name() -> None:
    refuse_coldkey(MINER.ss58_address, frozenset({COLDKEY.ss58_address}))
    with pytest.raises(HotkeyError, match="delete the Secret"):
        refuse_coldkey(COLDKEY.ss58_address, frozenset({COLDKEY.ss58_address}))
