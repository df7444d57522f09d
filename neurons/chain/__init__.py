"""The chain half of the subnet: metagraph, axon, weights and epochs by the bittensor SDK, and a local subnet for it.

async with Chain("finney") as chain:                       # or "http://…", a local subnet's
    hotkey = load_hotkey(folder)
    await serve_axon(chain, hotkey, netuid, address="203.0.113.9", port=8091)
    reading = await MetagraphReader(chain, netuid).refresh()   # never raises; keeps the last good one
    submission = await set_weights(chain, hotkey, netuid, weights, since=round_block)
    outcome = await read_outcome(chain, submission)            # Pending, Revealed, Missed, Superseded
"""

from neurons.chain.axon import Endpoint, serve_axon
from neurons.chain.connection import Chain
from neurons.chain.epochs import EpochStatus, read_epoch, wait_for_epoch
from neurons.chain.errors import (
    ChainError,
    ColdkeyError,
    ForeignOwner,
    InPool,
    NotRegistered,
    OtherRuntime,
    RateLimited,
    Refused,
    TooEarly,
    Unreachable,
    UnusableAddress,
    WalletError,
)
from neurons.chain.hyperparameters import EpochConsensus, Hyperparameters, read_hyperparameters
from neurons.chain.metagraph import Identity, Metagraph, MetagraphReader, Neuron, Reading
from neurons.chain.wallet import Hotkey, load_hotkey
from neurons.chain.weights import Outcome, Submission, by_uid, read_outcome, set_weights

__all__ = [
    "Chain",
    "ChainError",
    "ColdkeyError",
    "Endpoint",
    "EpochConsensus",
    "EpochStatus",
    "ForeignOwner",
    "Hotkey",
    "Hyperparameters",
    "Identity",
    "InPool",
    "Metagraph",
    "MetagraphReader",
    "Neuron",
    "NotRegistered",
    "OtherRuntime",
    "Outcome",
    "RateLimited",
    "Reading",
    "Refused",
    "Submission",
    "TooEarly",
    "Unreachable",
    "UnusableAddress",
    "WalletError",
    "by_uid",
    "load_hotkey",
    "read_epoch",
    "read_hyperparameters",
    "read_outcome",
    "serve_axon",
    "set_weights",
    "wait_for_epoch",
]
