"""Who is let in by the signed door: forged, stale, replayed, misdirected and uninvited requests are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bittensor import http_auth
from yarl import URL

from neurons.chain.errors import Unreachable
from neurons.wire.admission import Policy
from neurons.wire.nonces import StoreDown
from neurons.wire.refusals import WireRefusal
from neurons.wire.signer import target_of
from tests.unit.receipts.keyring import MINER, OTHER_MINER, STRANGER, VALIDATOR, key
from tests.unit.wire.doors import BODY, URL_ASKED, Door, Written, metagraph, neuron


async def refused(door: Door, headers: dict[str, str], **request: Any) -> WireRefusal:
    with pytest.raises(WireRefusal) as caught:
        await door.admit(headers, **request)
    return caught.value


async def test_a_validator_is_let_in_and_known_by_its_uid() -> None:
    door = Door()
    caller = await door.admit(door.sign())
    assert (caller.hotkey, caller.uid) == (VALIDATOR.ss58_address, 0)


async def test_ed25519_hotkeys_sign_too() -> None:
    validator = key("Bob", ed25519=True)
    door = Door(source=Written(metagraph(neuron(3, validator, permit=True))))
    assert (await door.admit(door.sign(validator))).uid == 3


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"{}"}, {"method": "PUT"}, {"url": URL("http://miner.example/v1/completions")},
        {"url": URL_ASKED.with_query({"a": "1"})},
    ],
    ids=["body", "method", "path", "query"],
)  # fmt: skip
async def test_what_was_changed_on_the_way_is_refused(change: dict[str, Any]) -> None:
    door = Door()
    refusal = await refused(door, door.sign(), **change)
    assert (refusal.status, refusal.code) == (401, "bad_signature")
    assert "exactly as they are sent" in refusal.message


async def test_a_forged_signature_is_refused() -> None:
    door = Door()
    headers = door.sign(STRANGER) | {"X-Bittensor-Hotkey": VALIDATOR.ss58_address}
    assert (await refused(door, headers)).code == "bad_signature"


async def test_a_header_given_twice_is_refused() -> None:
    """Else a stranger could be one caller for the metagraph, and another for the signature."""
    from multidict import CIMultiDict, CIMultiDictProxy

    door = Door(source=Written(metagraph(neuron(0, VALIDATOR, permit=True))))
    headers = CIMultiDict(door.sign(STRANGER))
    headers.add("x-bittensor-hotkey", VALIDATOR.ss58_address)
    with pytest.raises(WireRefusal, match="twice"):
        door.admission.present(CIMultiDictProxy(headers))


async def test_a_request_for_another_miner_is_refused() -> None:
    door = Door()
    refusal = await refused(door, door.sign(receiver=OTHER_MINER.ss58_address))
    assert (refusal.status, refusal.code) == (401, "wrong_receiver")
    assert MINER.ss58_address in refusal.message
    unbound = {name: value for name, value in door.sign().items() if name != "X-Bittensor-Receiver"}
    assert (await refused(door, unbound)).code == "wrong_receiver"


@pytest.mark.parametrize("seconds", [10.5, -2.5])
async def test_an_old_request_and_one_from_the_future_are_refused(seconds: float) -> None:
    door = Door()
    headers = door.sign()
    door.clock.forward(seconds)
    refusal = await refused(door, headers)
    assert (refusal.status, refusal.code) == (401, "stale")
    assert "set the clock right" in refusal.message


async def test_a_replay_is_refused_as_long_as_it_is_fresh() -> None:
    door = Door()
    headers = door.sign()
    await door.admit(headers)
    for _ in range(3):
        door.clock.forward(3)
        assert (await refused(door, headers)).code == "replayed"
    door.clock.forward(3)
    assert (await refused(door, headers)).code == "stale"


async def test_a_replay_at_the_same_moment_is_let_in_once() -> None:
    door = Door()
    headers = door.sign()
    said = await asyncio.gather(*(door.admit(headers) for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(each, WireRefusal) for each in said) == 1


async def test_a_body_that_takes_too_long_is_one_that_is_too_old() -> None:
    door = Door()
    presented = door.admission.present(door.sign())
    door.clock.forward(door.policy.max_age + 1)
    with pytest.raises(WireRefusal) as caught:
        await door.admission.admit(presented, BODY, method="POST", target=target_of(URL_ASKED))
    assert caught.value.code == "stale"


async def test_a_path_that_is_no_text_is_refused_in_words() -> None:
    """As aiohttp gives bytes of a query that are no UTF-8."""
    door = Door()
    presented = door.admission.present(door.sign())
    with pytest.raises(WireRefusal) as caught:
        await door.admission.admit(presented, BODY, method="POST", target="/v1/chat/completions?\udcff")
    assert (caught.value.status, caught.value.code) == (401, "malformed")


@pytest.mark.parametrize("ed25519", [False, True])
async def test_what_the_sdk_signs_is_let_in(ed25519: bool) -> None:
    validator = key("Bob", ed25519=ed25519)
    door = Door(source=Written(metagraph(neuron(3, validator, permit=True))))
    headers = http_auth.sign(
        validator, method="post", path="/v1/chat/completions?a=%20b", body=BODY, nonce_ns=door.clock(),
        receiver_ss58=MINER.ss58_address,
    )  # fmt: skip
    url = URL("http://miner.example/v1/chat/completions?a=%20b", encoded=True)
    assert (await door.admit({name.lower(): value for name, value in headers.items()}, url=url)).uid == 3


async def test_an_unverified_caller_puts_nothing_into_the_store() -> None:
    class Counting:
        asked = 0

        async def remember(self, hotkey: str, nonce_ns: int) -> bool:
            self.asked += 1
            return True

        async def close(self) -> None: ...

    store = Counting()
    door = Door(nonces=store, policy=Policy(burst=2, per_second=0.001))
    await refused(door, door.sign() | {"X-Bittensor-Signature": "0x" + "00" * 64})
    await refused(door, door.sign(STRANGER))
    await refused(door, door.sign(receiver=OTHER_MINER.ss58_address))
    assert store.asked == 0
    for _ in range(2):
        await door.admit(door.sign())
    assert (await refused(door, door.sign())).code == "caller_rate"
    assert store.asked == 2, "who asks too often fills no store either"


async def test_a_replay_costs_its_victim_no_share_of_its_rate() -> None:
    door = Door(policy=Policy(burst=2, per_second=0.001))
    headers = door.sign()
    await door.admit(headers)
    for _ in range(10):
        assert (await refused(door, headers)).code == "replayed"
    door.clock.forward(0.001)
    await door.admit(door.sign())


async def test_callers_have_rates_of_their_own() -> None:
    both = metagraph(neuron(0, VALIDATOR, permit=True), neuron(1, OTHER_MINER, permit=True))
    door = Door(policy=Policy(burst=1, per_second=0.1), source=Written(both))
    await door.admit(door.sign())
    door.clock.forward(0.001)
    refusal = await refused(door, door.sign())
    assert (refusal.status, refusal.retry_after) == (429, 10)
    await door.admit(door.sign(OTHER_MINER))


@pytest.mark.parametrize(
    ("row", "policy", "code", "says"),
    [
        (neuron(0, OTHER_MINER), Policy(), "not_registered", "is not registered on subnet 42 as of block 1000"),
        (neuron(5, VALIDATOR), Policy(), "no_permit", "UID 5 has no validator permit on subnet 42"),
        (
            neuron(5, VALIDATOR, permit=True, stake=99.5), Policy(min_stake=100), "little_stake",
            "UID 5 has 99.5 alpha at stake",
        ),
    ],
)  # fmt: skip
async def test_the_metagraph_says_who_may_call(row: Any, policy: Policy, code: str, says: str) -> None:
    door = Door(policy=policy, source=Written(metagraph(row)))
    refusal = await refused(door, door.sign())
    assert (refusal.status, refusal.code) == (403, code)
    assert says in refusal.message


async def test_who_may_not_call_is_refused_before_its_body_is_read() -> None:
    door = Door()
    with pytest.raises(WireRefusal, match="is not registered"):
        door.admission.present(door.sign(STRANGER))


async def test_who_asks_all_at_once_while_the_store_is_slow_gets_no_more_than_its_rate() -> None:
    class Slow:
        def __init__(self) -> None:
            self.asked, self.go_on = 0, asyncio.Event()

        async def remember(self, hotkey: str, nonce_ns: int) -> bool:
            self.asked += 1
            await self.go_on.wait()
            return True

        async def close(self) -> None: ...

    store = Slow()
    door = Door(policy=Policy(per_second=0.001, burst=5), nonces=store)
    tries = []
    for _ in range(20):
        door.clock.forward(0.000_001)
        tries.append(asyncio.create_task(door.admit(door.sign())))
    while store.asked < 5:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.go_on.set()
    ends = await asyncio.gather(*tries, return_exceptions=True)
    refusals = [end for end in ends if isinstance(end, WireRefusal)]
    assert len(ends) - len(refusals) == 5
    assert {(refusal.status, refusal.code) for refusal in refusals} == {(429, "caller_rate")}
    # And nobody owes for later what was refused: the next token comes as if five had asked.
    assert max(refusal.retry_after or 0 for refusal in refusals) <= 1000


async def test_the_last_metagraph_serves_while_the_chain_is_away_and_says_its_age() -> None:
    door = Door(source=Written(age_seconds=3 * 3600, problem=OSError("no chain")))
    await door.admit(door.sign())
    door.clock.forward(0.001)
    assert "as of block 1000, read 180 min ago" in (await refused(door, door.sign(STRANGER))).message


async def test_without_any_metagraph_the_door_stays_shut_and_says_why() -> None:
    endpoint = "wss://clinic:password@node.example/ws?apikey=4711"
    door = Door(source=Written(None, problem=Unreachable(f"{endpoint} can't be reached")))
    refusal = await refused(door, door.sign(STRANGER))
    assert (refusal.status, refusal.code, refusal.retry_after) == (503, "no_metagraph", 5)
    assert "no metagraph yet (Unreachable)" in refusal.message
    assert "node.example" not in refusal.message, "nobody has proven who they are"
    door.source.metagraph = metagraph()
    await door.admit(door.sign())


async def test_a_newer_metagraph_counts_at_once() -> None:
    door = Door()
    await door.admit(door.sign())
    door.source.metagraph = metagraph(neuron(0, OTHER_MINER))
    door.clock.forward(0.001)
    assert (await refused(door, door.sign())).code == "not_registered"


async def test_while_the_store_is_away_nobody_is_let_in() -> None:
    class Away:
        async def remember(self, hotkey: str, nonce_ns: int) -> bool:
            raise StoreDown("ConnectionError")

        async def close(self) -> None: ...

    door = Door(nonces=Away())
    refusal = await refused(door, door.sign())
    assert (refusal.status, refusal.code, refusal.retry_after) == (503, "nonce_store_down", 5)
    assert "nobody can tell a replay" in refusal.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X-Bittensor-Version": "2"}, "speaks btauth/1"), ({"X-Bittensor-Nonce": "soon"}, "no time in nanoseconds"),
        ({"X-Bittensor-Nonce": "1" * 40}, "no time in nanoseconds"),
        ({"X-Bittensor-Signature": "0xzz"}, "is no signature"), ({"X-Bittensor-Signature": "0x00"}, "is no signature"),
        ({"X-Bittensor-Crypto": "ecdsa"}, "neither sr25519 nor"),
        ({"X-Bittensor-Hotkey": ""}, "X-Bittensor-Hotkey is missing"),
    ],
)  # fmt: skip
async def test_a_malformed_request_is_told_what_is_wrong(change: dict[str, str], says: str) -> None:
    door = Door()
    refusal = await refused(door, door.sign() | change)
    assert (refusal.status, refusal.code) == (401, "malformed")
    assert says in refusal.message


async def test_a_hotkey_that_is_none_is_not_echoed() -> None:
    door = Door()
    refusal = await refused(door, door.sign() | {"X-Bittensor-Hotkey": "<script>alert(1)</script>"})
    assert refusal.code == "not_registered"
    assert "script" not in refusal.message
