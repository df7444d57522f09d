"""A whole round over many miners, by the program that a round's Job runs: how long it takes, and in how much memory.

The chain is the local subnet, the ledger a PostgreSQL of its own, the miners one process of many stand-ins that answer
at once with signed receipts (tests.bench.servers.examined). Questions are not spread over the round's time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock
from uuid import uuid4

import bittensor.config
from bittensor import sp_core

from neurons.ledger import Ledger
from neurons.ledger.migrate import migrate
from neurons.ledger.rounds import round_rows
from neurons.validator.rounds.conclude import TOTAL
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import ROOT, Figure, Result, Spread
from tests.bench.rounds import spearman
from tests.unit.chain.played import NETUID, Subnet, hotkey, open_subnet
from tests.unit.ledger.postgres import Postgres
from tests.unit.rounds.people import order

MINERS: Final = 256
ITEMS: Final = 40
ROUNDS: Final = 3
_SECONDS: Final = 60.0
_MEGABYTES: Final = 500.0


@dataclass(frozen=True, slots=True)
class Held:
    """One round."""

    seconds: float
    megabytes: float
    """The process's greatest resident set."""
    processor: float
    """Seconds of processor time."""
    scored: int
    answers: int
    rank: float
    """Spearman's, between what miners know and how they were scored."""


def measure(options: Options) -> Result:
    """Hold the rounds."""
    del options
    held = asyncio.run(_measure())
    if any(each.answers != MINERS * ITEMS for each in held):
        raise BenchmarkError(f"not all answers came: {[each.answers for each in held]} of {MINERS * ITEMS}")
    subject = f"{MINERS} miners, {ITEMS} questions each"

    def figure(name: str, unit: str, values: list[float], *, target: str | None = None, most: float = 0.0) -> Figure:
        spread = Spread.of(values)
        met = None if target is None else spread.maximum <= most
        return Figure(subject=subject, figure=name, unit=unit, spread=spread, digits=1, target=target, met=met)

    return Result(
        name="round",
        title="A round over many miners",
        how=f"One round each on a ledger in PostgreSQL (fsync off) that has no other, by `python -m "
        f"neurons.validator.rounds run`, from its start to its end; {MINERS} stand-in miners in one process answer at "
        "once with signed receipts, the local chain runs in another, all on the same cores. Questions are of the "
        "image's own set and not spread over time; there is no judge. Miners know 20 to 90% of the questions.",
        figures=(
            figure("a round", "s", [each.seconds for each in held], target=f"≤ {_SECONDS:.0f} s", most=_SECONDS),
            figure("its process's memory at most", "MB", [each.megabytes for each in held],
                   target=f"≤ {_MEGABYTES:.0f} MB", most=_MEGABYTES),
            figure("its processor time", "s", [each.processor for each in held]),
            figure("miners scored", "", [float(each.scored) for each in held]),
            Figure(subject=subject, figure="rank correlation of scores with what miners know", unit="",
                   spread=Spread.of([each.rank for each in held])),
        ),
    )  # fmt: skip


async def _measure() -> list[Held]:
    folder = Path(tempfile.mkdtemp(prefix="bt-round-", dir="/tmp"))  # a socket's path is short
    postgres = Postgres(folder)
    try:
        with mock.patch.object(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", folder / "symbols.json"):
            postgres.make()
            postgres.start()
            subnet = await open_subnet(folder / "chain.db", max_uids=MINERS + 16)
            try:
                return await _on(subnet, postgres, folder)
            finally:
                await subnet.stop()
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _on(subnet: Subnet, postgres: Postgres, folder: Path) -> list[Held]:
    names = [f"m{number}" for number in range(MINERS)]
    known = {name: 20 + number * 70 // (MINERS - 1) for number, name in enumerate(names)}
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol(*names)
    await subnet.run_epoch()
    wallet = folder / "wallet"
    wallet.mkdir()
    (wallet / "hotkey").write_bytes(sp_core.serialized_keypair_to_keyfile_data(hotkey("validator").keypair))
    with _miners(known) as ports:
        here = int(ipaddress.ip_address("127.0.0.1"))
        await subnet.service.make_blocks(1, {
            f"SubtensorModule.Axons/{NETUID}/{hotkey(name).address}":
                {"block": 1, "version": 1, "ip": here, "port": port, "ip_type": 4, "protocol": 4}
            for name, port in ports.items()
        })  # fmt: skip
        held = []
        for number in range(ROUNDS):
            url = postgres.database(f"round{number}")
            held.append(await _hold(subnet, url, folder, known))
        return held


@contextmanager
def _miners(known: dict[str, int]) -> Iterator[dict[str, int]]:
    """Run the miners; yields their ports."""
    arguments = [str(part) for pair in known.items() for part in pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.servers.examined", "127.0.0.1", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield {name: int(port) for name, port in (process.stdout.readline().split() for _ in known)}
    finally:
        process.terminate()
        process.wait(10)


async def _hold(subnet: Subnet, url: str, folder: Path, known: dict[str, int]) -> Held:
    await migrate(url)
    uid = str(uuid4())
    asked = folder / "round.json"
    asked.write_text(
        order(uid=uid, netuid=NETUID, network=subnet.url, itemsPerTwin=ITEMS, deadlineSeconds=600).to_json()
    )
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "neurons.validator.rounds", "run", "--order", str(asked), "--wallet-dir",
        str(folder / "wallet"), "--ask-share", "0", cwd=ROOT, env={**os.environ, "LEDGER_URL": url, "POD_UID": "pod-1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    reading = asyncio.ensure_future(process.communicate())
    megabytes = 0.0
    while not reading.done():
        megabytes = max(megabytes, _resident(process.pid))
        await asyncio.wait([reading], timeout=0.1)
    seconds = time.monotonic() - begun
    output, _ = reading.result()
    if process.returncode != 0:
        raise BenchmarkError(f"the round failed: {output.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    async with await Ledger.open(url) as ledger:
        rows = await round_rows(ledger.database, uid)
    assert rows.finished is not None
    totals = {each.miner.hotkey: each.value_milli for each in rows.scores if each.part == TOTAL}
    by_name = {name: totals[hotkey(name).address] for name in known if hotkey(name).address in totals}
    return Held(
        seconds=seconds, megabytes=megabytes, scored=len(by_name),
        processor=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        answers=sum(each.text is not None for each in rows.answers),
        rank=spearman([float(known[name]) for name in by_name], [float(by_name[name] or 0) for name in by_name]),
    )  # fmt: skip


def _resident(pid: int) -> float:
    """Return a process's greatest resident set so far, in MB; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((each for each in status.splitlines() if each.startswith("VmHWM")), "VmHWM 0")
    return int(line.split()[1]) * 1024 / 1e6
