"""The hotkey from a mounted Secret; a coldkey there is refused."""

from __future__ import annotations

from pathlib import Path

import bittensor as bt
import pytest

from neurons.chain.errors import WalletError
from neurons.chain.wallet import load_hotkey


@pytest.fixture
def wallet(tmp_path: Path) -> bt.Wallet:
    made = bt.Wallet("clinic", "miner", path=str(tmp_path / "wallets"))
    made.create_new_hotkey(suppress=True)
    return made


@pytest.fixture
def folder(wallet: bt.Wallet) -> Path:
    return Path(wallet.path)


def test_the_hotkey_is_read_as_btcli_writes_it(folder: Path, wallet: bt.Wallet) -> None:
    hotkey = load_hotkey(folder, wallet="clinic", hotkey="miner")
    assert hotkey.address == wallet.hotkey.ss58_address
    assert hotkey.coldkey is None
    assert bt.sp_core.verify(b"said", hotkey.keypair.sign(b"said"), hotkey.address, hotkey.keypair.crypto_type)


def test_the_owner_s_address_comes_from_the_public_file(folder: Path, wallet: bt.Wallet) -> None:
    coldkey = bt.sp_core.Keypair.create_from_uri("//owner")
    wallet.regenerate_coldkeypub(ss58_address=coldkey.ss58_address)
    assert load_hotkey(folder, wallet="clinic", hotkey="miner").coldkey == coldkey.ss58_address


@pytest.mark.parametrize("place", ["clinic/coldkey", "other/coldkey", "..data/clinic/coldkey", "coldkey"])
def test_a_coldkey_anywhere_in_the_secret_is_refused(folder: Path, wallet: bt.Wallet, place: str) -> None:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    with pytest.raises(WalletError, match=r"holds a coldkey .*move what it holds to a new coldkey"):
        load_hotkey(folder, wallet="clinic", hotkey="miner")


def test_a_coldkey_named_as_a_hotkey_is_refused(folder: Path, wallet: bt.Wallet) -> None:
    wallet.regenerate_coldkeypub(ss58_address=wallet.hotkey.ss58_address)
    with pytest.raises(WalletError, match="coldkey under the name of a hotkey"):
        load_hotkey(folder, wallet="clinic", hotkey="miner")


def test_a_missing_hotkey_is_told_with_those_that_there_are(folder: Path, wallet: bt.Wallet) -> None:
    with pytest.raises(
        WalletError, match=r"there is no hotkey .*holds clinic/hotkeys/miner.*Mount the wallet's Secret"
    ):
        load_hotkey(folder, wallet="clinic", hotkey="validator")


def test_an_encrypted_hotkey_is_refused_without_asking_for_its_password(folder: Path, wallet: bt.Wallet) -> None:
    wallet.hotkey_file.set_keypair(wallet.hotkey, encrypt=True, overwrite=True, password="secret")
    with pytest.raises(WalletError, match="is encrypted"):
        load_hotkey(folder, wallet="clinic", hotkey="miner")


def test_what_is_no_key_file_is_refused_without_showing_it(folder: Path, wallet: bt.Wallet) -> None:
    (folder / "clinic" / "hotkeys" / "miner").write_text('{"secretSeed": "0xdead')
    with pytest.raises(WalletError, match="is no key file") as refused:
        load_hotkey(folder, wallet="clinic", hotkey="miner")
    assert "dead" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_told(folder: Path, wallet: bt.Wallet) -> None:
    path = folder / "clinic" / "hotkeys" / "miner"
    path.unlink()
    path.mkdir()
    with pytest.raises(WalletError, match=r"the hotkey .* can't be read"):
        load_hotkey(folder, wallet="clinic", hotkey="miner")
