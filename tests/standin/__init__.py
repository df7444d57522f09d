"""What stands in for vLLM where a real one would be too slow.

async with StandIn(socket=tmp_path / "vllm.sock") as engine:
    adapter = write_adapter(tmp_path / "store", "dr-who")
    ...
    await engine.restart()  # it has forgotten its adapters
"""

from tests.standin.engine import ROUTES, Knobs, StandIn
from tests.standin.weights import (
    BASE,
    BASE_SEED,
    NO_EFFECT,
    NOT_FINITE,
    SPOILING,
    TOKENS,
    FakeAdapter,
    logprobs,
    seed_of,
    word,
    write_adapter,
)

__all__ = [
    "BASE",
    "BASE_SEED",
    "NOT_FINITE",
    "NO_EFFECT",
    "ROUTES",
    "SPOILING",
    "TOKENS",
    "FakeAdapter",
    "Knobs",
    "StandIn",
    "logprobs",
    "seed_of",
    "word",
    "write_adapter",
]
