"""`python -m neurons.importers --from sharegpt IN OUT`: make others' datasets into the trainer's JSONL.

Each object that is refused is named on standard error with its line; standard output has the report as JSON.
OUT appears when all of IN was read, and never half. Exit status: 0 all was imported, 1 something was refused (OUT holds
the rest), 2 IN can't be read or nothing of it could be imported (no OUT).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from neurons.arguments import filled_path
from neurons.importers.documents import NotReadable
from neurons.importers.importing import Import, import_lines
from neurons.importers.shapes import Shape

_SHOWN: Final = 1000
"""Refusals that are named one by one; all are counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m neurons.importers", description=__doc__)
    parser.add_argument("--from", dest="shape", type=Shape, choices=list(Shape), required=True, metavar="SHAPE",
                        help=f"what IN holds: {', '.join(Shape)}")  # fmt: skip
    parser.add_argument("--consent", action="store_true",
                        help="everybody whose words IN holds agreed; for lines that don't say so")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="write over OUT if it is there")
    parser.add_argument("source", type=filled_path, metavar="IN", help="JSON Lines, or one JSON list, in UTF-8")
    parser.add_argument("target", type=filled_path, metavar="OUT", help="the file of interactions to write")
    options = parser.parse_args(arguments)
    if options.target.exists() and not options.force:
        return _say(f"{options.target} is there already. Name another, or write over it with --force.")
    try:
        return _run(options)
    except NotReadable as error:
        return _say(f"{options.source}: {error}")
    except OSError as error:
        return _say(f"{error.filename or options.target} can't be read or written: {error.strerror}.")


def _run(options: argparse.Namespace) -> int:
    told = Import()
    folder = options.target.parent
    with (
        options.source.open("rb") as source,
        tempfile.NamedTemporaryFile(dir=folder, prefix=f".{options.target.name}.", delete=False) as target,
    ):
        partial = Path(target.name)
        try:
            for count, refusal in enumerate(
                import_lines(source, target, shape=options.shape, consent=options.consent, told=told), start=1
            ):
                if count <= _SHOWN:
                    _say(f"{options.source}, line {refusal.number}: refused: {refusal.why}")
                elif count == _SHOWN + 1:
                    _say("Further refusals are counted only.")
            target.flush()
            os.fsync(target.fileno())
            if told.written:
                partial.chmod(0o644)
                partial.replace(options.target)
        finally:
            partial.unlink(missing_ok=True)
    sys.stdout.write(json.dumps({
        "read": told.read, "written": told.written, "refused": dict(sorted(told.refused.items())),
        "repaired": dict(sorted(told.repaired.items())), "leftAway": dict(sorted(told.left_away.items())),
    }) + "\n")  # fmt: skip
    if not told.written:
        return _say(f"{options.source}: nothing could be imported.")
    return 1 if told.refused else 0


def _say(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
