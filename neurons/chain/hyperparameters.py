"""A subnet's hyperparameters, as far as neurons go by them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import bittensor as bt

from neurons.chain import errors
from neurons.chain.connection import Chain


class EpochConsensus(enum.StrEnum):
    """How a subnet comes to its incentives."""

    YUMA = "Yuma"
    NULL = "Null"
    """One validator, the largest stake, decides alone; nobody else may set weights."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What the chain publishes of a subnet. Periods and limits are blocks unless they say epochs."""

    tempo: int
    epoch_consensus: EpochConsensus
    commit_reveal: bool
    """Weights are committed sealed and revealed later."""
    commit_reveal_period: int
    """Epochs from a commit to its reveal."""
    weights_rate_limit: int
    weights_version: int
    """Oldest version key that is taken."""
    min_allowed_weights: int
    max_weights_limit: float
    """The largest share that one weight may have, 0..1."""
    immunity_period: int
    activity_cutoff: int
    serving_rate_limit: int
    max_validators: int
    liquid_alpha: bool


async def read_hyperparameters(chain: Chain, netuid: int) -> Hyperparameters:
    """Read them.

    Raises:
        ChainError: any of `errors`.
    """

    async def question(client: bt.Client) -> Hyperparameters:
        found = await client.read("subnet_hyperparameters", netuid=netuid)
        if found is None:
            raise errors.Refused(
                f"there is no subnet {netuid} on this chain: choose one that there is", name="SubnetNotExists"
            )
        return parse(found)

    return await chain.ask(question)


def parse(found: dict[str, Any]) -> Hyperparameters:
    """Take what we go by from all that the chain publishes (`get_subnet_hyperparams_v3`).

    Raises:
        KeyError: one of them isn't published any more.
    """
    return Hyperparameters(
        tempo=int(found["tempo"]),
        epoch_consensus=_consensus(found.get("epoch_consensus", 0)),
        commit_reveal=bool(found["commit_reveal_weights_enabled"]),
        commit_reveal_period=int(found["commit_reveal_period"]),
        weights_rate_limit=int(found["weights_rate_limit"]),
        weights_version=int(found["weights_version"]),
        min_allowed_weights=int(found["min_allowed_weights"]),
        max_weights_limit=int(found["max_weights_limit"]) / 65535,
        immunity_period=int(found["immunity_period"]),
        activity_cutoff=int(found["activity_cutoff"]),
        serving_rate_limit=int(found["serving_rate_limit"]),
        max_validators=int(found["max_validators"]),
        liquid_alpha=bool(found["liquid_alpha_enabled"]),
    )


def _consensus(value: Any) -> EpochConsensus:
    # The selector is 0 or 1 in the published list, and the variant's name, alone or as a key, in storage.
    name = next(iter(value)) if isinstance(value, dict) else value
    if name in {0, 1}:
        return EpochConsensus.NULL if name else EpochConsensus.YUMA
    return EpochConsensus(name)
