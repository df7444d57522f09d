"""`python -m tests.gpu.serving --model DIR --adapters DIR --out DIR`, or `--standin --out DIR`.

Starts vLLM, agent and miner, runs the parts in their order, and writes <out>/gpu-serving.json after each. Logs of the
three processes lie beside it. Exits 0 when all parts ran and no target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.results import Figure, Spread
from tests.gpu.adapters import read_trained, stand_ins
from tests.gpu.engine import GPU_ARGUMENTS, Engine, pool_of, standin_command, vllm_command
from tests.gpu.outcome import Outcome, describe_gpu, say
from tests.gpu.parts import FAILURES, PARTS, Stage
from tests.gpu.plane import Plane

_LAST_SECONDS: Final = 10.0
"""Kept back from the time limit to end processes and print."""


async def _measure(args: argparse.Namespace, outcome: Outcome, folder: Path, deadline: float) -> None:
    trained = stand_ins(folder / "trained") if args.standin else read_trained(args.adapters)
    model = folder if args.standin else args.model
    pool = pool_of(
        base=trained[0].manifest.base_model.name, model=model, engine_arguments=[*GPU_ARGUMENTS, *args.engine_arg]
    )
    run = folder / "run"
    run.mkdir()
    socket = run / "vllm.sock"
    if args.standin:
        command = standin_command(pool, socket=socket)
    else:
        command = vllm_command(pool, socket=socket, held=len(trained))
    async with (
        Engine(command, socket=socket, log=args.out / "engine.log") as engine,
        Plane(folder, pool=pool, sockets=[socket], logs=args.out) as plane,
    ):
        stage = Stage(
            engine=engine, plane=plane, trained=trained, store=folder / "store", deadline=deadline,
            start_seconds=args.start_seconds, swaps=args.swaps, loaded_swaps=args.loaded_swaps, clients=args.clients,
            in_flight=args.in_flight, requests=args.requests, tokens=args.tokens, rounds=args.rounds,
            heals=args.heals, notes=outcome.notes,
        )  # fmt: skip
        started = await stage.begin()
        outcome.figures.append(
            Figure(subject="engine", figure="start to its first answer", unit="s", digits=1,
                   spread=Spread.of([started]))
        )  # fmt: skip
        outcome.write()
        while args.hold is not None and args.hold.exists() and stage.left() > 0:
            await asyncio.sleep(0.5)
        for name in args.parts:
            await _run_part(name, stage, outcome)


async def _run_part(name: str, stage: Stage, outcome: Outcome) -> None:
    """Run one part; what goes wrong in it becomes a note, and the next one begins afresh."""
    part, limit = PARTS[name]
    began = time.monotonic()
    try:
        async with asyncio.timeout(min(limit, stage.left())):
            if name != "verify":  # which looks at the first loading itself
                await stage.ready()
            async for figure in part(stage):
                outcome.figures.append(figure)
    except FAILURES as error:
        outcome.complete = False
        outcome.notes.append(f"part {name} failed: {type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a defect in one part must not lose the others' figures
        outcome.complete = False
        outcome.notes.append(f"part {name} failed: {error!r}")
        traceback.print_exc()
    say(f"{name}: {time.monotonic() - began:.0f} s, {stage.left():.0f} s left")
    outcome.write()


def _how(args: argparse.Namespace) -> str:
    engine = "the stand-in" if args.standin else "vLLM with the operator's own arguments, SmolLM2-135M in bfloat16"
    return (
        f"One pod without Kubernetes: {engine}; agent and miner each a process of its own, slices and reports "
        f"as files. {args.in_flight} in flight: {args.requests} answers of {args.tokens} tokens a round."
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.serving", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of the base model")
    parser.add_argument("--adapters", type=Path, help="folder of trained adapters, each with its note")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    parser.add_argument("--standin", action="store_true", help="no GPU: try the script with the stand-in")
    parser.add_argument("--name", default="gpu-serving", help="of the result (%(default)s)")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--limit-seconds", type=float, default=560.0, help="for everything (%(default)s)")
    parser.add_argument("--start-seconds", type=float, default=240.0, help="longest engine start (%(default)s)")
    parser.add_argument("--hold", type=Path, help="once the engine is up, wait until this file is gone")
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--loaded-swaps", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heals", type=int, default=3)
    parser.add_argument("--engine-arg", action="append", default=[], help="one more argument for vLLM; repeat it")
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")
    if not args.standin and not (args.model and args.adapters):
        parser.error("--model and --adapters are needed, or --standin")
    return args


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit status."""
    args = _arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + args.limit_seconds - _LAST_SECONDS
    outcome = Outcome(
        args.out, args.name, "Serving twins on a GPU: agent and miner before the real vLLM", _how(args),
        "python3 -m tests.gpu.serving --model DIR --adapters DIR --out DIR", describe_gpu(standin=args.standin),
    )  # fmt: skip
    outcome.write()
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        try:
            uvloop.run(_measure(args, outcome, Path(name), deadline))
        except FAILURES as error:
            outcome.complete = False
            outcome.notes.append(f"{type(error).__name__}: {error}")
        finally:
            outcome.write()
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
