"""What a pool's own arguments say of its engines: of several of one flag the last counts, as argparse has it.

What vLLM makes of a flag that nobody sets depends on the card: 1,024 requests at once on cards of 70 GiB and more that
are no A100, else 256, on CPUs 128 for each process, and no more than tokens in a batch (0.32, `arg_utils.py`). None of
its metrics tells. So engines are told what miners count with (`engine_arguments`), and nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Final

from bettertherapy_api.miner_pool import Engine

SEQUENCES: Final = "--max-num-seqs"
AT_HAND: Final = "--max-cpu-loras"
RUNNING_BY_DEFAULT: Final = {"GPU": 256, "CPU": 128}
"""Requests that an engine runs at once where its arguments say nothing."""
_BATCHED_TOKENS: Final = "--max-num-batched-tokens"
_ACTIVE: Final = "--max-num-active-seqs"
_COPIES: Final = "--data-parallel-size"
_NUMBER: Final = re.compile(r"[1-9]\d{0,8}")


def is_set(engine: Engine, flag: str) -> bool:
    """Tell whether the pool's own arguments have a flag."""
    return any(_name(argument) == flag for argument in engine.args or ())


def number(engine: Engine, flag: str) -> int | None:
    """Return what a flag is set to; None where it isn't, or to no number above 0."""
    found = [argument.partition("=")[2] for argument in engine.args or () if _name(argument) == flag]
    return int(found[-1]) if found and _NUMBER.fullmatch(found[-1]) else None


def sequences(engine: Engine) -> int:
    """Return how many requests the engine runs at once, each copy of its model by itself."""
    room = number(engine, SEQUENCES) or _room(engine)
    return min(room, number(engine, _ACTIVE) or room)


def stated(engine: Engine) -> int | None:
    """Return the `--max-num-seqs` that engines are started with where the pool's own arguments leave it open.

    None where it is theirs, or hangs on a number that is written in a way of vLLM's own (`2k`).
    """
    unread = is_set(engine, _BATCHED_TOKENS) and number(engine, _BATCHED_TOKENS) is None
    return None if is_set(engine, SEQUENCES) or unread else _room(engine)


def copies(engine: Engine) -> int:
    """Return how many copies of the model the engine has; each runs as many requests."""
    return number(engine, _COPIES) or 1


def _room(engine: Engine) -> int:
    """Return for how many requests there is room where nobody says: vLLM refuses fewer than it is to run, and more than
    tokens in a batch.
    """
    room = max(RUNNING_BY_DEFAULT[engine.device], number(engine, _ACTIVE) or 0)
    return min(room, number(engine, _BATCHED_TOKENS) or room)


def _name(argument: str) -> str:
    return argument.partition("=")[0].replace("_", "-")
