"""Epochs with a validator that copies: it measures nobody and sets the weights that it finds on the chain."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from neurons.chain.metagraph import MetagraphReader
from neurons.chain.weights import set_weights
from tests.unit.chain.played import NETUID, Subnet, hotkey

HONEST = ("honest-a", "honest-b")
COPIER = "copier"
MINERS = 8
WARM = 30
NOISE = 0.03
"""Of what an honest validator measures, where the best miner's quality is about 1."""


@dataclass
class Earned:
    """Dividends, each epoch's summed."""

    dividends: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, share: float) -> None:
        self.dividends[name] = self.dividends.get(name, 0.0) + share


Moves = Callable[[random.Random, Sequence[float]], list[float]]


def moving(draw: random.Random, quality: Sequence[float]) -> list[float]:
    """Miners get better and worse from one epoch to the next, as with new versions, load and patients."""
    return [min(1.0, max(0.05, each + draw.gauss(0, 0.15))) for each in quality]


def standing(_draw: random.Random, quality: Sequence[float]) -> list[float]:
    return list(quality)


async def with_a_copier(subnet: Subnet, *, epochs: int, seed: int, moves: Moves = moving) -> Earned:
    """Play epochs; all validators have the same stake and commit once an epoch. `WARM` epochs before don't count: bonds
    grow slowly, and a copier can begin only once there is something to copy."""
    draw = random.Random(seed)
    for name in (*HONEST, COPIER):
        await subnet.enrol(name, stake_tao=1000)
    await subnet.enrol(*(f"miner-{number}" for number in range(MINERS)))
    await subnet.run_epoch()
    chain = subnet.chain()
    reader = MetagraphReader(chain, NETUID)
    uids = {neuron.hotkey: neuron.uid for neuron in (await reader.read()).neurons}
    miners = [uids[hotkey(f"miner-{number}").address] for number in range(MINERS)]
    quality = [draw.uniform(0.2, 1.0) for _ in miners]
    earned = Earned()
    for epoch in range(WARM + epochs):
        since = subnet.service.chain.head + 1
        quality = moves(draw, quality)
        for name in HONEST:
            measured = {uid: max(0.0, each + draw.gauss(0, NOISE)) for uid, each in zip(miners, quality, strict=True)}
            await set_weights(chain, hotkey(name), NETUID, measured, since=since)
        if found := _on_chain(subnet, [uids[hotkey(name).address] for name in HONEST]):
            await set_weights(chain, hotkey(COPIER), NETUID, found, since=since)
        await subnet.run_epoch()
        if epoch >= WARM:
            by_key = {neuron.hotkey: neuron.dividends for neuron in (await reader.read()).neurons}
            for name in (*HONEST, COPIER):
                earned.add(name, by_key[hotkey(name).address])
    return earned


def _on_chain(subnet: Subnet, uids: Sequence[int]) -> dict[int, float]:
    """Return the mean of these validators' weights, as anybody can read them."""
    state = subnet.service.chain.state()
    rows = [state.get("SubtensorModule.Weights", NETUID, uid) for uid in uids]
    found: dict[int, float] = {}
    for row in rows:
        for uid, weight in row or []:
            found[uid] = found.get(uid, 0.0) + weight / len(rows)
    return found
