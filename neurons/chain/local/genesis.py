"""The first block of a local subnet: which subnet there is, whose, and with which hyperparameters."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from neurons.chain.local.addresses import checked
from neurons.chain.local.storage import JSON, State

RAO: Final = 10**9
"""Rao in a TAO, and in an alpha."""
SPEC_VERSION: Final = 425
"""Of the runtime whose rules are followed."""
COMMIT_REVEAL_VERSION: Final = 4
LEAST_MORTAL_UIDS: Final = 10


@dataclass(frozen=True)
class Hyperparameter:
    """Where the chain stores it, the type tag of `get_subnet_hyperparams_v3`, and what a new subnet has."""

    item: str
    tag: str
    default: JSON

    def check(self, name: str, value: JSON) -> None:
        """Raise ValueError for a value that the chain could not store; the message says what it takes."""
        if self.tag == "Bool":
            fits, takes = isinstance(value, bool), "true or false"
        elif isinstance(self.default, str):
            fits, takes = isinstance(value, str) and value in CONSENSUS, " or ".join(CONSENSUS)
        else:
            most = _MOST[self.tag]
            fits, takes = type(value) is int and 0 <= value <= most, f"an integer from 0 to {most}"
        if not fits:
            raise ValueError(f"hyperparameter {name} is {json.dumps(value)[:60]}: it takes {takes}")


CONSENSUS: Final = ("Yuma", "Null")
_MOST: Final = {"U16": 2**16 - 1, "U32": 2**32 - 1, "U64": 2**64 - 1, "I32F32": 2**31 - 1}


HYPERPARAMETERS: Final[Mapping[str, Hyperparameter]] = {
    "kappa": Hyperparameter("SubtensorModule.Kappa", "U16", 32767),
    "immunity_period": Hyperparameter("SubtensorModule.ImmunityPeriod", "U16", 5000),
    "min_allowed_weights": Hyperparameter("SubtensorModule.MinAllowedWeights", "U16", 1),
    "max_weights_limit": Hyperparameter("SubtensorModule.MaxWeightsLimit", "U16", 65535),
    "tempo": Hyperparameter("SubtensorModule.Tempo", "U16", 360),
    "weights_version": Hyperparameter("SubtensorModule.WeightsVersionKey", "U64", 0),
    "weights_rate_limit": Hyperparameter("SubtensorModule.WeightsSetRateLimit", "U64", 100),
    "activity_cutoff_factor": Hyperparameter("SubtensorModule.ActivityCutoffFactorMilli", "U32", 13889),
    "registration_allowed": Hyperparameter("SubtensorModule.NetworkRegistrationAllowed", "Bool", True),
    "bonds_moving_avg": Hyperparameter("SubtensorModule.BondsMovingAverage", "U64", 900_000),
    "max_regs_per_block": Hyperparameter("SubtensorModule.MaxRegistrationsPerBlock", "U16", 1),
    "serving_rate_limit": Hyperparameter("SubtensorModule.ServingRateLimit", "U64", 50),
    "max_validators": Hyperparameter("SubtensorModule.MaxAllowedValidators", "U16", 64),
    "commit_reveal_period": Hyperparameter("SubtensorModule.RevealPeriodEpochs", "U64", 1),
    "commit_reveal_weights_enabled": Hyperparameter("SubtensorModule.CommitRevealWeightsEnabled", "Bool", True),
    "alpha_low": Hyperparameter("SubtensorModule.AlphaLow", "U16", 45875),
    "alpha_high": Hyperparameter("SubtensorModule.AlphaHigh", "U16", 58982),
    "liquid_alpha_enabled": Hyperparameter("SubtensorModule.LiquidAlphaOn", "Bool", False),
    "bonds_penalty": Hyperparameter("SubtensorModule.BondsPenalty", "U16", 65535),
    "alpha_sigmoid_steepness": Hyperparameter("SubtensorModule.AlphaSigmoidSteepness", "I32F32", 1000),
    "epoch_consensus": Hyperparameter("SubtensorModule.SubnetEpochConsensus", "U8", "Yuma"),
}


@dataclass(frozen=True, kw_only=True)
class Genesis:
    """How a chain begins. Amounts are rao; the sealing seed is 32 bytes."""

    owner_coldkey: str
    owner_hotkey: str
    netuid: int = 1
    name: str = "bettertherapy"
    symbol: str = "β"
    hyperparameters: Mapping[str, JSON] = field(default_factory=dict)
    max_uids: int = 256
    least_mortal_uids: int = LEAST_MORTAL_UIDS
    """While no more neurons are outside immunity, none of them gives way, but one that is immune."""
    stake_threshold: int = 0
    """Stake below which weights are refused."""
    burn: int = RAO // 2000
    """What a registration costs."""
    endowment: int = 1_000_000 * RAO
    """What every account has before it is first charged: on a local chain nobody has to ask for money."""
    emission: int = RAO
    """Alpha that the subnet emits in a block."""
    block_seconds: float = 12.0
    time: float = field(default_factory=time.time)
    """When the first block was, seconds since 1970."""
    spec_version: int = SPEC_VERSION
    sealing_seed: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def check(self) -> None:
        """Look at what a chain can't begin with.

        Raises:
            ValueError: a hyperparameter that there isn't, or a value that it can't have; an owner without an address.
        """
        unknown = sorted(set(self.hyperparameters) - set(HYPERPARAMETERS))
        if unknown:
            raise ValueError(f"no hyperparameter {', '.join(unknown)}; there are {', '.join(sorted(HYPERPARAMETERS))}")
        for name, value in self.hyperparameters.items():
            HYPERPARAMETERS[name].check(name, value)
        for what, address in {"coldkey": self.owner_coldkey, "hotkey": self.owner_hotkey}.items():
            try:
                checked(address)
            except ValueError as error:
                raise ValueError(f"the owner's {what}: {error}") from None

    def write(self, state: State) -> None:
        """Put all of it into storage; raises ValueError as `check` does."""
        self.check()
        netuid = self.netuid
        for name, parameter in HYPERPARAMETERS.items():
            state.put(parameter.item, netuid, value=self.hyperparameters.get(name, parameter.default))
        values: dict[str, Any] = {
            "NetworksAdded": True,
            "SubnetworkN": 0,
            "MaxAllowedUids": self.max_uids,
            "MinNonImmuneUids": self.least_mortal_uids,
            "TokenSymbol": self.symbol,
            "SubnetOwner": self.owner_coldkey,
            "SubnetOwnerHotkey": self.owner_hotkey,
            "NetworkRegisteredAt": 0,
            "Burn": self.burn,
            "CollateralLockShare": 0,
            "LastEpochBlock": 0,
            "LastMechansimStepBlock": 0,
            "PendingEpochAt": 0,
            "SubnetEpochIndex": 0,
            "BlocksSinceLastStep": 0,
            "PendingEmission": 0,
            "MechanismCountCurrent": 1,
        }
        for item, value in values.items():
            state.put(f"SubtensorModule.{item}", netuid, value=value)
        state.put("SubtensorModule.TokenSymbol", 0, value="τ")
        state.put("SubtensorModule.StakeThreshold", value=self.stake_threshold)
        state.put("Timestamp.Now", value=int(self.time * 1000))
        state.put("Aura.SlotDuration", value=int(self.block_seconds * 1000))
        state.put("System.SpecVersion", value=self.spec_version)
        state.put("Local.Netuids", value=[netuid])
        state.put("Local.Names", netuid, value=self.name)
        state.put("Local.Endowment", value=self.endowment)
        state.put("Local.Emission", netuid, value=self.emission)
        state.put("Local.SealingSeed", value=self.sealing_seed.hex())
