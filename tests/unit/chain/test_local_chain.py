"""The local chain by itself: signatures, nonces, registration, pruning, emission, storage."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import bittensor as bt
import pytest

from neurons.chain.local import calls, sealing
from neurons.chain.local.calls import balance
from neurons.chain.local.extrinsics import Extrinsic, InvalidExtrinsic
from neurons.chain.local.genesis import RAO
from neurons.chain.local.node import LocalChain, UnknownBlock
from neurons.chain.local.storage import Database, State
from neurons.chain.local.subnet import VECTORS
from neurons.chain.local.subnet import Subnet as State1
from tests.unit.chain.conftest import OpenSubnet
from tests.unit.chain.played import NETUID, Subnet, coldkey_of, genesis, hotkey, keypair


@pytest.fixture
def chain(tmp_path: Path) -> LocalChain:
    return LocalChain.open(tmp_path / "chain.db", genesis())


def signed(chain: LocalChain, who: str, function: str, params: dict[str, Any], **changes: Any) -> Extrinsic:
    key = keypair(who)
    given: dict[str, Any] = {
        "module": "SubtensorModule",
        "function": function,
        "params": params,
        "address": key.ss58_address,
        "crypto_type": key.crypto_type,
        "nonce": chain.next_nonce(key.ss58_address),
        "genesis_hash": chain.genesis_hash,
        "spec_version": chain.spec_version,
        "birth": chain.head,
        "period": 8,
    }
    unsigned = Extrinsic(**(given | changes))
    return dataclasses.replace(unsigned, signature="0x" + key.sign(unsigned.payload).hex())


def registration(chain: LocalChain, name: str, **changes: Any) -> Extrinsic:
    params = {"netuid": NETUID, "hotkey": hotkey(name).address}
    return signed(chain, f"{name}-cold", "burned_register", params, **changes)


def put(chain: LocalChain, extrinsic: Extrinsic) -> dict[str, Any]:
    extrinsic_hash = chain.submit(vars(extrinsic))
    chain.make_block()
    receipt: dict[str, Any] = chain.receipt(extrinsic_hash)
    return receipt


def test_a_signature_of_another_key_is_refused(chain: LocalChain) -> None:
    good = registration(chain, "a")
    forged = dataclasses.replace(good, signature="0x" + keypair("thief").sign(good.payload).hex())
    with pytest.raises(InvalidExtrinsic, match="bad signature"):
        chain.submit(vars(forged))
    with pytest.raises(InvalidExtrinsic, match="bad signature"):
        chain.submit(vars(dataclasses.replace(good, signature="0x12")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("params", {"netuid": NETUID, "hotkey": "5thief"}),
        ("function", "add_stake"),
        ("module", "Balances"),
        ("period", 9),
    ],
)
def test_nothing_that_was_signed_can_be_changed(chain: LocalChain, field: str, value: object) -> None:
    changed = dataclasses.replace(registration(chain, "a"), **{field: value})
    with pytest.raises(InvalidExtrinsic, match="bad signature"):
        chain.submit(vars(changed))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"genesis_hash": "0x00"}, "another chain"),
        ({"spec_version": 1}, "is for runtime 1"),
        ({"nonce": 5}, "from the future"),
        ({"birth": 10}, "ancient birth block"),
    ],
)
def test_what_is_not_for_this_chain_and_time_is_refused(chain: LocalChain, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidExtrinsic, match=why):
        chain.submit(vars(registration(chain, "a", **changes)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"module": []}, "module must be of type str"),
        ({"function": None}, "function must be of type str"),
        ({"params": [1]}, "params must be of type dict"),
        ({"params": {"netuid": float("inf")}}, "no extrinsic"),
        ({"birth": 0.5}, "birth must be of type int"),
        ({"period": "8"}, "period must be of type int"),
        ({"address": "5thief"}, "no ss58 address"),
    ],
)
def test_what_no_node_could_decode_is_not_taken_and_blocks_go_on(
    chain: LocalChain, changes: dict[str, Any], why: str
) -> None:
    """Once in the pool it would end each block anew, also after a restart: whoever reaches the chain could stop it."""
    call = {"function": "burned_register", "params": {"netuid": NETUID}} | changes
    with pytest.raises(InvalidExtrinsic, match=why):
        chain.submit(vars(signed(chain, "a-cold", **call)))
    assert chain.make_block().number == 1


def test_one_account_is_not_two_by_an_address_of_another_network(chain: LocalChain) -> None:
    key = keypair("a-cold")
    elsewhere = bt.sp_core.encode_ss58(bt.sp_core.decode_ss58(key.ss58_address), 0)
    with pytest.raises(InvalidExtrinsic, match=f"here it is written {key.ss58_address}"):
        chain.submit(vars(registration(chain, "a", address=elsewhere, nonce=0)))


def test_an_extrinsic_counts_once_however_often_it_is_sent(chain: LocalChain) -> None:
    extrinsic = registration(chain, "a")
    first = chain.submit(vars(extrinsic))
    assert chain.submit(vars(extrinsic)) == first
    chain.make_block()
    assert chain.submit(vars(extrinsic)) == first
    chain.make_block()
    assert State1(chain.state(), NETUID).n == 1
    assert chain.state().get("System.Nonce", coldkey_of("a")) == 1
    with pytest.raises(InvalidExtrinsic, match="outdated"):
        chain.submit(vars(registration(chain, "a", nonce=0, period=7)))


def test_an_ed25519_key_signs_too(chain: LocalChain) -> None:
    key = bt.sp_core.Keypair.create_from_uri("//ed", bt.CRYPTO_ED25519)
    unsigned = dataclasses.replace(
        registration(chain, "a"), address=key.ss58_address, crypto_type=key.crypto_type, signature=""
    )
    extrinsic = dataclasses.replace(unsigned, signature="0x" + key.sign(unsigned.payload).hex())
    assert put(chain, extrinsic)["error"] is None


def test_a_refused_call_costs_its_nonce_and_changes_nothing_else(chain: LocalChain) -> None:
    put(chain, registration(chain, "a"))
    before = balance(chain.state(), coldkey_of("b"))
    params = {"netuid": NETUID, "hotkey": hotkey("a").address}
    receipt = put(chain, signed(chain, "b-cold", "burned_register", params))
    assert receipt["error"]["name"] == "NonAssociatedColdKey"
    assert balance(chain.state(), coldkey_of("b")) == before
    assert chain.next_nonce(coldkey_of("b")) == 1
    assert State1(chain.state(), NETUID).owner(hotkey("a").address) == coldkey_of("a")


def axon(**changes: int) -> dict[str, Any]:
    return {"netuid": NETUID, "version": 1, "ip": 134744072, "port": 1, "ip_type": 4, "protocol": 4, **changes}


def commit(**changes: Any) -> dict[str, Any]:
    return {"netuid": NETUID, "commit": "0x00", "reveal_round": 1, "commit_reveal_version": 4, **changes}


def about_a(**more: Any) -> dict[str, Any]:
    return {"netuid": NETUID, "hotkey": hotkey("a").address, **more}


@pytest.mark.parametrize(
    ("who", "function", "params", "error"),
    [
        ("a-cold", "burned_register", about_a(), "HotKeyAlreadyRegisteredInSubNet"),
        ("a-cold", "burned_register", about_a(netuid=9), "SubnetNotExists"),
        ("b-cold", "add_stake", about_a(amount_staked=RAO), "NonAssociatedColdKey"),
        ("a-cold", "add_stake", about_a(amount_staked=1), "AmountTooLow"),
        ("a-cold", "add_stake", about_a(amount_staked=10**18), "NotEnoughBalanceToStake"),
        ("a-cold", "remove_stake", about_a(amount_unstaked=10**18), "NotEnoughStakeToWithdraw"),
        ("a-hot", "serve_axon", axon(ip=2130706433), "InvalidIpAddress"),
        ("a-hot", "serve_axon", axon(ip=1, ip_type=6), "InvalidIpAddress"),
        ("a-hot", "serve_axon", axon(ip=2**40), "InvalidIpAddress"),
        ("a-hot", "serve_axon", axon(ip_type=5), "InvalidIpType"),
        ("a-hot", "serve_axon", axon(port=0), "InvalidPort"),
        ("a-hot", "serve_axon", {"netuid": NETUID}, "InvalidCall"),
        ("b-hot", "serve_axon", axon(), "HotKeyNotRegisteredInSubNet"),
        (
            "b-hot",
            "set_weights",
            {"netuid": NETUID, "dests": [0], "weights": [1], "version_key": 0},
            "CommitRevealEnabled",
        ),
        ("b-cold", "burned_register", about_a(hotkey="5thief"), "InvalidCall"),
        ("b-cold", "burned_register", about_a(hotkey={"a": 1}), "InvalidCall"),
        (
            "b-cold",
            "burned_register",
            about_a(hotkey=bt.sp_core.encode_ss58(bt.sp_core.decode_ss58(hotkey("b").address), 0)),
            "InvalidCall",
        ),
        ("a-hot", "commit_timelocked_weights", commit(commit="no hex"), "InvalidCall"),
        ("a-hot", "commit_timelocked_weights", commit(commit="0x" + "00" * 70_000), "CommitPayloadTooLarge"),
        ("a-hot", "dissolve_network", {"netuid": NETUID}, "CallFiltered"),
    ],
)
def test_the_chain_s_rules(chain: LocalChain, who: str, function: str, params: dict[str, Any], error: str) -> None:
    put(chain, registration(chain, "a"))
    assert put(chain, signed(chain, who, function, params))["error"]["name"] == error


def test_a_call_that_fails_in_an_unforeseen_way_is_refused_and_its_block_is_made(
    chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise OverflowError("unforeseen")

    monkeypatch.setitem(calls.CALLS, ("SubtensorModule", "serve_axon"), fails)
    assert put(chain, signed(chain, "a-hot", "serve_axon", axon()))["error"]["name"] == "InvalidCall"
    assert chain.make_block().number == 2


@pytest.mark.parametrize(
    "hidden",
    [
        {"version_key": "0"}, {"uids": [[0]]}, {"uids": [0.5]}, {"values": ["1"]}, {"values": None}, {"hotkey": None},
        {"more": 1}, b"[" * 4_000, b"[]", b"5", b"\xff",
    ],
)  # fmt: skip
def test_weights_that_were_sealed_badly_are_dropped_and_blocks_go_on(tmp_path: Path, hidden: Any) -> None:
    chain = LocalChain.open(tmp_path / "chain.db", genesis(hyperparameters={"tempo": 3}))
    put(chain, registration(chain, "a"))
    whole = {"hotkey": hotkey("a").address, "uids": [0], "values": [1], "version_key": 0}
    data = hidden if isinstance(hidden, bytes) else json.dumps(whole | hidden).encode()
    box = bt.sp_core.Keypair.encrypt_for(sealing.address_of(b"s" * 32), data, bt.CRYPTO_ED25519)
    assert put(chain, signed(chain, "a-hot", "commit_timelocked_weights", commit(commit=box.hex())))["error"] is None
    for _ in range(8):
        chain.make_block()
    state = chain.state()
    assert state.scan("SubtensorModule.TimelockedWeightCommits", NETUID) == []
    assert state.get("SubtensorModule.Weights", NETUID, 0) is None


def test_staking_and_unstaking_moves_rao(chain: LocalChain) -> None:
    put(chain, registration(chain, "a"))
    before = balance(chain.state(), coldkey_of("a"))
    where = {"netuid": NETUID, "hotkey": hotkey("a").address}
    assert put(chain, signed(chain, "a-cold", "add_stake", where | {"amount_staked": 5 * RAO}))["error"] is None
    assert put(chain, signed(chain, "a-cold", "remove_stake", where | {"amount_unstaked": 2 * RAO}))["error"] is None
    assert balance(chain.state(), coldkey_of("a")) == before - 3 * RAO
    assert State1(chain.state(), NETUID).stake(hotkey("a").address) == 3 * RAO


def test_who_earned_least_outside_immunity_gives_way(tmp_path: Path) -> None:
    chain = LocalChain.open(tmp_path / "chain.db", genesis(max_uids=4, hyperparameters={"immunity_period": 5}))
    for name in ("owner", "a", "b", "c"):
        put(chain, registration(chain, name))
    for _ in range(5):
        chain.make_block()
    chain.make_block({f"SubtensorModule.Emission/{NETUID}": [0, 30, 20, 20]})
    assert put(chain, registration(chain, "d"))["error"] is None
    # The owner has least and stays; b and c have as much, and b was there before.
    assert State1(chain.state(), NETUID).hotkeys == [hotkey(name).address for name in ("owner", "a", "d", "c")]
    assert State1(chain.state(), NETUID).vector("Emission") == [0, 30, 0, 20]
    assert chain.state().get("SubtensorModule.Uids", NETUID, hotkey("b").address) is None


def full(tmp_path: Path, *, least_mortal: int, immunity: int) -> LocalChain:
    """A full subnet of the owner (UID 0), a and b, that were registered in this order, a block each."""
    given = genesis(max_uids=3, least_mortal_uids=least_mortal, hyperparameters={"immunity_period": immunity})
    chain = LocalChain.open(tmp_path / "chain.db", given)
    for name in ("owner", "a", "b"):
        put(chain, registration(chain, name))
    return chain


def test_where_all_are_immune_the_one_with_least_emission_gives_way_all_the_same(tmp_path: Path) -> None:
    chain = full(tmp_path, least_mortal=0, immunity=1000)
    chain.make_block({f"SubtensorModule.Emission/{NETUID}": [0, 9, 8]})
    assert put(chain, registration(chain, "c"))["error"] is None
    assert State1(chain.state(), NETUID).hotkeys[2] == hotkey("c").address


def test_of_few_outside_immunity_none_gives_way_before_an_immune_one(tmp_path: Path) -> None:
    chain = full(tmp_path, least_mortal=1, immunity=3)
    for _ in range(3):
        chain.make_block()
    put(chain, registration(chain, "c"))  # a and b are out of immunity: one more than have to stay
    assert State1(chain.state(), NETUID).hotkeys[1] == hotkey("c").address
    put(chain, registration(chain, "d"))  # b alone is, and stays, though c has been there for a block only
    assert State1(chain.state(), NETUID).hotkeys[1:] == [hotkey("d").address, hotkey("b").address]
    for _ in range(3):
        chain.make_block()
    put(chain, registration(chain, "e"))
    put(chain, registration(chain, "f"))
    assert State1(chain.state(), NETUID).n == 3


def test_where_none_is_immune_and_all_have_to_stay_nobody_gives_way(tmp_path: Path) -> None:
    chain = full(tmp_path, least_mortal=2, immunity=0)
    assert put(chain, registration(chain, "c"))["error"]["name"] == "NoNeuronIdAvailable"


def test_two_with_the_same_score_are_told_apart_by_what_they_earned(tmp_path: Path) -> None:
    """Scores are rounded to 1/65535 of the largest; who gives way is decided by rao."""
    chain = full(tmp_path, least_mortal=0, immunity=0)
    scores = {f"SubtensorModule.PruningScores/{NETUID}": [65535, 0, 0]}
    chain.make_block(scores | {f"SubtensorModule.Emission/{NETUID}": [10**15, 7, 5]})
    put(chain, registration(chain, "c"))
    assert State1(chain.state(), NETUID).hotkeys[2] == hotkey("c").address


async def test_what_is_emitted_goes_18_41_41(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_weights_enabled": False})
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("miner", "owner")
    await subnet.run_epoch()
    client = await subnet.client()
    await client.execute(bt.SetWeights(netuid=NETUID, weights={1: 1.0}), keypair("validator-hot"))
    before = {name: stake(subnet, name) for name in ("owner", "miner", "validator")}
    await subnet.run_epoch()
    gained = {name: stake(subnet, name) - amount for name, amount in before.items()}
    assert gained == {"owner": 3_600_000_000, "miner": 8_200_000_000, "validator": 8_200_000_000}
    await client.execute(bt.SetWeights(netuid=NETUID, weights={2: 1.0}), keypair("validator-hot"))
    before = {name: stake(subnet, name) for name in ("owner", "miner", "validator")}
    await subnet.run_epoch()
    # Weight on the owner's hotkey is withheld: that share is burned.
    assert {name: stake(subnet, name) - amount for name, amount in before.items()} == {
        "owner": 3_600_000_000, "miner": 0, "validator": 8_200_000_000,
    }  # fmt: skip


def stake(subnet: Subnet, name: str) -> int:
    return State1(subnet.service.chain.state(), NETUID).stake(hotkey(name).address)


async def test_bonds_follow_the_weights(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_weights_enabled": False, "bonds_moving_avg": 500_000})
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("miner")
    await subnet.run_epoch()
    client = await subnet.client()
    await client.execute(bt.SetWeights(netuid=NETUID, weights={1: 1.0}), keypair("validator-hot"))
    await subnet.run_epoch()
    assert (await client.read("bonds", netuid=NETUID))[0] == {1: pytest.approx(0.5, abs=1e-4)}
    await subnet.run_epoch()
    assert (await client.read("bonds", netuid=NETUID))[0] == {1: pytest.approx(0.75, abs=1e-4)}


def test_a_block_with_the_epoch_of_256_miners_and_64_validators_takes_less_than_a_second(tmp_path: Path) -> None:
    n, validators = 320, 64
    chain = LocalChain.open(tmp_path / "chain.db", genesis(max_uids=n, hyperparameters={"tempo": 3}))
    filled: dict[str, Any] = {f"SubtensorModule.SubnetworkN/{NETUID}": n}
    for name in VECTORS:
        filled[f"SubtensorModule.{name}/{NETUID}"] = [VECTORS[name]] * n
    filled[f"SubtensorModule.ValidatorPermit/{NETUID}"] = [uid < validators for uid in range(n)]
    filled[f"SubtensorModule.LastUpdate/{NETUID}"] = [1] * n
    for uid in range(n):
        filled[f"SubtensorModule.Keys/{NETUID}/{uid}"] = f"hotkey-{uid}"
        filled[f"SubtensorModule.Uids/{NETUID}/hotkey-{uid}"] = uid
        filled[f"SubtensorModule.BlockAtRegistration/{NETUID}/{uid}"] = 0
        if uid < validators:
            filled[f"SubtensorModule.TotalHotkeyAlpha/hotkey-{uid}/{NETUID}"] = (uid + 1) * RAO
            weights = [[miner, (miner * 37 + uid * 11) % 65535 + 1] for miner in range(validators, n)]
            filled[f"SubtensorModule.Weights/{NETUID}/{uid}"] = weights
    chain.make_block(filled)
    chain.make_block()
    began = time.process_time()
    chain.make_block()
    took = time.process_time() - began
    incentives = State1(chain.state(), NETUID).vector("Incentive")
    assert chain.state().get("SubtensorModule.SubnetEpochIndex", NETUID) == 1
    assert sum(incentive > 0 for incentive in incentives) == n - validators
    assert took < 1.0


def test_storage_can_be_read_as_it_was(tmp_path: Path) -> None:
    database = Database(tmp_path / "storage.db")
    state = State(database, 1)
    state.put("A.B", 1, "x", value=1)
    state.put("A.B", 10, "x", value=2)
    state.put("A.B", 1, "y", value=3)
    with database.transaction():
        state.flush(1)
    state = State(database, 2)
    state.put("A.B", 1, "x", value=4)
    state.delete("A.B", 1, "y")
    assert state.scan("A.B", 1) == [(("x",), 4)]
    with database.transaction():
        state.flush(2)
    assert State(database, 1).scan("A.B", 1) == [(("x",), 1), (("y",), 3)]
    assert State(database, 2).scan("A.B", 1) == [(("x",), 4)]
    assert State(database, 2).scan("A.B") == [((1, "x"), 4), ((10, "x"), 2)]
    with database.transaction():
        database.forget(2)
    assert State(database, 2).scan("A.B") == [((1, "x"), 4), ((10, "x"), 2)]
    assert State(database, 1).scan("A.B", 1) == []


def test_what_ends_within_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "storage.db")

    def interrupted() -> None:
        with database.transaction():
            database.write(("A.B", "[]"), 1, "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert database.read(("A.B", "[]"), 1) is None


def test_uids_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    database = Database(tmp_path / "storage.db")
    state = State(database, 1)
    for uid in range(12):
        state.put("A.Keys", 1, uid, value=uid)
    assert [value for _params, value in state.scan("A.Keys", 1)] == list(range(12))


def test_blocks_that_are_not_kept_are_told(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    from neurons.chain.local import node

    monkeypatch.setattr(node, "KEPT_BLOCKS", 3)
    first = chain.header(0).hash
    for _ in range(5):
        chain.make_block()
    with pytest.raises(UnknownBlock, match="already discarded"):
        chain.state(first)
    with pytest.raises(UnknownBlock, match="no block"):
        chain.state("0x00")


def test_a_file_without_a_chain_needs_a_genesis(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say with which genesis"):
        LocalChain.open(tmp_path / "chain.db")
    with pytest.raises(ValueError, match="no hyperparameter tempos"):
        LocalChain.open(tmp_path / "other.db", genesis(hyperparameters={"tempos": 1}))


def test_another_genesis_does_not_change_a_chain_that_is_there(tmp_path: Path) -> None:
    first = LocalChain.open(tmp_path / "chain.db", genesis())
    first.make_block()
    first.close()
    again = LocalChain.open(tmp_path / "chain.db", genesis(hyperparameters={"tempo": 99}))
    assert again.head == 1
    assert State1(again.state(), NETUID).hyperparameter("tempo") == 20
