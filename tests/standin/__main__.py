"""`python -m tests.standin --uds PATH | --port N`: the stand-in as a process, ended by SIGTERM like vLLM."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from tests.standin.engine import StandIn


async def serve(args: argparse.Namespace) -> None:
    """Serve until SIGTERM; SIGUSR1 wedges, SIGUSR2 frees."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine = StandIn(
        socket=args.uds,
        port=args.port,
        host=args.host,
        max_loras=args.max_loras,
        max_lora_rank=args.max_lora_rank,
        base=args.served_model_name,
        token_seconds=args.token_seconds,
    )
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, engine.wedge)
    loop.add_signal_handler(signal.SIGUSR2, engine.unwedge)
    await engine.start()
    await stop.wait()
    await engine.stop(shutdown_timeout=args.shutdown_timeout)


def main() -> None:
    """Read the arguments, named as vLLM's where they mean the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.standin", description=__doc__)
    parser.add_argument("--uds", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name", default="base-model")
    parser.add_argument("--max-loras", type=int, default=4)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--shutdown-timeout", type=float, default=0.0)
    parser.add_argument("--token-seconds", type=float, default=0.0)
    asyncio.run(serve(parser.parse_args()))


main()
