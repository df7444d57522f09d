"""What extrinsics do on the local chain: one function for each call that it knows, by the pallet's names."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from neurons.chain.local import weights
from neurons.chain.local.addresses import checked
from neurons.chain.local.genesis import RAO
from neurons.chain.local.storage import JSON, State
from neurons.chain.local.subnet import DispatchError, Subnet

Params = dict[str, Any]
Event = dict[str, JSON]
Call = Callable[[State, str, Params], list[Event]]

LEAST_STAKE: Final = RAO // 500


def dispatch(state: State, *, signer: str, module: str, function: str, params: Params) -> list[Event]:
    """Carry a call out; returns its events. Nothing is changed when it raises.

    Raises:
        DispatchError: the chain's rules refuse it, or the local chain has no such call.
    """
    call = CALLS.get((module, function))
    if call is None:
        known = ", ".join(f"{known_module}.{name}" for known_module, name in CALLS)
        raise DispatchError("CallFiltered", f"the local subnet has no {module}.{function}; it has {known}")
    with state.attempt():
        try:
            return call(state, signer, params)
        except DispatchError:
            raise
        except Exception as error:
            # Whatever somebody signed, the blocks go on: a node would not have decoded it.
            raise DispatchError("InvalidCall", f"{module}.{function}: wrong parameters ({error!r})") from error


def balance(state: State, coldkey: str) -> int:
    """Return an account's free balance in rao."""
    account = state.get("System.Account", coldkey)
    return int(state.get("Local.Endowment") if account is None else account["data"]["free"])


def _charge(state: State, coldkey: str, amount: int, error: str) -> None:
    free = balance(state, coldkey)
    if free < amount:
        raise DispatchError(error, f"{coldkey} has {free} rao, and this costs {amount}")
    state.put("System.Account", coldkey, value={"data": {"free": free - amount}})


def _burned_register(state: State, signer: str, params: Params) -> list[Event]:
    subnet, hotkey = Subnet.existing(state, params["netuid"]), str(params["hotkey"])
    if not subnet.hyperparameter("registration_allowed"):
        raise DispatchError("SubNetRegistrationDisabled", f"subnet {subnet.netuid} takes no registrations")
    checked(hotkey)
    if subnet.owner(hotkey) not in {"", signer}:
        raise DispatchError("NonAssociatedColdKey", f"{hotkey} belongs to another coldkey than {signer}")
    counted, this_block = subnet.get("RegistrationsThisBlock", default=[state.block, 0])
    this_block = this_block if counted == state.block else 0
    if this_block >= int(subnet.hyperparameter("max_regs_per_block")):
        raise DispatchError("TooManyRegistrationsThisBlock", "this block takes no further registration: try the next")
    _charge(state, signer, int(subnet.get("Burn")), "NotEnoughBalanceToStake")
    uid = subnet.register(hotkey)
    state.put("SubtensorModule.Owner", hotkey, value=signer)
    owned = state.get("SubtensorModule.OwnedHotkeys", signer, default=[])
    if hotkey not in owned:
        state.put("SubtensorModule.OwnedHotkeys", signer, value=[*owned, hotkey])
    subnet.put("RegistrationsThisBlock", value=[state.block, this_block + 1])
    return [_event("NeuronRegistered", [subnet.netuid, uid, hotkey])]


def _add_stake(state: State, signer: str, params: Params) -> list[Event]:
    subnet, hotkey, amount = (
        Subnet.existing(state, params["netuid"]),
        str(params["hotkey"]),
        int(params["amount_staked"]),
    )
    if subnet.owner(hotkey) != signer:
        raise DispatchError(
            "NonAssociatedColdKey", f"{hotkey} isn't {signer}'s; the local subnet has no delegation: stake on your own"
        )
    if amount < LEAST_STAKE:
        raise DispatchError("AmountTooLow", f"stake at least {LEAST_STAKE} rao")
    _charge(state, signer, amount, "NotEnoughBalanceToStake")
    subnet.add_stake(hotkey, amount)  # there is no pool: an alpha costs a TAO
    return [_event("StakeAdded", [signer, hotkey, amount, amount, subnet.netuid, 0])]


def _remove_stake(state: State, signer: str, params: Params) -> list[Event]:
    subnet, hotkey, amount = (
        Subnet.existing(state, params["netuid"]),
        str(params["hotkey"]),
        int(params["amount_unstaked"]),
    )
    if subnet.owner(hotkey) != signer:
        raise DispatchError("NonAssociatedColdKey", f"{hotkey} isn't {signer}'s")
    if not 0 < amount <= subnet.stake(hotkey):
        raise DispatchError("NotEnoughStakeToWithdraw", f"{hotkey} has {subnet.stake(hotkey)} rao staked, not {amount}")
    subnet.add_stake(hotkey, -amount)
    state.put("System.Account", signer, value={"data": {"free": balance(state, signer) + amount}})
    return [_event("StakeRemoved", [signer, hotkey, amount, amount, subnet.netuid, 0])]


def _serve_axon(state: State, signer: str, params: Params) -> list[Event]:
    subnet = Subnet.existing(state, params["netuid"])
    subnet.uid(signer)
    version, number = int(params["ip_type"]), int(params["ip"])
    if version not in {4, 6}:
        raise DispatchError("InvalidIpType", "addresses are of type 4 or 6")
    try:
        address = ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
    except ValueError:
        raise DispatchError("InvalidIpAddress", f"{number} is no IPv{version} address") from None
    if address.is_loopback or address.is_unspecified or number == 2**32 - 1:
        raise DispatchError("InvalidIpAddress", f"nobody can reach {address}: serve an external address")
    port = int(params["port"])
    if not 0 < port < 2**16:
        raise DispatchError("InvalidPort", f"{port} is no port")
    before = subnet.get("Axons", signer)
    limit = int(subnet.hyperparameter("serving_rate_limit"))
    if before is not None and limit and state.block - int(before["block"]) < limit:
        raise DispatchError("ServingRateLimitExceeded", f"an axon may be served anew every {limit} blocks")
    subnet.put(
        "Axons",
        signer,
        value={
            "block": state.block,
            "version": int(params["version"]),
            "ip": number,
            "port": port,
            "ip_type": version,
            "protocol": int(params["protocol"]),
        },
    )
    return [_event("AxonServed", [subnet.netuid, signer])]


def _set_weights(state: State, signer: str, params: Params) -> list[Event]:
    subnet = Subnet.existing(state, params["netuid"])
    if int(params.get("mecid", 0)):
        raise DispatchError("MechanismDoesNotExist", "the local subnet has mechanism 0 only")
    weights.set_weights(
        subnet, signer, uids=params["dests"], values=params["weights"], version_key=int(params["version_key"])
    )
    return [_event("WeightsSet", [subnet.netuid, subnet.uid(signer)])]


def _commit_weights(state: State, signer: str, params: Params) -> list[Event]:
    subnet = Subnet.existing(state, params["netuid"])
    if int(params.get("mecid", 0)):
        raise DispatchError("MechanismDoesNotExist", "the local subnet has mechanism 0 only")
    weights.commit(
        subnet,
        signer,
        ciphertext=str(params["commit"]),
        reveal_round=int(params["reveal_round"]),
        version=int(params["commit_reveal_version"]),
    )
    return [_event("TimelockedWeightsCommitted", [signer, subnet.netuid, int(params["reveal_round"])])]


def _event(name: str, attributes: JSON) -> Event:
    return {"module_id": "SubtensorModule", "event_id": name, "attributes": attributes}


CALLS: Final[dict[tuple[str, str], Call]] = {
    ("SubtensorModule", "burned_register"): _burned_register,
    ("SubtensorModule", "add_stake"): _add_stake,
    ("SubtensorModule", "add_stake_limit"): _add_stake,
    ("SubtensorModule", "remove_stake"): _remove_stake,
    ("SubtensorModule", "serve_axon"): _serve_axon,
    ("SubtensorModule", "set_weights"): _set_weights,
    ("SubtensorModule", "set_mechanism_weights"): _set_weights,
    ("SubtensorModule", "commit_timelocked_weights"): _commit_weights,
    ("SubtensorModule", "commit_timelocked_mechanism_weights"): _commit_weights,
}
