"""One look at a subnet, at the chain's head."""

from __future__ import annotations

import bittensor as bt
from yarl import URL

from neurons.chain.connection import Chain
from neurons.chain.errors import ChainError, Unreachable
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
    except ValueError:
        raise SubnetError(
            f"--network {network} is no chain: give finney, test, the ws:// or wss:// URL of a chain endpoint, or "
            "http:// and host of a local subnet."
        ) from None
    async with chain:
        try:
            found = await chain.ask(lambda client: read_from_chain(client, netuid))
            time_ms = await chain.ask(_now)
        except ChainError as error:
            raise SubnetError(
                f"Subnet {netuid} can't be read: {str(error).rstrip('.')}.{_forward(network, netuid, error)}"
            ) from None
    return MetagraphFile(
        netuid=found.netuid,
        block=found.block,
        time=time_ms,
        neurons=tuple(NeuronEntry.model_validate(neuron, from_attributes=True) for neuron in found.neurons),
    )


def _forward(network: str, netuid: int, error: ChainError) -> str:
    """Say how a chain in a cluster is reached from a terminal, where its Service has no name."""
    url = URL(network) if network.startswith("http://") else URL()
    service, _, rest = (url.host or "").partition(".")
    namespace, _, domain = rest.partition(".")
    if not isinstance(error, Unreachable) or domain.partition(".")[0] != "svc":
        return ""
    return (
        f" Outside the cluster forward it: `kubectl port-forward -n {namespace} service/{service} "
        f"{url.port}:{url.port}`, and give --network http://127.0.0.1:{url.port} --netuid {netuid}."
    )


async def _now(client: bt.Client) -> int:
    view = await client.at()
    return int(await view.query(bt.storage.Timestamp.Now, []))
