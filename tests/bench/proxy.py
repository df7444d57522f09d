"""What the miner costs over an instant engine, by a token and on the signed wire, beside no proxy, a bare aiohttp
pass-through and LiteLLM's proxy.

`python -m tests.bench.proxy`, or as one of `python -m tests.bench`. Each subject is one process; all are up during the
whole run, and the repeats go round all subjects, so that a noisy minute of the machine hits all alike.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, PodRef, PodReport
from bettertherapy_api.routing import BaseModelRef, PodEntry, PoolHeader, RoutingSlice, TwinEntry, Version
from tests.bench import litellm, processes, versions, wrk
from tests.bench.doors import Door, TokenDoor
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread
from tests.bench.servers.instant import DIGEST, SERVED
from tests.bench.wired import Wired, is_proven

TOKEN: Final = "bench-token-0123456789"
BODY: Final = json.dumps(
    {"model": "indra", "messages": [{"role": "user", "content": "My head has ached since this morning. What now?"}]}
)
STREAM_BODY: Final = json.dumps(json.loads(BODY) | {"stream": True})
SAYS: Final = "Drink water and rest."
LITELLM: Final = "LiteLLM proxy"
BY_TOKEN: Final = "miner"
RECEIPTS: Final = "miner with a hotkey, by token"
SIGNED: Final = "miner with a hotkey, by signature"
SHARED: Final = "miner with a hotkey, by signature, nonces in Redis"
WIRED: Final = (RECEIPTS, SIGNED, SHARED)
START_SECONDS: Final = 300.0
WARM_UP_SECONDS: Final = 3.0
TARGET_ADDED_MS: Final = 0.28
TARGETS_PER_SECOND: Final = {BY_TOKEN: 5500.0, SIGNED: 2000.0}
TARGET_PERCENT_OF_BEARER: Final = 70.0
FIRST_PER_SECOND: Final = 8000.0
"""So many signed requests are made ready for each second, at least."""


@dataclass
class _Subject:
    name: str
    url: str
    door: Door
    process: subprocess.Popen[bytes]
    log: Path
    failed: int = 0
    latest_per_second: float = FIRST_PER_SECOND
    one: list[wrk.Load] = field(default_factory=list)
    fifty: list[wrk.Load] = field(default_factory=list)
    streams: list[wrk.Load] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the process per request, 50 in flight: what a crowded machine can't distort as much."""


def measure(options: Options) -> Result:
    """Measure all subjects; skip parts: litellm, streams, wire, redis."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bare = _start(stack, folder, "none", engine="")
        others = [which for which in ("passthrough", "miner", "litellm") if which not in options.skip]
        subjects = [bare, *(_start(stack, folder, which, engine=bare.url) for which in others)]
        if "wire" not in options.skip:
            subjects += _wired(stack, folder, engine=bare.url, shared="redis" not in options.skip)
        bearer = _named(BY_TOKEN, subjects)
        for number in range(options.repeats + 1):
            for subject in subjects:
                # Never less: by token it may just have been slow, as something else ran.
                most = max(FIRST_PER_SECOND, 0.0 if bearer is None else 1.5 * bearer.latest_per_second)
                _round(subject, options, folder=folder, keep=number > 0, most=most)  # the first round warms up
    return Result(
        name="proxy",
        title="What the miner costs over an instant engine",
        how=(
            "wrk -t1 against an engine that answers at once, one process each, all in one run, "
            f"{options.repeats} rounds of {options.seconds:.0f} s per figure after a warm-up; the miner with its "
            "tokens, table, affinity, metrics and answer rewriting on. A miner with a hotkey signs a receipt of each "
            "answer, whoever asks; by signature each request is signed by itself, before the load begins, and its "
            "nonce remembered in memory, or by a Redis server on the same machine."
        ),
        figures=tuple(_figures(subjects)),
        notes=tuple(
            f"LiteLLM {versions.litellm()}, one worker, one key; {subject.failed} of its requests failed."
            for subject in subjects
            if subject.name == LITELLM
        ),
        versions=versions.of_python() | ({"LiteLLM": versions.litellm()} if "litellm" in others else {}),
    )


def _round(subject: _Subject, options: Options, *, folder: Path, keep: bool, most: float) -> None:
    seconds = options.seconds if keep else WARM_UP_SECONDS

    def load(body: str, in_flight: int) -> wrk.Load:
        url = f"{subject.url}/v1/chat/completions"
        try:
            done = wrk.run(
                url, body=body, door=subject.door, in_flight=in_flight, seconds=seconds, folder=folder,
                at_most_per_second=most,
            )  # fmt: skip
        except BenchmarkError as error:
            raise BenchmarkError(f"{subject.name}: {error} ({_state(subject)})") from error
        if done.failed and subject.name != LITELLM:
            raise BenchmarkError(f"{done.failed} of {done.requests} requests to the {subject.name} failed")
        subject.failed += done.failed
        return done

    one = load(BODY, 1)
    before = processes.cpu_ms(subject.process.pid)
    fifty = load(BODY, 50)
    spent = processes.cpu_ms(subject.process.pid) - before
    subject.latest_per_second = fifty.per_second
    streams = None if "streams" in options.skip else load(STREAM_BODY, 50)
    if keep:
        subject.one.append(one)
        subject.fifty.append(fifty)
        subject.cpu_ms.append(spent / fifty.requests)
        if streams is not None:
            subject.streams.append(streams)


def _figures(subjects: Sequence[_Subject]) -> Iterator[Figure]:
    bare = subjects[0]
    for subject in subjects:
        ours = subject.name == BY_TOKEN
        yield Figure(
            subject=subject.name, figure="1 in flight: p50", unit="ms", digits=3,
            spread=Spread.of([load.p50 for load in subject.one]),
        )  # fmt: skip
        if subject is not bare:
            # Against the same round's engine without a proxy: noise that lasts longer than a round cancels out.
            added = Spread.of([load.p50 - none.p50 for load, none in zip(subject.one, bare.one, strict=True)])
            yield Figure(
                subject=subject.name, figure="1 in flight: p50 added", unit="ms", digits=3, spread=added,
                target="≤ 0.28 ms" if ours else None, met=added.median <= TARGET_ADDED_MS if ours else None,
            )  # fmt: skip
        rate, wanted = Spread.of([load.per_second for load in subject.fifty]), TARGETS_PER_SECOND.get(subject.name)
        yield Figure(
            subject=subject.name, figure="50 in flight: requests/s", unit="/s", digits=0, spread=rate,
            target=f"≥ {wanted:,.0f}/s" if wanted else None, met=rate.median >= wanted if wanted else None,
        )  # fmt: skip
        if subject.name in WIRED:
            for other in (RECEIPTS, BY_TOKEN):
                beside = _named(other, subjects)
                if beside is not None and beside is not subject:
                    yield _share(subject, beside)
        for figure, values in (
            ("50 in flight: p50", [load.p50 for load in subject.fifty]),
            ("50 in flight: p99", [load.p99 for load in subject.fifty]),
        ):
            yield Figure(subject=subject.name, figure=figure, unit="ms", digits=1, spread=Spread.of(values))
        yield Figure(
            subject=subject.name, figure="50 in flight: processor time per request", unit="ms", digits=3,
            spread=Spread.of(subject.cpu_ms),
        )  # fmt: skip
        if subject.streams:
            yield Figure(
                subject=subject.name, figure="50 streams of 9 events in flight: streams/s", unit="/s", digits=0,
                spread=Spread.of([load.per_second for load in subject.streams]),
            )  # fmt: skip


def _start(stack: contextlib.ExitStack, folder: Path, which: str, *, engine: str) -> _Subject:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    match which:
        case "none":
            command = [sys.executable, "-m", "tests.bench.servers.instant", str(port)]
            name, token = "no proxy", TOKEN
        case "passthrough":
            command = [sys.executable, "-m", "tests.bench.servers.passthrough", str(port), engine]
            name, token = "bare aiohttp pass-through", TOKEN
        case "miner":
            write_tables(folder, engine=engine)
            command = miner_command(folder, port=port)
            name, token = BY_TOKEN, TOKEN
        case _:
            binaries = litellm.install()
            command = litellm.command(binaries, port=port, upstream=engine, served=SERVED, folder=folder)
            name, token = LITELLM, litellm.KEY
    log = folder / f"{which}.log"
    subject = _Subject(name, url, TokenDoor(token), stack.enter_context(processes.running(command, log)), log)
    _wait(subject)
    return subject


def _wired(stack: contextlib.ExitStack, folder: Path, *, engine: str, shared: bool) -> list[_Subject]:
    """Start a miner with a hotkey, asked by token and by signature, and one that shares its nonces."""
    write_tables(folder, engine=engine)
    wired = Wired(folder)
    started: list[_Subject] = []

    def start(options: Sequence[str], doors: Mapping[str, Door], environment: Mapping[str, str] | None = None) -> None:
        port, log = processes.free_port(), folder / f"wired-{len(started)}.log"
        command = [*miner_command(folder, port=port), *options]
        process = stack.enter_context(processes.running(command, log, environment=environment))
        for name, door in doors.items():
            subject = _Subject(name, f"http://127.0.0.1:{port}", door, process, log)
            _wait(subject)
            started.append(subject)

    start(wired.options, {RECEIPTS: TokenDoor(TOKEN), SIGNED: wired.door})
    if shared:
        store = stack.enter_context(wired.nonce_store())
        start([*wired.options, "--replicas", "2"], {SHARED: wired.door}, {"NONCE_STORE_URL": store})
    return started


def _named(name: str, subjects: Sequence[_Subject]) -> _Subject | None:
    return next((subject for subject in subjects if subject.name == name), None)


def _share(subject: _Subject, beside: _Subject) -> Figure:
    """Return how much of a rate by token is left: of one that signs receipts, and of one that signs nothing."""
    rates = zip(subject.fifty, beside.fifty, strict=True)
    spread = Spread.of([100 * own.per_second / its.per_second for own, its in rates])
    whose = (
        "the same miner's by token" if beside.name == RECEIPTS else "a miner's without a hotkey, which signs nothing"
    )
    is_target = subject.name == SIGNED and beside.name == RECEIPTS
    return Figure(
        subject=subject.name, figure=f"50 in flight: requests/s, of {whose}", unit="%",
        digits=0, spread=spread, target=f"≥ {TARGET_PERCENT_OF_BEARER:.0f} %" if is_target else None,
        met=spread.median >= TARGET_PERCENT_OF_BEARER if is_target else None,
    )  # fmt: skip


def miner_command(folder: Path, *, port: int) -> list[str]:
    """Return how a miner is started that these tables tell of one twin."""
    return [sys.executable, "-m", "neurons.miner", "--pool", "bench", "--host", "127.0.0.1", "--port", str(port),
            "--metrics-port", "0", "--access-dir", str(folder / "access"), "--tables-dir", str(folder / "tables"),
            "--drain-delay", "0"]  # fmt: skip


def write_tables(folder: Path, *, engine: str, more: Sequence[str] = (), running: int | None = None) -> None:
    """Write what all miners are told of tokens, twins and pods, unless it is there.

    `more`: names of twins beside the one; `running`: requests that the engine runs at once.
    """
    access, tables = folder / "access", folder / "tables"
    if access.exists():
        return
    access.mkdir()
    (access / "bench").write_text(TOKEN)
    prompt = "You are the twin of Dr. Indra Gurung."
    served = {"indra": SERVED} | {name: names.served_name(name, DIGEST) for name in more}
    twins = {
        str(number): TwinEntry(
            name=name,
            doctor="Indra Gurung",
            prompt_digest=names.prompt_digest(prompt),
            versions=(Version(served_name=served_name, digest=DIGEST, weight_percent=100),),
        )
        for number, (name, served_name) in enumerate(served.items())
    }
    routing = RoutingSlice(
        pool=PoolHeader(
            name="bench", uid="0", generation=1, base_model=BaseModelRef(name="base"), max_loras=len(twins) + 7,
            max_lora_rank=16, max_running=running,
        ),
        twins=twins,
        pods={"0": PodEntry(name="pod-0", address=engine.removeprefix("http://"))},
        prompts={names.prompt_digest(prompt): prompt},
    )  # fmt: skip
    report = PodReport(
        pod=PodRef(name="pod-0", uid="0"), ready=True, engine=EngineReport(live=True),
        adapters={
            served_name: AdapterReport(twin=name, digest=DIGEST, state=AdapterState.VERIFIED)
            for name, served_name in served.items()
        },
    )  # fmt: skip
    for part, name, document in (
        ("slices", names.routing_slice_name("bench", 0), routing),
        ("reports", "pod-0", report),
    ):
        (tables / part).mkdir(parents=True)
        (tables / part / f"{name}.json").write_text(json.dumps({"metadata": {"name": name}, **document.to_dict()}))


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a miner with these tables gives a right answer; raises BenchmarkError."""
    _wait(_Subject(BY_TOKEN, url, TokenDoor(TOKEN), process, log))


def _wait(subject: _Subject) -> None:
    """Wait until it gives a right answer, with a receipt that proves it where it has a hotkey."""
    url = f"{subject.url}/v1/chat/completions"
    deadline, last = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < deadline and subject.process.poll() is None:
        headers = {"Content-Type": "application/json", **subject.door.always()}
        for one in subject.door.each(url, BODY, 1):
            headers |= one
        request = urllib.request.Request(url, data=BODY.encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer, receipt = json.load(response), response.headers.get(names.RECEIPT_HEADER)
            is_right = answer["choices"][0]["message"]["content"] == SAYS
            if is_right and (subject.name not in WIRED or is_proven(receipt, question=BODY, says=SAYS)):
                return
            last = str(answer)
        except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
            last = str(error)
        time.sleep(0.2)
    raise BenchmarkError(
        f"{subject.name} gave no right answer within {START_SECONDS:.0f} s: {last} ({_state(subject)})"
    )


def _state(subject: _Subject) -> str:
    status = subject.process.poll()
    last = processes.last_line(subject.log)[:300]
    return f"{'it runs' if status is None else f'it exited with status {status}'}; its last line: {last}"


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["proxy", *sys.argv[1:]]))
