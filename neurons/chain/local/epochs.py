"""What happens on the local chain before a block's extrinsics: emission, reveals, and the epoch when it is due."""

from __future__ import annotations

from typing import Final

import numpy as np

from neurons.chain.local import null_consensus, weights, yuma
from neurons.chain.local.storage import JSON
from neurons.chain.local.subnet import Subnet

U16_MAX: Final = 65535
OWNER_PERCENT: Final = 18
"""Of what a subnet emits; what is left is halved between miners and validators."""


def next_epoch_start_block(subnet: Subnet) -> int | None:
    """Return the block at which the next epoch is expected; None when the subnet runs none (tempo 0)."""
    tempo = int(subnet.hyperparameter("tempo"))
    if tempo == 0:
        return None
    pending = int(subnet.get("PendingEpochAt"))
    regular = int(subnet.get("LastEpochBlock")) + tempo
    return min(regular, pending) if pending else regular


def begin_block(subnet: Subnet) -> list[dict[str, JSON]]:
    """Do what a block begins with; returns its events."""
    subnet.put(
        "PendingEmission",
        value=int(subnet.get("PendingEmission")) + int(subnet.state.get("Local.Emission", subnet.netuid)),
    )
    due = next_epoch_start_block(subnet)
    runs = due is not None and subnet.state.block >= due
    tempo = int(subnet.hyperparameter("tempo"))
    since = 0 if runs else min(int(subnet.get("BlocksSinceLastStep")) + 1, tempo + 1)
    subnet.put("BlocksSinceLastStep", value=since)
    if runs:
        subnet.put("LastEpochBlock", value=subnet.state.block)
        subnet.put("PendingEpochAt", value=0)
        subnet.put("SubnetEpochIndex", value=int(subnet.get("SubnetEpochIndex")) + 1)
    events: list[dict[str, JSON]] = [
        {"module_id": "SubtensorModule", "event_id": "TimelockedWeightsRevealed", "attributes": [subnet.netuid, who]}
        for who in weights.reveal(subnet)
    ]
    if runs:
        run(subnet)
        subnet.put("LastMechansimStepBlock", value=subnet.state.block)
    return events


def run(subnet: Subnet) -> None:
    """Run the epoch and pay what the subnet emitted since the one before."""
    n = subnet.n
    emitted = int(subnet.get("PendingEmission"))
    if n == 0:
        return  # what is emitted waits for somebody to earn it
    subnet.put("PendingEmission", value=0)
    hotkeys = subnet.hotkeys
    given = _inputs(subnet, hotkeys)
    consensus = null_consensus if subnet.hyperparameter("epoch_consensus") == "Null" else yuma
    outcome = consensus.epoch(given)
    if consensus is null_consensus:
        permits = null_consensus.permits(given.stake)
    else:
        permits = yuma.top_stakes(given.stake, int(subnet.hyperparameter("max_validators")))
    _store(subnet, given, outcome, permits)
    _pay(subnet, hotkeys, outcome, emitted)


def _inputs(subnet: Subnet, hotkeys: list[str]) -> yuma.Inputs:
    n, state = subnet.n, subnet.state
    cutoff = int(subnet.hyperparameter("activity_cutoff_factor")) * int(subnet.hyperparameter("tempo")) // 1000
    last_update = np.array(subnet.vector("LastUpdate"), dtype=np.int64)
    waiting = weights.commit_blocks(subnet)
    commit_block = None
    if subnet.hyperparameter("commit_reveal_weights_enabled"):
        commit_block = np.array([waiting.get(hotkey, yuma.NO_COMMIT) for hotkey in hotkeys], dtype=np.int64)
    threshold = int(state.get("SubtensorModule.StakeThreshold", default=0))
    stake = np.array([float(amount) if amount >= threshold else 0.0 for amount in map(subnet.stake, hotkeys)])
    return yuma.Inputs(
        stake=stake,
        weights=_matrix(subnet, "Weights", 1.0),
        bonds=_matrix(subnet, "Bonds", 1.0 / U16_MAX),
        permit=np.array(subnet.vector("ValidatorPermit"), dtype=bool),
        active=last_update + cutoff >= state.block,
        last_update=last_update,
        registered=np.array(subnet.registered, dtype=np.int64),
        named=_named(subnet),
        last_step=int(subnet.get("LastMechansimStepBlock")),
        commit_block=commit_block,
        owner=subnet.owner_uid(),
        previous_consensus=np.array(subnet.vector("Consensus"), dtype=float) / U16_MAX if n else None,
        parameters=_parameters(subnet),
    )


def _parameters(subnet: Subnet) -> yuma.Parameters:
    liquid = None
    if subnet.hyperparameter("liquid_alpha_enabled"):
        liquid = yuma.LiquidAlpha(
            low=int(subnet.hyperparameter("alpha_low")) / U16_MAX,
            high=int(subnet.hyperparameter("alpha_high")) / U16_MAX,
            steepness=float(subnet.hyperparameter("alpha_sigmoid_steepness")),
        )
    return yuma.Parameters(
        kappa=int(subnet.hyperparameter("kappa")) / U16_MAX,
        bonds_moving_average=int(subnet.hyperparameter("bonds_moving_avg")) / 1_000_000,
        bonds_penalty=int(subnet.hyperparameter("bonds_penalty")) / U16_MAX,
        liquid_alpha=liquid,
    )


def _matrix(subnet: Subnet, item: str, unit: float) -> yuma.Matrix:
    """Return sparse rows of (UID, u16) as (n, n)."""
    matrix: yuma.Matrix = np.zeros((subnet.n, subnet.n))
    for (uid,), row in subnet.scan(item):
        for target, value in row:
            matrix[int(uid), target] = value * unit
    return matrix


def _named(subnet: Subnet) -> yuma.Flags:
    """Return which entries rows have, (n, n)."""
    named: yuma.Flags = np.zeros((subnet.n, subnet.n), dtype=bool)
    for (uid,), row in subnet.scan("Weights"):
        named[int(uid), [target for target, _value in row]] = True
    return named


def _store(subnet: Subnet, given: yuma.Inputs, outcome: yuma.Outcome, permits: yuma.Flags) -> None:
    def u16(values: yuma.Vector) -> list[int]:
        return [int(value) for value in np.floor(np.clip(values, 0.0, 1.0) * U16_MAX + 1e-6)]

    combined = outcome.miner_share + outcome.validator_share
    for name, values in {
        "Rank": outcome.rank,
        "Trust": outcome.trust,
        "ValidatorTrust": outcome.validator_trust,
        "Consensus": outcome.consensus,
        "Incentive": outcome.incentive,
        "Dividends": outcome.dividends,
        "StakeWeight": yuma.normalize(given.stake),
    }.items():
        subnet.put(name, value=u16(values))
    # As large as they can be: among many, the smallest would all be 0 else, and who is the eldest would give way.
    top = float(combined.max(initial=0.0))
    scores = np.rint(combined / top * U16_MAX) if top > 0 else np.zeros_like(combined)
    subnet.put("PruningScores", value=[int(score) for score in scores])
    subnet.put("Active", value=given.active.tolist())
    subnet.put("ValidatorPermit", value=permits.tolist())
    for uid in range(subnet.n):
        row = u16(outcome.bonds[uid]) if permits[uid] else []
        sparse = [[target, value] for target, value in enumerate(row) if value]
        if sparse:
            subnet.put("Bonds", uid, value=sparse)
        elif subnet.get("Bonds", uid) is not None:
            subnet.delete("Bonds", uid)


def _pay(subnet: Subnet, hotkeys: list[str], outcome: yuma.Outcome, emitted: int) -> None:
    """Pay 18% to the owner and 41% each to miners and validators, as stake; fractions of a rao are not paid.

    What the owner's own hotkeys earn as miners is withheld: that is how a subnet burns.
    """
    owner_cut = emitted * OWNER_PERCENT // 100
    subnet.add_stake(subnet.get("SubnetOwnerHotkey"), owner_cut)
    owner_coldkey = subnet.get("SubnetOwner")
    paid = []
    for uid, hotkey in enumerate(hotkeys):
        mined = int((emitted - owner_cut) * float(outcome.miner_share[uid]))
        validated = int((emitted - owner_cut) * float(outcome.validator_share[uid]))
        paid.append(mined + validated)
        withheld = subnet.owner(hotkey) == owner_coldkey
        subnet.add_stake(hotkey, validated + (0 if withheld else mined))
    subnet.put("Emission", value=paid)
