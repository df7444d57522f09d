"""What the validator's gateway costs over three instant miners, beside a bare fan-out to three and LiteLLM asking one.

`python -m tests.bench.gateway`, or as one of `python -m tests.bench`. Each subject is one process; all are up during
the whole run, and the repeats go round all subjects, so that a noisy minute of the machine hits all alike.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bittensor_core

from neurons.receipts import NeuronEntry, write_metagraph
from neurons.validator.gateway.keys import hash_of, new_key
from tests.bench import litellm, processes, versions, wrk
from tests.bench.doors import TokenDoor
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread
from tests.bench.servers.signing import NETUID, SAYS, TWIN
from tests.unit.receipts.keyring import VALIDATOR, key

MINERS: Final = ("Alice", "Charlie", "Dave")
BODY: Final = json.dumps(
    {"model": TWIN, "messages": [{"role": "user", "content": "My head has ached since this morning. What now?"}]}
)
GATEWAY: Final = "gateway"
WITH_PRIVACY: Final = "gateway, identifiers taken out"
BARE: Final = "bare aiohttp fan-out to three"
OURS: Final = (GATEWAY, WITH_PRIVACY)
LITELLM: Final = "LiteLLM proxy asking one"
NONE: Final = "one miner, asked directly"
START_SECONDS: Final = 300.0
SETTLE_SECONDS: Final = 120.0
ANSWERED: Final = f'bettertherapy_gateway_requests_total{{code="200",twin="{TWIN}"}}'
RECORDS: Final = "bettertherapy_gateway_records_total"
WAITING: Final = "bettertherapy_gateway_ledger_waiting"
WARM_UP_SECONDS: Final = 2.0
ALONE_PART: Final = 0.4
"""Of a stretch with many in flight so long lasts one with one, whose median needs fewer."""
IN_FLIGHT: Final = 32
TARGET_ADDED_MS: Final = 5.0
TARGET_OF_LITELLM: Final = 5.0
TARGET_OF_BARE: Final = 0.5


@dataclass
class _Subject:
    name: str
    url: str
    token: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics: str = ""
    """Where its metrics are."""
    failed: int = 0
    one: list[wrk.Load] = field(default_factory=list)
    many: list[wrk.Load] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the process and its children per question, what a crowded machine can't distort as much."""
    late: list[float] = field(default_factory=list)
    """Seconds after the load until all that was answered was in the ledger; none without a ledger."""
    lost: float = 0.0
    """Exchanges that never will be."""


def measure(options: Options) -> Result:
    """Measure all subjects; skip parts: litellm, ledger, privacy."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports = [processes.free_port() for _ in MINERS]
        miners = [f"http://127.0.0.1:{port}" for port in ports]
        subjects = [
            _start(stack, folder, NONE, _miners(ports), url=miners[0]),
            _start(stack, folder, BARE, _module("tests.bench.servers.fanout"), upstreams=miners),
            _gateway(stack, folder, ports, GATEWAY, with_ledger="ledger" not in options.skip),
        ]
        if not options.skip & {"ledger", "privacy"}:
            subjects.append(_gateway(stack, folder, ports, WITH_PRIVACY, with_ledger=True))
        if "litellm" not in options.skip:
            binaries, port = litellm.install(), processes.free_port()
            command = litellm.command(binaries, port=port, upstream=miners[0], served=TWIN, folder=folder)
            subjects.append(_start(stack, folder, LITELLM, command, url=f"http://127.0.0.1:{port}", token=litellm.KEY))
        for number in range(options.repeats + 1):
            for subject in subjects:
                _round(subject, options, folder=folder, keep=number > 0)  # the first round warms up
    ledger = "without a ledger" if "ledger" in options.skip else "records fsynced before each answer ends (SQLite)"
    return Result(
        name="gateway",
        title="What the gateway costs over three instant miners",
        how=(
            "wrk -t1; three miners in one process that answer at once with signed receipts; each other subject one "
            "process, the gateway with the one beside it that writes the ledger, whose time counts, too; "
            f"all in one run, {options.repeats} rounds of {options.seconds:.0f} s with many in flight, and "
            f"{ALONE_PART:.0%} of that with one, after a warm-up. "
            "The gateway with its keys, each request signed, receipts checked, ranking, sessions, emergency rules, "
            f"metrics; {ledger}. Whether a text names somebody is looked up by `{WITH_PRIVACY}` alone, in threads of "
            "its own process; the other takes all texts to be free of that."
        ),
        figures=tuple(_figures(subjects)),
        notes=tuple(
            f"LiteLLM {versions.litellm()}, one worker, one key; {subject.failed} of its requests failed."
            for subject in subjects
            if subject.name == LITELLM
        ),
        versions=versions.of_python() | ({} if "litellm" in options.skip else {"LiteLLM": versions.litellm()}),
        command="make bench BENCH_ARGS=gateway",
    )


def _round(subject: _Subject, options: Options, *, folder: Path, keep: bool) -> None:
    seconds = options.seconds if keep else WARM_UP_SECONDS

    def load(in_flight: int, *, seconds: float) -> wrk.Load:
        url = f"{subject.url}/v1/chat/completions"
        door = TokenDoor(subject.token)
        done = wrk.run(url, body=BODY, door=door, in_flight=in_flight, seconds=seconds, folder=folder)
        # Miners earn by answering how much they are asked at once: at first some questions are turned away.
        if done.failed and keep and subject.name != LITELLM:
            raise BenchmarkError(f"{done.failed} of {done.requests} requests to the {subject.name} failed")
        subject.failed += done.failed
        return done

    one = load(1, seconds=max(1.0, ALONE_PART * seconds))
    before = processes.cpu_ms(subject.process.pid)
    many = load(IN_FLIGHT, seconds=seconds)
    late = None
    if subject.name in OURS and "ledger" not in options.skip:
        late, subject.lost = _settled(subject)
    spent = processes.cpu_ms(subject.process.pid) - before
    if keep:
        subject.one.append(one)
        subject.many.append(many)
        subject.cpu_ms.append(spent / many.requests)
        if late is not None:
            subject.late.append(late)


def _settled(subject: _Subject) -> tuple[float, float]:
    """Wait until all that was answered is in the ledger; return how long that took, and how many were lost."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < SETTLE_SECONDS:
        found = _counted(subject)
        recorded = sum(value for name, value in found.items() if name.startswith(RECORDS))
        if recorded >= found.get(ANSWERED, 0.0) and not found[WAITING]:
            return waited, found.get(f'{RECORDS}{{outcome="lost"}}', 0.0)
        time.sleep(0.05)
    raise BenchmarkError(f"the ledger of the {subject.name} has not all that was answered after {SETTLE_SECONDS:.0f} s")


def _counted(subject: _Subject) -> dict[str, float]:
    """Return its metrics by name and labels."""
    with urllib.request.urlopen(subject.metrics, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def _figures(subjects: Sequence[_Subject]) -> Iterator[Figure]:
    none, by_name = subjects[0], {subject.name: subject for subject in subjects}
    for subject in subjects:
        ours = subject.name in OURS
        yield Figure(
            subject=subject.name, figure="1 in flight: p50", unit="ms", digits=2,
            spread=Spread.of([load.p50 for load in subject.one]),
        )  # fmt: skip
        if subject is not none:
            added = Spread.of([load.p50 - direct.p50 for load, direct in zip(subject.one, none.one, strict=True)])
            yield Figure(
                subject=subject.name, figure="1 in flight: p50 added to one miner's answer", unit="ms", digits=2,
                spread=added, target="≤ 5 ms" if ours else None, met=added.median <= TARGET_ADDED_MS if ours else None,
            )  # fmt: skip
            yield Figure(
                subject=subject.name, figure=f"{IN_FLIGHT} in flight: questions/s", unit="/s", digits=0,
                spread=Spread.of([load.per_second for load in subject.many]),
            )  # fmt: skip
            yield Figure(
                subject=subject.name, figure=f"{IN_FLIGHT} in flight: processor time a question", unit="ms", digits=2,
                spread=Spread.of(subject.cpu_ms),
            )  # fmt: skip
        if subject.late:
            yield Figure(
                subject=subject.name, figure="after the load, until all of it is in the ledger", unit="s", digits=2,
                spread=Spread.of(subject.late),
            )  # fmt: skip
            yield Figure(
                subject=subject.name, figure="answered and not recorded", unit="", digits=0,
                spread=Spread.of([subject.lost]), target="0", met=subject.lost == 0,
            )  # fmt: skip
    for other, target in ((BARE, TARGET_OF_BARE), (LITELLM, TARGET_OF_LITELLM)):
        if other not in by_name:
            continue
        rates = [
            ours.per_second / theirs.per_second
            for ours, theirs in zip(by_name[GATEWAY].many, by_name[other].many, strict=True)
        ]
        spread = Spread.of(rates)
        yield Figure(
            subject=GATEWAY, figure=f"questions/s over the {other}", unit="x", digits=2, spread=spread,
            target=f"≥ {target:g} times", met=spread.median >= target,
        )  # fmt: skip


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _miners(ports: Sequence[int]) -> list[str]:
    given = [part for port, name in zip(ports, MINERS, strict=True) for part in (str(port), name)]
    return [*_module("tests.bench.servers.signing"), *given]


def _gateway(
    stack: contextlib.ExitStack, parent: Path, ports: Sequence[int], name: str, *, with_ledger: bool
) -> _Subject:
    own, port, metrics_port = new_key(), processes.free_port(), processes.free_port()
    module = "neurons.validator.gateway" if name == WITH_PRIVACY else "tests.bench.servers.gateway"
    folder = parent / module.partition(".")[0]
    folder.mkdir()
    (folder / "keys.json").write_text(
        json.dumps(
            {
                "format": "bettertherapy-keys/1",
                "keys": [{"id": "bench", "hash": hash_of(own), "perMinute": 1_000_000, "burst": 100_000}],
            }
        )
    )
    wallet = folder / "wallet"
    wallet.mkdir()
    (wallet / "hotkey").write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(VALIDATOR))
    rows = tuple(
        NeuronEntry(
            uid=uid, hotkey=key(miner).ss58_address, coldkey=key(f"Owner{uid}").ss58_address,
            axon=f"127.0.0.1:{each}", block_at_registration=uid,
        )
        for uid, (miner, each) in enumerate(zip(MINERS, ports, strict=True), start=1)
    )  # fmt: skip
    write_metagraph(folder / "metagraph.json", netuid=NETUID, block=1000, time_ms=time.time_ns() // 10**6, neurons=rows)
    command = [
        *_module(module), "--wallet-dir", str(wallet), "--keys-file", str(folder / "keys.json"),
        "--metagraph-file", str(folder / "metagraph.json"), "--state-dir", str(folder / "state"), "--host", "127.0.0.1",
        "--port", str(port), "--metrics-port", str(metrics_port), "--drain-delay", "0", "--log-level", "WARNING",
    ]  # fmt: skip
    environment = {"LEDGER_URL": f"sqlite:///{folder}/ledger.db"} if with_ledger else {}
    log = folder / "gateway.log"
    process = stack.enter_context(processes.running(command, log, environment=environment))
    metrics = f"http://127.0.0.1:{metrics_port}/metrics"
    subject = _Subject(name, f"http://127.0.0.1:{port}", own, process, log, metrics)
    _wait(subject)
    return subject


def _start(
    stack: contextlib.ExitStack,
    folder: Path,
    name: str,
    command: list[str],
    *,
    url: str | None = None,
    token: str = "none",
    upstreams: Sequence[str] = (),
) -> _Subject:
    if url is None:
        port = processes.free_port()
        command, url = [*command, str(port), *upstreams], f"http://127.0.0.1:{port}"
    log = folder / f"{name.partition(' ')[0]}.log"
    subject = _Subject(name, url, token, stack.enter_context(processes.running(command, log)), log)
    _wait(subject)
    return subject


def _wait(subject: _Subject) -> None:
    """Wait until it gives a right answer."""
    request = urllib.request.Request(
        f"{subject.url}/v1/chat/completions",
        data=BODY.encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {subject.token}"},
    )
    deadline, last = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < deadline and subject.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = json.load(response)
                if answer["choices"][0]["message"]["content"] == SAYS:
                    return
                last = str(answer)
        except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
            last = str(error)
        time.sleep(0.2)
    status = subject.process.poll()
    raise BenchmarkError(
        f"{subject.name} gave no right answer within {START_SECONDS:.0f} s: {last} ("
        f"{'it runs' if status is None else f'it exited with status {status}'}; its last line: "
        f"{processes.last_line(subject.log)[:300]})"
    )


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["gateway", *sys.argv[1:]]))
