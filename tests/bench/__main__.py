"""`python -m tests.bench [NAME ...] [--repeats N] [--seconds S] [--skip PART] [--document]`."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from tests.bench.registry import MODULES, BenchmarkError, Options, load
from tests.bench.results import DOCUMENT, load_results, write_document


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or all; one that can't run doesn't stop the others."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(MODULES)}; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="times each figure is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one stretch of load (%(default)s)")
    parser.add_argument("--skip", action="append", default=[], metavar="PART", help="leave out a part, e.g. litellm")
    parser.add_argument("--document", action="store_true", help="write docs/benchmarks.md from all results so far")
    given = parser.parse_args(arguments)
    console = Console()
    options = Options(repeats=given.repeats, seconds=given.seconds, skip=frozenset(given.skip))
    failed = False
    for name in given.names or list(MODULES):
        try:
            result = load(name).measure(options)
        except BenchmarkError as error:
            console.print(f"[red]{name}: {error}[/]")
            failed = True
            continue
        result.show(console)
        console.print(f"written to {result.write()}")
    if given.document:
        write_document(load_results())
        console.print(f"written to {DOCUMENT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
