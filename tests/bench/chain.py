"""The local chain's process ended at every one of its writes, before and after it is on the disk, over and over.

Each game is played on a copy of one chain: a miner publishes its address, a validator sets weights in two rounds by
commit and reveal. Once nobody disturbs it, then it is ended at one write and started again on its file; all of storage
and all events must be the same in the end. When all writes have had their turn, other weights are set.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import bittensor.config

from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.chain.killing import everything, play, prepare

_COMMITTED: Final = "TimelockedWeightsCommitted"
_REVEALED: Final = "TimelockedWeightsRevealed"
Rounds = tuple[Mapping[int, float], Mapping[int, float]]


@dataclass(slots=True)
class Found:
    """What came of all games."""

    kills: int = 0
    restarts: int = 0
    different: int = 0
    """Games that ended in another state than undisturbed."""
    lost: int = 0
    """Weights that were set undisturbed, and not in the game."""
    twice: int = 0
    """Weights that were set in the game more often than undisturbed."""


def measure(options: Options) -> Result:
    """End the chain `options.chain_kills` times."""
    seconds: list[float] = []
    found = asyncio.run(played(options.chain_kills, seconds=seconds))
    return Result(
        name="chain",
        title="The local chain, killed",
        how=f"{found.kills} games of two rounds of weights; in each the chain's process is ended at one write, before "
        "or after it is committed, and started again on its file. State: all of storage, and how often each event was.",
        figures=(
            _count("kills, each with its restart", found.restarts, wanted=options.chain_kills),
            _count("games that ended in another state than undisturbed", found.different),
            _count("weights lost", found.lost),
            _count("weights set twice", found.twice),
            Figure(subject="chain", figure="one game, with its restart", unit="s", spread=Spread.of(seconds)),
        ),
        notes=("Killed in the process's own way: its transaction ends there, and nothing of it answers again.",),
        command=f'make bench BENCH_ARGS="chain --chain-kills {options.chain_kills}"',
    )


async def played(kills: int, *, seconds: list[float]) -> Found:
    """Play until the chain was ended so often; `seconds` gets how long each game took."""
    found = Found()
    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.object(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", Path(scratch) / "symbols.json"),
    ):
        prepared = Path(scratch) / "prepared.db"
        await prepare(prepared)
        for rounds in _rounds():
            expected, writes = await _game(prepared, rounds)
            for dies_at in range(1, writes + 1):
                for committed in (False, True):
                    if found.kills == kills:
                        return found
                    begun = time.monotonic()
                    ended, _ = await _game(prepared, rounds, dies_at=dies_at, committed=committed, found=found)
                    seconds.append(time.monotonic() - begun)
                    _compare(found, expected, ended)
    raise AssertionError("unreachable: there are always other weights")


async def _game(
    prepared: Path, rounds: Rounds, *, dies_at: int = 0, committed: bool = False, found: Found | None = None
) -> tuple[dict[str, Any], int]:
    """Play one game in a folder of its own; returns how it ended, and how many writes it took."""
    with tempfile.TemporaryDirectory(dir=prepared.parent) as place:
        path = Path(shutil.copy(prepared, place))
        watched, writes = await play(path, dies_at=dies_at, committed=committed, rounds=rounds)
        ended = everything(watched.subnet.service.chain)
        await watched.subnet.stop()
        if found is not None:
            found.restarts += watched.restarts
    return ended, writes


def _rounds() -> Iterator[Rounds]:
    other = 3.0
    while True:
        yield {1: other, 2: 1.0}, {1: 1.0, 2: other}
        other += 1.0


def _compare(found: Found, expected: dict[str, Any], ended: dict[str, Any]) -> None:
    found.kills += 1
    found.different += ended != expected
    for event in (_COMMITTED, _REVEALED):
        more = ended["events"][event] - expected["events"][event]
        found.twice += max(0, more)
        found.lost += max(0, -more)


def _count(figure: str, count: int, *, wanted: int = 0) -> Figure:
    return Figure(
        subject="chain",
        figure=figure,
        unit="",
        spread=Spread.of([float(count)]),
        digits=0,
        target=str(wanted),
        met=count == wanted,
    )
