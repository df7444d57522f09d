"""`python -m neurons.models fetch`: the engine pod's first container. Prints one line of JSON when the model is ready.

A failure goes to standard error and to /dev/termination-log, so that `kubectl describe pod` shows it. Exit status: 0
ready, 1 failed (the kubelet tries again), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from neurons.arguments import filled, filled_path
from neurons.models.cache import link
from neurons.models.fetch import fetch_model
from neurons.store import StoreError
from neurons.store.errors import translated
from neurons.store.model_record import write_measured

TERMINATION_LOG: Final = Path("/dev/termination-log")


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        result = asyncio.run(_fetch(options))
    except StoreError as error:
        text = f"{error.reason}: {error}"
        sys.stderr.write(text + "\n")
        if termination_log.exists():
            termination_log.write_text(text[:4096])
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


async def _fetch(options: argparse.Namespace) -> dict[str, object]:
    root: Path = options.cache or options.dest
    at: Path = options.link or options.dest / "current"
    fetched = await fetch_model(
        uri=options.uri, name=options.name, revision=options.revision or None, root=root,
        shared=options.cache is not None, at_most=options.at_most, pool=options.pool,
    )  # fmt: skip
    with translated(doing="linking the model", uri=str(at)):
        write_measured(None, at)
        link(fetched.folder, at)
        write_measured(fetched.record, at)
    return {
        "path": str(fetched.folder),
        "link": str(at),
        "origin": fetched.origin,
        "digest": fetched.digest,
        "bytes": fetched.size,
        "seconds": round(fetched.seconds, 2),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m neurons.models", description="Make a base model available.")
    fetch = parser.add_subparsers(dest="command", required=True).add_parser("fetch", help="fetch, verify and link it")
    fetch.add_argument("--uri", required=True, type=filled, help="hf://, s3://, gs://, az://, pvc:// or file://")
    fetch.add_argument("--name", required=True, type=filled, help="the pool's baseModel.name")
    fetch.add_argument(
        "--revision", type=filled, help="a revision of the hub, or sha256:… (the digest the model must have)"
    )
    fetch.add_argument("--dest", type=filled_path, default=Path(names.MODELS_DIR), help="a folder of this pod's own")
    fetch.add_argument(
        "--cache", type=filled_path, help="a folder that pods share, to keep models in instead of --dest"
    )
    fetch.add_argument(
        "--at-most",
        type=int,
        default=os.environ.get("POD_MODEL_BYTES") or None,
        help="bytes that all models in the folder may take [POD_MODEL_BYTES] (default: what the disk has)",
    )
    fetch.add_argument(
        "--pool", default=os.environ.get("POD_POOL", ""), help="who fetches, as namespace/name [POD_POOL]"
    )
    fetch.add_argument("--link", type=filled_path, help="where the engine looks for the model (default: DEST/current)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
