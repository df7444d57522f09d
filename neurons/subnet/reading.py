"""One look at a subnet, at the chain's head."""

from __future__ import annotations

import bittensor as bt

from neurons.chain.connection import Chain
from neurons.chain.errors import ChainError
from neurons.chain.metagraph import read_metagraph as read_from_chain
from neurons.receipts import MetagraphFile, NeuronEntry
from neurons.subnet.errors import SubnetError


async def from_chain(network: str, netuid: int, *, timeout_seconds: float = 30.0) -> MetagraphFile:
    """Read the subnet at the chain's head, with the time of that block.

    Raises:
        SubnetError: there is no such network or subnet, or it can't be read.
    """
    try:
        chain = Chain(network, timeout_seconds=timeout_seconds)
    except ValueError as error:
        raise SubnetError(f"--network {network} is no chain: {error}") from None
    async with chain:
        try:
            found = await chain.ask(lambda client: read_from_chain(client, netuid))
            time_ms = await chain.ask(_now)
        except ChainError as error:
            raise SubnetError(f"Subnet {netuid} can't be read: {error}") from None
    return MetagraphFile(
        netuid=found.netuid,
        block=found.block,
        time=time_ms,
        neurons=tuple(NeuronEntry.model_validate(neuron, from_attributes=True) for neuron in found.neurons),
    )


async def _now(client: bt.Client) -> int:
    view = await client.at()
    return int(await view.query(bt.storage.Timestamp.Now, []))
