"""What the SDK asks of the runtime beside plain storage: the metagraph, hyperparameters, the next epoch, prices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from neurons.chain.local import epochs
from neurons.chain.local.genesis import HYPERPARAMETERS, RAO
from neurons.chain.local.storage import JSON, State
from neurons.chain.local.subnet import DispatchError, Subnet


class UnknownMethod(Exception):  # noqa: N818 - the chain's name for it
    """The local chain has no such runtime API."""


def call(state: State, api: str, method: str, params: Any) -> JSON:
    """Call a runtime API as of the state's block.

    Raises:
        UnknownMethod: the local chain has none of that name.
    """
    known = METHODS.get((api, method))
    if known is None:
        raise UnknownMethod(f"the local subnet has no runtime API {api}.{method}")
    arguments = list(params.values()) if isinstance(params, dict) else list(params)
    return known(state, *arguments)


def _subnet(state: State, netuid: int) -> Subnet | None:
    try:
        return Subnet.existing(state, netuid)
    except DispatchError:
        return None


def _metagraph(state: State, netuid: int) -> JSON:
    """The whole subnet as columns, an entry a UID."""
    subnet = _subnet(state, netuid)
    if subnet is None:
        return None
    hotkeys = subnet.hotkeys
    stakes = [subnet.stake(hotkey) for hotkey in hotkeys]
    last_step = int(subnet.get("LastEpochBlock"))
    return {
        "netuid": netuid,
        "name": state.get("Local.Names", netuid),
        "symbol": subnet.get("TokenSymbol"),
        "block": state.block,
        "tempo": subnet.hyperparameter("tempo"),
        "last_step": last_step,
        "blocks_since_last_step": state.block - last_step,
        "owner_hotkey": subnet.get("SubnetOwnerHotkey"),
        "owner_coldkey": subnet.get("SubnetOwner"),
        "network_registered_at": subnet.get("NetworkRegisteredAt"),
        "num_uids": len(hotkeys),
        "max_uids": subnet.get("MaxAllowedUids"),
        "max_validators": subnet.hyperparameter("max_validators"),
        "burn": subnet.get("Burn"),
        "tao_in": RAO,
        "alpha_in": RAO,
        "moving_price": {"bits": 2**32},
        "identity": None,
        "hotkeys": hotkeys,
        "coldkeys": [subnet.owner(hotkey) for hotkey in hotkeys],
        "identities": [None] * len(hotkeys),
        "axons": [subnet.get("Axons", hotkey) for hotkey in hotkeys],
        "active": subnet.vector("Active"),
        "validator_permit": subnet.vector("ValidatorPermit"),
        "last_update": subnet.vector("LastUpdate"),
        "block_at_registration": subnet.registered,
        "rank": subnet.vector("Rank"),
        "trust": subnet.vector("Trust"),
        "consensus": subnet.vector("Consensus"),
        "incentives": subnet.vector("Incentive"),
        "dividends": subnet.vector("Dividends"),
        "pruning_score": subnet.vector("PruningScores"),
        "emission": subnet.vector("Emission"),
        "alpha_stake": stakes,
        "tao_stake": [0] * len(hotkeys),
        "total_stake": stakes,
    }


def _hyperparameters(state: State, netuid: int) -> JSON:
    subnet = _subnet(state, netuid)
    if subnet is None:
        return None
    entries: list[JSON] = []
    for name, parameter in HYPERPARAMETERS.items():
        value = subnet.hyperparameter(name)
        if name == "epoch_consensus":
            value = 1 if value == "Null" else 0
        if parameter.tag == "I32F32":
            value = {"bits": int(value) << 32}
        entries.append({"name": name, "value": {parameter.tag: value}})
    cutoff = int(subnet.hyperparameter("activity_cutoff_factor")) * int(subnet.hyperparameter("tempo")) // 1000
    return [*entries, {"name": "activity_cutoff", "value": {"U16": cutoff}}]


def _next_epoch(state: State, netuid: int) -> JSON:
    subnet = _subnet(state, netuid)
    return None if subnet is None else epochs.next_epoch_start_block(subnet)


def _price(state: State, netuid: int) -> JSON:
    return None if _subnet(state, netuid) is None else RAO


METHODS: Final[dict[tuple[str, str], Callable[..., JSON]]] = {
    ("SubnetInfoRuntimeApi", "get_metagraph"): _metagraph,
    ("SubnetInfoRuntimeApi", "get_subnet_hyperparams_v3"): _hyperparameters,
    ("SubnetInfoRuntimeApi", "get_next_epoch_start_block"): _next_epoch,
    ("SwapRuntimeApi", "current_alpha_price"): _price,
}
