"""Only a hotkey is taken from the wallet's Secret; whatever else is there is refused in words."""

from __future__ import annotations

from pathlib import Path

import bittensor as bt
import pytest
from bittensor import sp_core

from neurons.chain.errors import ColdkeyError, WalletError
from neurons.chain.wallet import load_hotkey, refuse_coldkey
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


OTHER = sp_core.serialized_keypair_to_keyfile_data(OTHER_MINER)
WHOLE_COLDKEY = sp_core.serialized_keypair_to_keyfile_data(COLDKEY)
OWNER = sp_core.serialized_keypair_to_keyfile_data(
    sp_core.Keypair(ss58_address=COLDKEY.ss58_address, public_key=bytes(COLDKEY.public_key), crypto_type=1)
)


@pytest.mark.parametrize("name", ["hotkey", "default", "miner-1"])
def test_the_secrets_one_key_signs(tmp_path: Path, name: str) -> None:
    folder = mounted(tmp_path, {name: PLAIN, "coldkeypub.txt": OWNER, "hotkeypub.txt": PUBLIC})
    found = load_hotkey(folder)
    assert (found.address, found.coldkey) == (MINER.ss58_address, COLDKEY.ss58_address)


def test_a_wallets_folder_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "clinic" / "hotkeys" / "one"
    path.parent.mkdir(parents=True)
    path.write_bytes(PLAIN)
    assert load_hotkey(tmp_path).address == MINER.ss58_address


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"hotkey": PLAIN, "coldkey": b"$NACL..."}, "holds a coldkey (coldkey)"),
        ({"hotkey": PLAIN, "coldkey.json": b"x"}, "holds a coldkey (coldkey.json)"),
        ({"hotkey": PLAIN, "coldkeypub.txt": PUBLIC}, "holds a coldkey (hotkey)"),
        ({"hotkey": PLAIN, "coldkeypub.txt": WHOLE_COLDKEY}, "holds a coldkey (coldkeypub.txt)"),
        ({"hotkey": PLAIN, "coldkeypub.txt": sp_core.encrypt_keyfile_data(WHOLE_COLDKEY, "password")},
         "holds a coldkey (coldkeypub.txt)"),
        ({"hotkey": PLAIN, "notes.txt": OTHER}, "holds 2 keys (hotkey, notes.txt)"),
        ({}, "holds no hotkey"),
        ({"coldkeypub.txt": PUBLIC}, "holds no hotkey"),
        ({"a": PLAIN, "b": OTHER}, "holds 2 keys (a, b)"),
        ({"hotkey": sp_core.encrypt_keyfile_data(PLAIN, "password")}, "is encrypted"),
        ({"hotkey": PUBLIC}, "not its public half"),
        ({"hotkey": b"nonsense"}, "is no hotkey that can sign"),
        ({"hotkey": b""}, "is no hotkey that can sign"),
    ],
    ids=["coldkey", "named so", "by its public half", "as its public half", "as its public half, encrypted", "another",
         "empty", "public only", "two", "encrypted", "public", "junk",
         "nothing"],
)  # fmt: skip
def test_what_is_no_hotkey_is_refused_in_words(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(WalletError) as caught:
        load_hotkey(mounted(tmp_path, files))
    assert says in str(caught.value)
    assert "privateKey" not in str(caught.value)


def test_a_secret_that_is_not_there_is_named_by_the_field_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(WalletError, match=r"spec\.miner\.walletSecretRef"):
        load_hotkey(tmp_path / "none")


def test_what_the_chain_knows_as_a_coldkey_is_refused_under_any_name() -> None:
    refuse_coldkey(MINER.ss58_address, frozenset({COLDKEY.ss58_address}))
    with pytest.raises(ColdkeyError, match="delete the Secret"):
        refuse_coldkey(COLDKEY.ss58_address, frozenset({COLDKEY.ss58_address}))


@pytest.fixture
def wallet(tmp_path: Path) -> bt.Wallet:
    made = bt.Wallet("clinic", "miner", path=str(tmp_path / "wallets"))
    made.create_new_hotkey(suppress=True)
    return made


def test_the_hotkey_is_read_as_btcli_writes_it(wallet: bt.Wallet) -> None:
    hotkey = load_hotkey(Path(wallet.path))
    assert (hotkey.address, hotkey.coldkey) == (wallet.hotkey.ss58_address, None)
    assert sp_core.verify(b"said", hotkey.keypair.sign(b"said"), hotkey.address, hotkey.keypair.crypto_type)


@pytest.mark.parametrize("place", ["clinic/coldkey", "other/coldkey", "..data/clinic/coldkey", "coldkey"])
def test_a_coldkey_anywhere_in_the_secret_is_refused(wallet: bt.Wallet, place: str) -> None:
    path = Path(wallet.path) / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ColdkeyError, match="move what the coldkey holds to a new one"):
        load_hotkey(Path(wallet.path))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mounted(tmp_path, {"hotkey": PLAIN})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WalletError, match=r"hotkey of the wallet's Secret can't be read: Permission denied"):
        load_hotkey(folder)
