"""All benchmarks by name. A new one is a module with `measure(options) -> Result` and a line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final, Protocol, cast

from tests.bench.results import Result


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every benchmark is told."""

    repeats: int = 3
    seconds: float = 5.0
    """Length of one timed stretch of load."""
    swaps: int = 1000
    """Adapter swaps under load on the stand-in engine."""
    real_swaps: int = 20
    """Adapter swaps on the real engine, each timed."""
    real_swaps_under_load: int = 30
    restarts: int = 3
    """Restarts of the real engine."""
    twins: int = 200
    idle_seconds: float = 600.0
    """How long an operator with nothing to do is watched."""
    promotions: int = 50
    """Promotions, and as many rollbacks, on the stand-in engine."""
    real_promotions: int = 5
    """Promotions, and as many rollbacks, on the real engine."""
    night_twins: int = 1000
    night_kills: int = 10
    """How often the operator is killed in the night."""
    night_window_seconds: int = 180
    """Over how long the night's fine-tunes are spread."""
    many_twins: int = 10_000
    many_pools: int = 10
    """Twins and pools of the operator that is measured with many."""
    soak_changes: int = 5000
    """Changes of versions between two looks at its memory."""
    notes: int = 2000
    """Notes that de-identification is measured on."""
    kill_seconds: float = 600.0
    """How long gateway, miners and ledger are killed at random."""
    chain_kills: int = 1000
    """How often the local chain's process is ended."""
    hostile_seconds: float = 120.0
    """How long a miner is attacked."""
    fuzz_requests: int = 10_000
    """Requests by chance to all HTTP doors together."""
    seeds: int = 10
    """Of the pools and twins that are simulated to be found slow."""
    judge: str = ""
    """Address of a judge, OpenAI-compatible, for the claims against their sources; none by default."""
    judge_model: str = ""
    skip: frozenset[str] = frozenset()
    """Parts to leave out, by the names that the benchmark gives them."""


class Benchmark(Protocol):
    """A module of this package."""

    def measure(self, options: Options) -> Result:
        """Measure; raises BenchmarkError with what to do when something needed is missing."""


class BenchmarkError(Exception):
    """It can't be measured here; the message says what to do."""


MODULES: Final[dict[str, str]] = {
    "proxy": "tests.bench.proxy",
    "fairness": "tests.bench.fairness",
    "hostile": "tests.bench.hostile",
    "fuzz": "tests.bench.fuzz",
    "swap": "tests.bench.swap",
    "first_answer": "tests.bench.first_answer",
    "heal": "tests.bench.heal",
    "swaps_under_load": "tests.bench.swaps_under_load",
    "operator": "tests.bench.idle_operator",
    "control_plane": "tests.bench.control_plane",
    "robustness": "tests.bench.robustness",
    "promotion": "tests.bench.promotion",
    "scaling": "tests.bench.scaling",
    "nightly": "tests.bench.nightly",
    "training": "tests.bench.training_time",
    "wire": "tests.bench.wire",
    "chain": "tests.bench.chain",
    "best_of": "tests.bench.best_of",
    "emergency": "tests.bench.emergency",
    "judging": "tests.bench.judging",
    "credit": "tests.bench.credit",
    "placement": "tests.bench.placement",
    "degraded": "tests.bench.degraded",
    "rounds": "tests.bench.rounds",
    "round": "tests.bench.round",
    "gateway": "tests.bench.gateway",
    "gateway_kills": "tests.bench.gateway_kills",
    "deidentification": "tests.bench.deidentification",
    "sources": "tests.bench.sources",
    "claims": "tests.bench.claims",
    "safety_answers": "tests.bench.safety_answers",
    "taught_answers": "tests.bench.taught_answers",
}

ELSEWHERE: Final = (
    "gpu-serving", "gpu-changes", "gpu-bad", "gpu-bad-unchecked", "gpu-kills", "gpu-kernels", "gpu-training",
    "gpu-together",
    "gpu-tuning-attention", "gpu-tuning-alllinear",
)  # fmt: skip
"""Measured on a GPU machine (tests/gpu, tests/bench/gpu, tests/bench/training.py); their results are put into
build/bench by hand."""


def load(name: str) -> Benchmark:
    """Return the benchmark of that name; raises BenchmarkError for another."""
    if name not in MODULES:
        raise BenchmarkError(f"there is no benchmark {name!r}; there are: {', '.join(MODULES)}")
    return cast(Benchmark, importlib.import_module(MODULES[name]))
