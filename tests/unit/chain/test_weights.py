"""Weights from validator to incentive: sealed, committed, revealed at the epoch that is due, or missed and told."""

from __future__ import annotations

from typing import Any

import bittensor as bt
import pytest
from aiohttp import web

from neurons.chain import errors
from neurons.chain.hyperparameters import EpochConsensus, read_hyperparameters
from neurons.chain.local import calls
from neurons.chain.local.storage import State
from neurons.chain.local.subnet import DispatchError
from neurons.chain.local.subnet import Subnet as State1
from neurons.chain.metagraph import Identity, MetagraphReader
from neurons.chain.wallet import Hotkey
from neurons.chain.weights import Outcome, by_uid, read_outcome, set_weights
from tests.unit.chain.conftest import OpenSubnet
from tests.unit.chain.played import NETUID, Subnet, coldkey_of, hotkey, keypair

IN_THE_OPEN: dict[str, object] = {"commit_reveal_weights_enabled": False}


async def ready(subnet: Subnet) -> None:
    """Two miners (UIDs 1, 2), and a validator (0) that has its permit."""
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("a", "b")
    await subnet.run_epoch()


async def row(subnet: Subnet, uid: int = 0) -> list[list[int]] | None:
    found: list[list[int]] | None = subnet.service.chain.state().get("SubtensorModule.Weights", NETUID, uid)
    return found


async def test_a_commit_is_not_yet_a_weight_and_both_are_told(subnet: Subnet) -> None:
    await ready(subnet)
    chain = subnet.chain()
    began = subnet.service.chain.head
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 3.0, 2: 1.0}, since=began)
    assert submission.block == began + 1
    assert submission.reveal_round is not None
    assert submission.row == ((1, 65535), (2, 21845))
    assert await row(subnet) is None
    assert await read_outcome(chain, submission) is Outcome.PENDING
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.REVEALED
    assert await row(subnet) == [[1, 65535], [2, 21845]]
    metagraph = await MetagraphReader(chain, NETUID).read()
    assert [neuron.incentive for neuron in metagraph.neurons] == pytest.approx([0, 0.75, 0.25], abs=1e-4)
    assert metagraph.neurons[0].last_update == submission.block


async def test_nobody_can_read_a_commit_before_its_epoch(subnet: Subnet) -> None:
    await ready(subnet)
    await set_weights(subnet.chain(), hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    client = await subnet.client()
    commits = await client.read("timelocked_weight_commits", netuid=NETUID)
    ((commit,),) = commits.values()
    assert commit["hotkey"] == hotkey("validator").address
    assert b"uids" not in bytes.fromhex(commit["ciphertext"].removeprefix("0x"))
    stamp = await client.timestamp()
    epoch = await client.read("epoch_status", netuid=NETUID)
    revealed_at = stamp.timestamp() + epoch["seconds_remaining"]
    assert 0 <= revealed_at - commit["reveals_at"].timestamp() < 3


async def test_the_same_round_sets_them_once(subnet: Subnet) -> None:
    await ready(subnet)
    began = subnet.service.chain.head
    first = await set_weights(subnet.chain(), hotkey("validator"), NETUID, {1: 1.0}, since=began)
    again = await set_weights(subnet.chain(), hotkey("validator"), NETUID, {1: 1.0}, since=began)
    assert again.repeated
    assert (again.block, again.row) == (first.block, first.row)
    assert subnet.service.chain.head == first.block


async def test_registration_is_no_setting_of_weights(subnet: Subnet) -> None:
    began = subnet.service.chain.head
    await subnet.enrol("validator", stake_tao=10)
    submission = await set_weights(subnet.chain(), hotkey("validator"), NETUID, {0: 1.0}, since=began)
    assert not submission.repeated


async def test_a_lost_answer_sets_them_once(subnet: Subnet) -> None:
    await ready(subnet)
    lost: list[str] = []

    async def lose_receipts(request: web.Request) -> web.Response | None:
        if (await request.json())["method"] == "receipt" and not lost:
            lost.append("receipt")
            return web.Response(status=503)
        return None

    subnet.intercept = lose_receipts
    began = subnet.service.chain.head
    submission = await set_weights(subnet.chain(), hotkey("validator"), NETUID, {1: 1.0}, since=began)
    assert lost
    assert submission.repeated
    assert submission.block == began + 1 == subnet.service.chain.head


async def test_one_that_waits_in_the_pool_is_not_sent_a_second_time(open_local: OpenSubnet) -> None:
    subnet = await open_local(instant=False)
    node = subnet.service.chain

    async def blocks_follow(request: web.Request) -> web.Response | None:
        if (await request.json())["method"] == "receipt":
            await subnet.advance()
        return None

    subnet.intercept = blocks_follow
    await ready(subnet)
    tries: list[str] = []

    async def lose_receipts(request: web.Request) -> web.Response | None:
        body = await request.json()
        if body["method"] == "submit":
            tries.append("submit")
        return web.Response(status=503) if body["method"] == "receipt" else None

    subnet.intercept = lose_receipts
    began = node.head

    async def next_block(_seconds: float) -> None:
        if len(tries) >= 2:
            await subnet.advance()

    chain = subnet.chain(sleep=next_block, retries=4)
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=began)
    # The second try had the first one's nonce: the chain refused it while the first waited.
    assert len(tries) == 2
    assert submission.block == began + 1
    events = [record["event"]["event_id"] for record in node.body()["events"]]
    assert events.count("TimelockedWeightsCommitted") == 1
    await subnet.run_epoch()
    assert await row(subnet) == [[1, 65535]]


async def test_a_reveal_that_cannot_be_opened_in_time_is_missed_and_told(subnet: Subnet) -> None:
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    epoch = subnet.service.chain.state().get("SubtensorModule.SubnetEpochIndex", NETUID)
    # As if drand had published nothing until well after the epoch in which it is due.
    item = f"SubtensorModule.TimelockedWeightCommits/{NETUID}/{epoch}"
    waiting = subnet.service.chain.state().get("SubtensorModule.TimelockedWeightCommits", NETUID, epoch)
    waiting[0][3] += 10_000
    await subnet.service.make_blocks(1, {item: waiting})
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.PENDING
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.MISSED
    assert await row(subnet) is None


async def test_weights_sealed_for_drand_cannot_be_opened_here(subnet: Subnet) -> None:
    await ready(subnet)
    chain, client = subnet.chain(), await subnet.client()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    await subnet.run_epoch()
    # The SDK's own sealing, as against the real chain.
    result = await client.execute(bt.CommitWeights(netuid=NETUID, weights={2: 1.0}), keypair("validator-hot"))
    assert result.success
    assert result.data["reveal_round"] > 0
    await subnet.run_epoch()
    await subnet.run_epoch()
    assert await row(subnet) == [[1, 65535]]
    assert await read_outcome(chain, submission) is Outcome.REVEALED


async def test_later_weights_supersede(subnet: Subnet) -> None:
    await ready(subnet)
    chain = subnet.chain()
    first = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    second = await set_weights(chain, hotkey("validator"), NETUID, {2: 1.0}, since=subnet.service.chain.head + 1)
    await subnet.run_epoch()
    assert await read_outcome(chain, first) is Outcome.SUPERSEDED
    assert await read_outcome(chain, second) is Outcome.REVEALED


async def test_in_the_open_they_count_at_once(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_weights_enabled": False})
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    assert submission.reveal_round is None
    assert await read_outcome(chain, submission) is Outcome.REVEALED


async def test_a_longer_reveal_period_waits_longer(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_period": 3})
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    for _ in range(2):
        await subnet.run_epoch()
        assert await read_outcome(chain, submission) is Outcome.PENDING
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.REVEALED


@pytest.mark.parametrize(
    ("hyperparameters", "weights", "version_key", "kind", "name"),
    [
        ({"weights_version": 7}, {1: 1.0}, 3, Outcome.MISSED, None),
        (IN_THE_OPEN | {"weights_version": 7}, {1: 1.0}, 3, errors.Refused, "IncorrectWeightVersionKey"),
        ({"min_allowed_weights": 2}, {1: 1.0}, 0, errors.Refused, None),
        ({"weights_rate_limit": 100}, {1: 1.0}, 0, errors.TooEarly, None),
        ({}, {99: 1.0}, 0, Outcome.MISSED, None),
        ({}, {1: 0.0}, 0, errors.Refused, None),
        ({}, {1: -1.0}, 0, errors.Refused, None),
        ({}, {1: float("nan")}, 0, errors.Refused, None),
        ({}, {}, 0, errors.Refused, None),
    ],
)  # fmt: skip
async def test_weights_that_are_not_allowed(
    open_local: OpenSubnet,
    hyperparameters: dict[str, object],
    weights: dict[int, float],
    version_key: int,
    kind: type[errors.ChainError] | Outcome,
    name: str | None,
) -> None:
    subnet = await open_local(hyperparameters=hyperparameters)
    await ready(subnet)
    chain = subnet.chain()

    async def submit() -> Outcome:
        began = subnet.service.chain.head
        submission = await set_weights(
            chain, hotkey("validator"), NETUID, weights, since=began, version_key=version_key
        )
        await subnet.run_epoch()
        return await read_outcome(chain, submission)

    if isinstance(kind, Outcome):
        assert await submit() is kind  # the chain can't see it in the commit, and refuses it at the reveal
        return
    with pytest.raises(kind) as refused:
        await submit()
    assert refused.value.name == name  # type: ignore[attr-defined]


async def test_without_a_permit_the_chain_refuses(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_weights_enabled": False, "max_validators": 1})
    await ready(subnet)
    with pytest.raises(errors.Refused, match="no validator permit") as refused:
        await set_weights(subnet.chain(), hotkey("a"), NETUID, {2: 1.0}, since=subnet.service.chain.head)
    assert refused.value.name == "NeuronNoValidatorPermit"


async def test_with_too_little_stake_the_chain_refuses(open_local: OpenSubnet) -> None:
    subnet = await open_local(stake_threshold=10**13)
    await ready(subnet)
    with pytest.raises(errors.Refused, match="needs a stake of") as refused:
        await set_weights(subnet.chain(), hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    assert refused.value.name == "NotEnoughStakeToSetWeights"


async def test_under_null_consensus_one_validator_decides(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"epoch_consensus": "Null"})
    await subnet.enrol("small", stake_tao=10)
    await ready(subnet)
    chain = subnet.chain()
    assert (await read_hyperparameters(chain, NETUID)).epoch_consensus is EpochConsensus.NULL
    with pytest.raises(errors.Refused, match="sole Null validator"):
        await set_weights(chain, hotkey("small"), NETUID, {2: 1.0}, since=subnet.service.chain.head)
    await set_weights(chain, hotkey("validator"), NETUID, {2: 3.0, 3: 1.0}, since=subnet.service.chain.head)
    await subnet.run_epoch()
    metagraph = await MetagraphReader(chain, NETUID).read()
    assert [neuron.incentive for neuron in metagraph.neurons] == pytest.approx([0, 0, 0.75, 0.25], abs=1e-4)


def commit_of(subnet: Subnet, who: str, ciphertext: str = "00") -> list[dict[str, Any]]:
    """Commit on what the chain is now, past the SDK, which looks first; returns the events. Nothing of it is kept."""
    return commit_on(subnet.service.chain.state(), who, ciphertext)


def commit_on(state: State, who: str, ciphertext: str = "00") -> list[dict[str, Any]]:
    params = {"netuid": NETUID, "commit": f"0x{ciphertext}", "reveal_round": 1, "commit_reveal_version": 4}
    return calls.dispatch(
        state, signer=hotkey(who).address, module="SubtensorModule", function="commit_timelocked_weights", params=params
    )


async def test_under_null_consensus_nobody_else_may_commit(open_local: OpenSubnet) -> None:
    """Also who signs without the SDK: a commit that could never be revealed takes no room."""
    subnet = await open_local(hyperparameters={"epoch_consensus": "Null"})
    await subnet.enrol("small", stake_tao=10)
    await ready(subnet)
    assert commit_of(subnet, "validator")
    for who in ("small", "a"):
        with pytest.raises(DispatchError, match="one alone has") as refused:
            commit_of(subnet, who)
        assert refused.value.name == "NeuronNoValidatorPermit"


async def test_under_null_consensus_a_commit_is_revealed_and_pays(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"epoch_consensus": "Null"})
    await ready(subnet)
    chain = subnet.chain()
    began = subnet.service.chain.head
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 3.0, 2: 1.0}, since=began)
    assert await read_outcome(chain, submission) is Outcome.PENDING
    assert (await set_weights(chain, hotkey("validator"), NETUID, {1: 3.0, 2: 1.0}, since=began)).repeated
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.REVEALED
    metagraph = await MetagraphReader(chain, NETUID).read()
    assert [neuron.incentive for neuron in metagraph.neurons] == pytest.approx([0, 0.75, 0.25], abs=1e-4)


async def test_under_null_consensus_who_lost_the_permit_before_the_reveal_has_missed_it(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"epoch_consensus": "Null", "commit_reveal_period": 2})
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    await subnet.enrol("larger", stake_tao=5000)
    await subnet.run_epoch()  # the larger stake has the permit from now on
    assert await read_outcome(chain, submission) is Outcome.PENDING
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.MISSED
    assert await row(subnet) is None


@pytest.mark.parametrize(("consensus", "most"), [("Yuma", 5000), ("Null", 32 * 1024)])
async def test_a_commit_has_as_many_bytes_as_the_consensus_allows(
    open_local: OpenSubnet, consensus: str, most: int
) -> None:
    subnet = await open_local(hyperparameters={"epoch_consensus": consensus})
    await ready(subnet)
    assert commit_of(subnet, "validator", "00" * most)
    with pytest.raises(DispatchError) as refused:
        commit_of(subnet, "validator", "00" * (most + 1))
    assert refused.value.name == "CommitPayloadTooLarge"


async def test_under_null_consensus_an_epochs_commits_share_their_room_by_stake(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"epoch_consensus": "Null"})
    await ready(subnet)
    state = subnet.service.chain.state()
    half = "00" * (32 * 1024)
    commit_on(state, "validator", half)
    commit_on(state, "validator", half)
    with pytest.raises(DispatchError, match="wait for the next epoch") as refused:
        commit_on(state, "validator")
    assert refused.value.name == "CommitQueueFull"
    # Who has the permit by now, with more stake, takes the room of who had it before.
    await subnet.enrol("larger", stake_tao=5000)
    await subnet.run_epoch()
    state = subnet.service.chain.state()
    local = State1(state, NETUID)
    epoch = int(local.get("SubnetEpochIndex"))
    former = [[hotkey("validator").address, state.block, f"0x{half}", 1]] * 2
    local.put("TimelockedWeightCommits", epoch, value=former)
    commit_on(state, "larger")
    waiting = [who for who, *_rest in local.get("TimelockedWeightCommits", epoch)]
    assert waiting == [hotkey("validator").address, hotkey("larger").address]


async def test_a_deregistered_hotkey_is_told(open_local: OpenSubnet) -> None:
    subnet = await open_local(max_uids=3)
    await ready(subnet)
    chain = subnet.chain()
    began = subnet.service.chain.head
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=began)
    await subnet.enrol("c")  # a (UID 1) has earned as little as b, and was there before
    before = await MetagraphReader(chain, NETUID).read()
    assert before.neurons[1].hotkey == hotkey("c").address
    with pytest.raises(errors.NotRegistered, match="gave way to another"):
        await set_weights(chain, hotkey("a"), NETUID, {2: 1.0}, since=began)
    await subnet.run_epoch()
    # Its weight is in the row, and reaches nobody: c registered after it was committed.
    assert await read_outcome(chain, submission) is Outcome.REVEALED
    after = await MetagraphReader(chain, NETUID).read()
    assert after.neurons[1].incentive == 0


async def test_weights_in_force_stay_so_when_a_miner_among_them_gives_way(open_local: OpenSubnet) -> None:
    """Or a validator would take them for missed, and set them again in each epoch with a registration."""
    subnet = await open_local(max_uids=3)
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(
        chain, hotkey("validator"), NETUID, {1: 2.0, 2: 1.0}, since=subnet.service.chain.head
    )
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.REVEALED
    earned = State1(subnet.service.chain.state(), NETUID).vector("Emission")
    await subnet.advance(Emission=[earned[0], earned[1], 0])
    await subnet.enrol("c")  # in the place of b (UID 2)
    assert await row(subnet) == [[1, 65535], [2, 0]], "nobody inherits a weight, in storage neither"
    assert await read_outcome(chain, submission) is Outcome.REVEALED


async def test_a_weight_that_is_zero_for_who_was_there_before_is_another_row(subnet: Subnet) -> None:
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(
        chain, hotkey("validator"), NETUID, {1: 2.0, 2: 1.0}, since=subnet.service.chain.head
    )
    await subnet.run_epoch()
    await subnet.service.make_blocks(1, {f"SubtensorModule.Weights/{NETUID}/0": [[1, 65535], [2, 0]]})
    assert await read_outcome(chain, submission) is Outcome.MISSED


async def test_a_validator_that_gives_way_before_the_reveal_has_missed_it(open_local: OpenSubnet) -> None:
    subnet = await open_local(max_uids=3)
    await ready(subnet)
    chain = subnet.chain()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {1: 1.0}, since=subnet.service.chain.head)
    await subnet.service.make_blocks(1, {f"SubtensorModule.Emission/{NETUID}": [0, 9, 9]})
    await subnet.enrol("c")
    await subnet.run_epoch()
    assert await read_outcome(chain, submission) is Outcome.MISSED
    assert await row(subnet, 0) is None


async def test_a_hotkey_of_another_coldkey_is_refused(subnet: Subnet) -> None:
    await ready(subnet)
    stolen = Hotkey(keypair("validator-hot"), coldkey_of("somebody"))
    with pytest.raises(errors.ForeignOwner, match="registered by somebody else"):
        await set_weights(subnet.chain(), stolen, NETUID, {1: 1.0}, since=subnet.service.chain.head)


async def test_nobody_inherits_a_weight_by_a_uid(open_local: OpenSubnet) -> None:
    subnet = await open_local(max_uids=3)
    await ready(subnet)
    reader = MetagraphReader(subnet.chain(), NETUID)
    before = await reader.read()
    scores = {neuron.identity: float(neuron.uid) for neuron in before.neurons}
    await subnet.enrol("c")
    after = await reader.read()
    assert by_uid(before, scores) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert by_uid(after, scores) == {0: 0.0, 2: 2.0}
    assert by_uid(after, {Identity(hotkey("b").address, 0): 1.0}) == {}


async def test_of_fewer_neurons_than_weights_are_wanted_all_are_enough(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"commit_reveal_weights_enabled": False, "min_allowed_weights": 50})
    await ready(subnet)
    client = await subnet.client()
    n = State1(subnet.service.chain.state(), NETUID).n
    call = bt.calls.SubtensorModule.set_weights(netuid=NETUID, dests=list(range(n)), weights=[1] * n, version_key=0)
    assert (await client.submit_call(call, keypair("validator-hot"), signer="hotkey")).success
    few = bt.calls.SubtensorModule.set_weights(netuid=NETUID, dests=[1, 2], weights=[1, 1], version_key=0)
    result = await client.submit_call(few, keypair("validator-hot"), signer="hotkey")
    assert not result.success
    assert f"at least {n} weights" in result.message


async def test_nobody_can_commit_another_s_ciphertext(subnet: Subnet) -> None:
    await subnet.enrol("thief", stake_tao=1000)
    await ready(subnet)
    chain, client = subnet.chain(), await subnet.client()
    await set_weights(chain, hotkey("validator"), NETUID, {2: 1.0}, since=subnet.service.chain.head)
    ((commit,),) = (await client.read("timelocked_weight_commits", netuid=NETUID)).values()
    copied = bt.calls.SubtensorModule.commit_timelocked_mechanism_weights(
        netuid=NETUID,
        mecid=0,
        commit=bytes.fromhex(commit["ciphertext"].removeprefix("0x")),
        reveal_round=commit["reveal_round"],
        commit_reveal_version=4,
    )
    assert (await client.submit_call(copied, keypair("thief-hot"), signer="hotkey")).success
    await subnet.run_epoch()
    assert await row(subnet, 1) == [[2, 65535]]
    assert await row(subnet, 0) is None


async def test_of_two_that_earned_next_to_nothing_who_earned_less_gives_way(open_local: OpenSubnet) -> None:
    """Scores are scaled so that the largest is 65535, as on the chain: else both had 0, and the elder would go."""
    subnet = await open_local(max_uids=4, hyperparameters=IN_THE_OPEN)
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("a", "b", "c")
    await subnet.run_epoch()
    client = await subnet.client()
    call = bt.calls.SubtensorModule.set_weights(netuid=NETUID, dests=[1, 2, 3], weights=[65535, 2, 1], version_key=0)
    assert (await client.submit_call(call, keypair("validator-hot"), signer="hotkey")).success
    await subnet.run_epoch()
    scores = State1(subnet.service.chain.state(), NETUID).vector("PruningScores")
    assert max(scores) == 65535
    assert scores[2] > scores[3] > 0
    assert await subnet.enrol("new") == [3]
