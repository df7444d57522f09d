"""When a subnet's epochs are: by what the chain says of the next one, never by counting blocks modulo tempo."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import bittensor as bt

from neurons.chain import errors
from neurons.chain.connection import Chain


@dataclass(frozen=True, kw_only=True)
class EpochStatus:
    """Where a subnet is in its cycle, as of `block`. Tempo is in blocks."""

    block: int
    tempo: int
    index: int
    """How many epochs have run; commits are filed under it."""
    last_block: int
    """At which the last epoch ran."""
    next_block: int | None
    """At which the next is expected; the owner, or other subnets' epochs, may shift it by some blocks. None: never."""
    blocks_left: int | None
    seconds_left: float | None


async def read_epoch(chain: Chain, netuid: int) -> EpochStatus:
    """Read where the subnet is in its cycle.

    Raises:
        ChainError: any of `errors`.
    """

    async def question(client: bt.Client) -> EpochStatus:
        found = await client.read("epoch_status", netuid=netuid)
        return EpochStatus(
            block=found["block"],
            tempo=found["tempo"],
            index=found["epoch_index"],
            last_block=found["last_epoch_block"],
            next_block=found["next_epoch_start_block"],
            blocks_left=found["blocks_remaining"],
            seconds_left=found["seconds_remaining"],
        )

    return await chain.ask(question)


async def wait_for_epoch(chain: Chain, netuid: int, *, after: EpochStatus, longest_seconds: float) -> EpochStatus:
    """Wait until an epoch has run after the one that `after` tells of; returns the status then.

    What counts is that one has run, not that its block has come: the chain may run it earlier or later. An epoch that
    ran before this was called, or while the chain couldn't be reached, is not missed.

    Raises:
        Unreachable: none has run in that time, or the chain is away for longer than `Chain` tries.
        Refused: the subnet runs no epochs.
    """
    status = await read_epoch(chain, netuid)
    if status.index == after.index and status.next_block is None:
        raise errors.Refused(f"subnet {netuid} has tempo 0 and runs no epochs: its owner has to set one")
    deadline = asyncio.get_running_loop().time() + longest_seconds
    while status.index == after.index:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise errors.Unreachable(f"subnet {netuid} has run no epoch within {longest_seconds:g} seconds: ask again")
        status = await _next_status(chain, netuid, status, left)
    return status


async def _next_status(chain: Chain, netuid: int, known: EpochStatus, seconds: float) -> EpochStatus:
    async def question(client: bt.Client) -> int:
        target = max(known.next_block or 0, known.block + 1)
        return (await client.wait_for_block(target)).number

    await chain.once(question, timeout_seconds=seconds)
    return await read_epoch(chain, netuid)
