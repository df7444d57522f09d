"""The engine as a process: vLLM with the arguments that the operator gives it, or the stand-in."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp

from bettertherapy_api.miner_pool import EngineTuning
from tests.bench.results import ROOT
from twin_operator.domain.objects import Pool, pool_from
from twin_operator.domain.tuning import Engines, Memory, Needs, decide
from twin_operator.kinds.miner_pool.engine_deployment import build_engine_deployment
from twin_operator.settings import Images

POOL: Final = "gpu"
NAMESPACE: Final = "clinic"
GPU_ARGUMENTS: Final = ("--attention-backend=FLASH_ATTN", "--gpu-memory-utilization=0.3")
"""What a user would write into spec.engine.args for this machine."""
GPU_ENVIRONMENT: Final = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
_POLL_SECONDS: Final = 0.02


class EngineError(Exception):
    """The engine ended, or doesn't answer in time."""


@dataclass(frozen=True)
class Command:
    """How an engine is started."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def pool_of(
    *, base: str, model: Path, engine_arguments: Sequence[str], max_loras: int | None = None,
    lora_targets: str = "AllLinear",
) -> Pool:  # fmt: skip
    """Return the MinerPool that a user would write for one GPU."""
    slots = {} if max_loras is None else {"maxLoras": max_loras}
    pool = pool_from(
        {
            "metadata": {"name": POOL, "namespace": NAMESPACE, "uid": "uid-gpu", "generation": 1},
            "spec": {
                "baseModel": {"name": base, "uri": model.resolve().as_uri()},
                "engine": {
                    "device": "GPU",
                    "maxModelLength": 2048,
                    "args": list(engine_arguments),
                    "loraTargets": lora_targets,
                    **slots,
                },
                "drainSeconds": 30,
            },
        }
    )
    if not isinstance(pool, Pool):
        raise TypeError(pool)
    return pool


def vllm_command(
    pool: Pool, *, socket: Path, held: int, environment: Mapping[str, str] = MappingProxyType({}),
    tuning: EngineTuning | None = None,
) -> Command:  # fmt: skip
    """Return the engine container's command, arguments and environment, with another place for the socket.

    `held` is how many adapters the pod will hold, of as many twins: the operator decides by it how the engine is
    started for them, unless `tuning` says so.
    """
    tuning = tuning or tuning_of(pool, Needs(adapters=held, twins=held))
    deployment = build_engine_deployment(pool, Images(), tuning=tuning)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    arguments = [f"--uds={socket}" if a.startswith("--uds=") else a for a in container["args"]]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    return Command((sys.executable, *container["command"][1:], *arguments), {**given, **GPU_ENVIRONMENT, **environment})


def tuning_of(pool: Pool, needs: Needs) -> EngineTuning:
    """Return how the operator starts a new engine of the pool that must hold this."""
    made = decide(pool.spec.engine, needs, Engines(running=None), Memory(), generation=1, now=datetime.now(UTC))
    return made.tuning


def standin_command(pool: Pool, *, socket: Path) -> Command:
    """Return the stand-in's command."""
    arguments = (
        f"--uds={socket}", f"--served-model-name={pool.spec.base_model.name}", f"--max-loras={pool.max_loras}",
        "--token-seconds=0.002",
    )  # fmt: skip
    return Command((sys.executable, "-m", "tests.standin", *arguments), {})


class Engine:
    """One engine process after another on one socket. Use as `async with Engine(...)`, which ends what runs."""

    def __init__(self, command: Command, *, socket: Path, log: Path) -> None:
        self.socket = socket
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    async def start(self, *, seconds: float) -> float:
        """Start it and wait for its first answer; return how long that took."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            log.write(f"--- {' '.join(self._command.arguments)}\n".encode())
            log.flush()
            self._process = await asyncio.to_thread(
                subprocess.Popen, self._command.arguments, cwd=ROOT, env={**os.environ, **self._command.environment},
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        connector = aiohttp.UnixConnector(str(self.socket))
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while time.monotonic() - began < seconds:
                if not self.runs:
                    raise EngineError(f"the engine ended by itself: {self._last_words()}")
                try:
                    async with session.get("http://engine/v1/models") as response:
                        if response.status == 200:
                            return time.monotonic() - began
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass
                await asyncio.sleep(_POLL_SECONDS)
        raise EngineError(f"no answer within {seconds:.0f} s: {self._last_words()}")

    def kill(self) -> None:
        """Kill it with all its processes, as the end of its container would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-600:]
