"""One subnet's neurons in storage: who they are, what they hold, and who gives way when there is no room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from neurons.chain.local.genesis import HYPERPARAMETERS, LEAST_MORTAL_UIDS
from neurons.chain.local.storage import JSON, State

VECTORS: Final[dict[str, JSON]] = {
    "Active": True,
    "Rank": 0,
    "Trust": 0,
    "ValidatorTrust": 0,
    "Consensus": 0,
    "Incentive": 0,
    "Dividends": 0,
    "PruningScores": 0,
    "Emission": 0,
    "StakeWeight": 0,
    "ValidatorPermit": False,
    "LastUpdate": 0,
}
"""Kept as one list per subnet, an entry a UID; with what a new neuron has."""


class DispatchError(Exception):
    """The chain includes the extrinsic, and refuses what it asks; `name` is the chain's own for the reason."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Subnet:
    """Storage of one subnet as of the state's block; what it changes is in the state."""

    state: State
    netuid: int

    @classmethod
    def existing(cls, state: State, netuid: Any) -> Subnet:
        """Return the subnet.

        Raises:
            DispatchError: there is none of that number.
        """
        if not isinstance(netuid, int) or not state.get("SubtensorModule.NetworksAdded", netuid):
            raise DispatchError("SubnetNotExists", f"there is no subnet {netuid}")
        return cls(state, netuid)

    def get(self, item: str, *params: int | str, default: JSON = None) -> JSON:
        """Return an item of this subnet."""
        return self.state.get(f"SubtensorModule.{item}", self.netuid, *params, default=default)

    def put(self, item: str, *params: int | str, value: JSON) -> None:
        """Set an item of this subnet."""
        self.state.put(f"SubtensorModule.{item}", self.netuid, *params, value=value)

    def delete(self, item: str, *params: int | str) -> None:
        """Take an item of this subnet away."""
        self.state.delete(f"SubtensorModule.{item}", self.netuid, *params)

    def scan(self, item: str) -> list[tuple[tuple[int | str, ...], JSON]]:
        """Return (further parameters, value) of all entries of a map."""
        return self.state.scan(f"SubtensorModule.{item}", self.netuid)

    def hyperparameter(self, name: str) -> JSON:
        """Return a hyperparameter by the name that the chain publishes."""
        return self.state.get(HYPERPARAMETERS[name].item, self.netuid)

    @property
    def n(self) -> int:
        """How many neurons there are; UIDs are 0 to n - 1."""
        return int(self.get("SubnetworkN"))

    @property
    def hotkeys(self) -> list[str]:
        """Hotkeys by UID."""
        return [hotkey for _uid, hotkey in self.scan("Keys")]

    @property
    def registered(self) -> list[int]:
        """Block at which each UID was registered."""
        return [block for _uid, block in self.scan("BlockAtRegistration")]

    def vector(self, name: str) -> list[Any]:
        """Return one of `VECTORS`, an entry a UID."""
        return list(self.get(name, default=[]))

    def set_entry(self, name: str, uid: int, value: JSON) -> None:
        """Set one entry of one of `VECTORS`."""
        values = self.vector(name)
        values[uid] = value
        self.put(name, value=values)

    def uid(self, hotkey: str) -> int:
        """Return a hotkey's UID.

        Raises:
            DispatchError: it has none here.
        """
        uid = self.get("Uids", hotkey)
        if uid is None:
            raise DispatchError(
                "HotKeyNotRegisteredInSubNet", f"{hotkey} isn't registered on subnet {self.netuid}: register it first"
            )
        return int(uid)

    def owner(self, hotkey: str) -> str:
        """Return the coldkey that owns a hotkey; empty if nobody does."""
        return str(self.state.get("SubtensorModule.Owner", hotkey, default=""))

    def stake(self, hotkey: str) -> int:
        """Return a hotkey's stake on this subnet in rao of alpha."""
        return int(self.state.get("SubtensorModule.TotalHotkeyAlpha", hotkey, self.netuid, default=0))

    def add_stake(self, hotkey: str, amount: int) -> None:
        """Add to a hotkey's stake, rao of alpha."""
        self.state.put("SubtensorModule.TotalHotkeyAlpha", hotkey, self.netuid, value=self.stake(hotkey) + amount)

    def owner_uid(self) -> int | None:
        """Return the UID of the subnet owner's hotkey, if it is registered."""
        uid: int | None = self.get("Uids", self.get("SubnetOwnerHotkey"))
        return uid

    def register(self, hotkey: str) -> int:
        """Give a hotkey a UID, if there is no free one that of the neuron which gives way.

        Raises:
            DispatchError: it has one, or none gives way.
        """
        if self.get("Uids", hotkey) is not None:
            raise DispatchError(
                "HotKeyAlreadyRegisteredInSubNet", f"{hotkey} is registered on subnet {self.netuid} already"
            )
        n = self.n
        if n < int(self.get("MaxAllowedUids")):
            uid = n
            self.put("SubnetworkN", value=n + 1)
            for name, initial in VECTORS.items():
                self.put(name, value=[*self.vector(name), initial])
        else:
            uid = self.neuron_to_prune()
            self._clear(uid)
        self.put("Keys", uid, value=hotkey)
        self.put("Uids", hotkey, value=uid)
        self.put("BlockAtRegistration", uid, value=self.state.block)
        self.set_entry("LastUpdate", uid, self.state.block)
        self.state.put("SubtensorModule.IsNetworkMember", hotkey, self.netuid, value=True)
        return uid

    def neuron_to_prune(self) -> int:
        """Return the UID that gives way: of those outside immunity the one with the lowest emission.

        While no more than `MinNonImmuneUids` are outside, it is one of the immune. Of equals the one registered first
        gives way, then the lower UID. The owner's neuron never does.

        Raises:
            DispatchError: none is left that may.
        """
        emission, registered = self.vector("Emission"), self.registered
        immunity, owner = int(self.hyperparameter("immunity_period")), self.owner_uid()
        others = [uid for uid in range(self.n) if uid != owner]
        mortal = [uid for uid in others if self.state.block - registered[uid] >= immunity]
        least = int(self.get("MinNonImmuneUids", default=LEAST_MORTAL_UIDS))
        candidates = mortal if len(mortal) > least else [uid for uid in others if uid not in mortal]
        if not candidates:
            raise DispatchError(
                "NoNeuronIdAvailable", f"subnet {self.netuid} is full, and none of its neurons may give way: try later"
            )
        return min(candidates, key=lambda uid: (emission[uid], registered[uid], uid))

    def _clear(self, uid: int) -> None:
        """Forget the neuron: what it earned, said and served, and what others said of it. Its stake stays its hotkey's.

        Others' rows keep an entry for the UID, of 0.
        """
        hotkey = str(self.get("Keys", uid))
        for name, initial in VECTORS.items():
            self.set_entry(name, uid, initial)
        for item in ("Weights", "Bonds"):
            self.delete(item, uid)
        for (other,), row in self.scan("Weights"):
            if any(target == uid and value for target, value in row):
                self.put("Weights", other, value=[[target, 0 if target == uid else value] for target, value in row])
        self.delete("Axons", hotkey)
        self.delete("Uids", hotkey)
        self.state.delete("SubtensorModule.IsNetworkMember", hotkey, self.netuid)
