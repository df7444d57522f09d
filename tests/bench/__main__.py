"""`python -m tests.bench [NAME ...] [OPTIONS]`: measure, print the tables, keep the figures in build/bench.

proxy             what the miner costs over an instant engine, by token and by signed requests, beside LiteLLM; parts:
                  litellm, streams, wire, redis
gateway           what the validator's gateway costs over three instant miners, beside LiteLLM and a bare fan-out;
                  parts: litellm, ledger, privacy
gateway_kills     what is lost or doubled while gateway, miners and ledger are killed at random; part: privacy
fairness          how long others wait beside a twin that floods, through a miner, on a stand-in engine that batches
hostile           memory of a miner under hostile load, and how long others wait beside it
fuzz              requests by chance to every HTTP door: what fails, what hangs
swap              from a twin's new spec to its new version verified everywhere, on the demo's real engine
first_answer      from a twin's new spec to the first answer by its new weights, on stand-in engines
heal              from a restarted engine's first answer to all of its adapters verified, on the demo's real engine
swaps_under_load  requests that fail while a twin's adapter is swapped again and again; parts: standin, vllm
control_plane     the operator with ten thousand twins
robustness        the operator killed after every write, each property changed there and back
operator          writes and memory of an operator that has nothing to do
promotion         a new version takes over, or is taken back, under load; parts: standin, vllm
scaling           a pool that grows, shrinks, sleeps and wakes by its load; parts: simulated, live
nightly           a thousand fine-tunes due in one night, with the operator killed again and again
training          what of a trainer's time is no training, from the demo's last run
wire              what a validator's signature and an answer's receipt cost a miner
best_of           the best of several candidates against one: correctness and latency, on an engine that you name
judging           how often the gate and the canary are wrong, simulated
credit            how often miners of one task are credited, by place and by what they did, simulated
placement         how full pods are, what moves, and what tokens/s follow from a table, simulated
degraded          how soon slow engine pods and twins out of their usual are found, how often for nothing, simulated
deidentification  what is found and what passes, per class and language, and what a message costs
sources           the right text among the first ten by BM25 on public files, and what a search takes
safety_answers    how well phrases tell acceptable answers to safety items from others
taught_answers    whether likelihood tells versions that were taught such answers; needs torch (see there)
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from types import FrameType

from rich.console import Console
from rich.markup import escape

from tests.bench.document import DOCUMENT, write_document
from tests.bench.registry import ELSEWHERE, MODULES, BenchmarkError, Options, load
from tests.bench.results import describe_machine, load_results


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or all; one that can't run doesn't stop the others."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole, seconds = int, float
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(MODULES)}; all by default")
    for flag, kind, text in (
        ("--repeats", whole, "proxy, gateway: times each figure is measured; best_of: times each question is asked"),
        (
            "--seconds",
            seconds,
            "proxy, gateway, fairness (a quarter): length of one stretch of load (of signed requests 5 at most)",
        ),
        ("--real-swaps", whole, "swap: how many"),
        ("--restarts", whole, "heal: how many"),
        ("--swaps", whole, "swaps_under_load: how many on the stand-in engine"),
        ("--real-swaps-under-load", whole, "swaps_under_load: how many on the real engine"),
        ("--twins", whole, "operator: how many"),
        ("--idle-seconds", seconds, "operator: how long it is watched with nothing to do"),
        ("--many-twins", whole, "control_plane: how many"),
        ("--many-pools", whole, "control_plane: over how many pools"),
        ("--soak-changes", whole, "control_plane: changes between two looks at its memory"),
        ("--promotions", whole, "promotion: how many, and as many rollbacks, on the stand-in engine"),
        ("--real-promotions", whole, "promotion: how many, and as many rollbacks, on the real engine"),
        ("--night-twins", whole, "nightly: how many"),
        ("--night-kills", whole, "nightly: how often the operator is killed"),
        ("--night-window-seconds", whole, "nightly: over how long the fine-tunes are spread"),
        ("--kill-seconds", seconds, "gateway_kills: for how long"),
        ("--chain-kills", whole, "chain: how often the local chain is killed"),
        ("--hostile-seconds", seconds, "hostile: for how long a miner is attacked"),
        ("--fuzz-requests", whole, "fuzz: how many, to all doors together"),
        ("--notes", whole, "deidentification: how many notes"),
        ("--seeds", whole, "degraded: how many"),
        ("--judge", str, "claims: address of a judge, e.g. http://gpu:8000/v1"),
        ("--judge-model", str, "claims: its model"),
    ):
        name = flag.removeprefix("--").replace("-", "_")
        parser.add_argument(flag, type=kind, default=getattr(Options, name), help=f"{text} (%(default)s)")
    parser.add_argument("--skip", action="append", default=[], metavar="PART", help="leave out a part, e.g. litellm")
    parser.add_argument("--document", action="store_true", help="write docs/benchmarks.md from all results so far")
    parser.add_argument("--document-only", action="store_true", help="write it and measure nothing")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    console = Console(emoji=False)
    chosen = {each.name: getattr(given, each.name) for each in dataclasses.fields(Options)}
    options = Options(**chosen | {"skip": frozenset(given.skip)})
    failed = False
    for name in () if given.document_only else given.names or list(MODULES):
        machine = describe_machine()  # how busy it was before there was anything of ours to do
        try:
            result = load(name).measure(options)
        except BenchmarkError as error:
            console.print(f"[red]{name}: {escape(str(error))}[/]", highlight=False)
            failed = True
            continue
        result = dataclasses.replace(result, command=_command(name, options), machine=machine)
        result.show(console)
        console.print(f"written to {result.write()}")
    if given.document or given.document_only:
        write_document(load_results([*MODULES, *ELSEWHERE]))
        console.print(f"written to {DOCUMENT}")
    return 1 if failed else 0


def _leave(number: int, frame: FrameType | None) -> None:
    """End as by an error, so that clusters and processes are taken down."""
    sys.exit(128 + number)


def _command(name: str, options: Options) -> str:
    """Return the command that measures the same again: the benchmark's name, and what differs from the defaults."""
    parts = [name]
    for each in dataclasses.fields(Options):
        value = getattr(options, each.name)
        if each.name == "skip":
            parts += [f"--skip {part}" for part in sorted(value)]
        elif value != each.default:
            parts.append(f"--{each.name.replace('_', '-')} {value:g}")
    return f"make bench BENCH_ARGS='{' '.join(parts)}'"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
