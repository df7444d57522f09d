"""What is lost or doubled of sessions, answers and ratings while gateway, miners and ledger are killed at random.

The gateway is the real one, with the process beside it that writes the ledger; each miner a process of its own with
real signatures, the ledger a real PostgreSQL that fsyncs. Patients' clients ask (whole answers and streams by turns),
and rate what they got; what the gateway acknowledged is written down. Meanwhile one process after another is killed by
SIGKILL, at moments and in an order that a seed fixes, and started again seconds later. At the end everything runs, the
gateway's queue is written out, and the ledger is compared with what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import bittensor_core

from neurons.ledger.migrate import migrate
from neurons.ledger.queued import QueuedLedger
from neurons.receipts import NeuronEntry, write_metagraph
from neurons.validator.gateway.keys import hash_of, new_key
from tests.bench import processes, versions
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import ROOT, Figure, Result, Spread
from tests.bench.servers.signing import NETUID, TWIN
from tests.unit.ledger.postgres import Postgres
from tests.unit.receipts.keyring import VALIDATOR, key

MINERS: Final = ("Alice", "Charlie", "Dave")
CLIENTS: Final = 6
SEED: Final = 11
_FEWEST_SECONDS, _MOST_SECONDS = 2.0, 8.0
"""Between two kills."""
_LONGEST_AWAY: Final = 6.0
"""Seconds until what was killed is started again."""
_START_SECONDS: Final = 300.0
_REQUEST_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 300.0
_WORDS: Final = ("knee", "head", "back", "stomach", "shoulder", "foot", "neck", "hand")


@dataclass
class _Acknowledged:
    """What clients were told."""

    sessions: dict[str, int] = field(default_factory=dict)
    """By id: questions that were sent in it, answered or not."""
    answers: dict[str, str] = field(default_factory=dict)
    """By id: the session."""
    ratings: dict[str, int] = field(default_factory=dict)
    """By the answer's id: the stars that were acknowledged."""
    failed: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by what became of them."""


class _Part:
    """A process that is killed and started again."""

    def __init__(self, name: str, start: Callable[[], None], kill: Callable[[], None]) -> None:
        self.name, self.start, self.kill = name, start, kill
        self.kills = 0


class _Command:
    """A command that runs, is killed, and runs again, with one log."""

    def __init__(self, arguments: list[str], log: Path, *, environment: dict[str, str] | None = None) -> None:
        self._arguments, self._log = arguments, log
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                self._arguments, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def kill_children(self) -> None:
        """Kill what it started; it starts that again by itself."""
        if self.process is not None:
            for pid in [each for each in processes.family(self.process.pid) if each != self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """End it as a cluster does: it may finish what it has in hand."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(120)
            self.process = None


def measure(options: Options) -> Result:
    """Measure; skip part: privacy (texts are taken to be free of identifiers, which makes more questions)."""
    # A socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bt-"))
    folder.chmod(0o755)
    (folder / "pg").mkdir()
    try:
        return asyncio.run(_measure(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(options: Options, folder: Path) -> Result:
    postgres = Postgres(folder / "pg")
    await asyncio.to_thread(postgres.make)
    await asyncio.to_thread(lambda: postgres.start(fsync=True))
    url = await asyncio.to_thread(postgres.database, "killed")
    await migrate(url)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: postgres.kill() if postgres.runs else None)
        ports = [processes.free_port() for _ in MINERS]
        miners = [
            _Command([sys.executable, "-m", "tests.bench.servers.signing", str(port), name], folder / f"{name}.log")
            for port, name in zip(ports, MINERS, strict=True)
        ]
        own, port = new_key(), processes.free_port()
        gateway = _Command(
            _gateway_command(folder, ports, own=own, port=port, private="privacy" not in options.skip),
            folder / "gateway.log", environment={"LEDGER_URL": url},
        )  # fmt: skip
        for each in (*miners, gateway):
            stack.callback(each.kill)
            each.start()
        address = f"http://127.0.0.1:{port}"
        await _until_answered(address, own, folder / "gateway.log")
        parts = [
            _Part("gateway", gateway.start, gateway.kill),
            _Part("the gateway's writer", lambda: None, gateway.kill_children),
            _Part("ledger", lambda: postgres.start(fsync=True), postgres.kill),
            *(_Part(f"miner {name}", each.start, each.kill) for name, each in zip(MINERS, miners, strict=True)),
        ]
        told = _Acknowledged()
        ends = time.monotonic() + options.kill_seconds
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(_kill(parts, ends=ends))
            for number in range(CLIENTS):
                group.create_task(_client(address, own, told, number=number, ends=ends))
        spent = time.monotonic() - begun
        await asyncio.to_thread(gateway.end)
        async with await QueuedLedger.open(url, folder=folder / "state" / "queue", timeout_seconds=60) as queued:
            if not await queued.drained(timeout_seconds=_DRAIN_SECONDS):
                raise BenchmarkError(f"the queue was not in the ledger after {_DRAIN_SECONDS:.0f} s")
            aside = queued.set_aside
        lost, doubled, beside = await _compared(url, told)
    return _result(options, parts, told, spent=spent, lost=lost, doubled=doubled, beside=beside, aside=aside)


def _gateway_command(folder: Path, ports: list[int], *, own: str, port: int, private: bool) -> list[str]:
    entry = {"id": "bench", "hash": hash_of(own), "perMinute": 1_000_000, "burst": 100_000}
    (folder / "keys.json").write_text(json.dumps({"format": "bettertherapy-keys/1", "keys": [entry]}))
    wallet = folder / "wallet"
    wallet.mkdir()
    (wallet / "hotkey").write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(VALIDATOR))
    neurons = tuple(
        NeuronEntry(
            uid=uid, hotkey=key(name).ss58_address, coldkey=key(f"Owner{uid}").ss58_address, axon=f"127.0.0.1:{each}",
            block_at_registration=uid,
        )
        for uid, (name, each) in enumerate(zip(MINERS, ports, strict=True), start=1)
    )  # fmt: skip
    write_metagraph(
        folder / "metagraph.json", netuid=NETUID, block=1000, time_ms=time.time_ns() // 10**6, neurons=neurons
    )
    module = "neurons.validator.gateway" if private else "tests.bench.servers.gateway"
    return [
        sys.executable, "-m", module, "--wallet-dir", str(wallet), "--keys-file", str(folder / "keys.json"),
        "--metagraph-file", str(folder / "metagraph.json"), "--state-dir", str(folder / "state"), "--host", "127.0.0.1",
        "--port", str(port), "--drain-delay", "0", "--log-level", "WARNING", "--deadline-seconds", "10",
    ]  # fmt: skip


async def _until_answered(address: str, own: str, log: Path) -> None:
    """Wait until a question is answered."""
    deadline, last = time.monotonic() + _START_SECONDS, ""
    async with _http(address, own) as http:
        while time.monotonic() < deadline:
            try:
                answer = await _ask(http, None, "My head aches. What now?", stream=False)
            except (aiohttp.ClientError, OSError, TimeoutError, _NotAnsweredError) as error:
                last = str(error)
            else:
                if answer:
                    return
            await asyncio.sleep(_AGAIN_SECONDS)
    raise BenchmarkError(
        f"the gateway gave no answer in {_START_SECONDS:.0f} s: {last}; its last line: {processes.last_line(log)[:300]}"
    )


def _http(address: str, own: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    return aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {own}"}, timeout=timeout)


class _NotAnsweredError(Exception):
    """The gateway said that it can't now; or its stream broke off."""


async def _kill(parts: list[_Part], *, ends: float) -> None:
    """Kill one part after the other, and start it again; all run at the end."""
    chance = random.Random(SEED)
    while time.monotonic() < ends:
        await asyncio.sleep(chance.uniform(_FEWEST_SECONDS, _MOST_SECONDS))
        together = chance.sample(parts, 2 if chance.random() < 0.2 else 1)
        for part in together:
            await asyncio.to_thread(part.kill)
            part.kills += 1
        await asyncio.sleep(chance.uniform(0, _LONGEST_AWAY))
        for part in together:
            await asyncio.to_thread(part.start)


async def _client(address: str, own: str, told: _Acknowledged, *, number: int, ends: float) -> None:
    """Hold one conversation after the other: up to three questions, each answer rated."""
    chance = random.Random(SEED * 1000 + number)
    async with _http(address, own) as http:
        while time.monotonic() < ends:
            try:
                session = await _begin(http, user=f"patient-{number}-{chance.random()}")
            except (aiohttp.ClientError, OSError, TimeoutError, _NotAnsweredError) as error:
                told.failed[f"session: {type(error).__name__}"] += 1
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            told.sessions[session["id"]] = 0
            for turn in range(chance.randint(1, 3)):
                said = f"My {chance.choice(_WORDS)} hurts for {turn + 2} days. What can I do?"
                told.sessions[session["id"]] += 1
                try:
                    answer = await _ask(http, session, said, stream=chance.random() < 0.5)
                except (aiohttp.ClientError, OSError, TimeoutError, _NotAnsweredError) as error:
                    told.failed[f"question: {type(error).__name__}"] += 1
                    await asyncio.sleep(_AGAIN_SECONDS)
                    break
                told.answers[answer["answerId"]] = session["id"]
                await _rate(http, session, answer, told, stars=chance.randint(1, 5), ends=ends)


async def _begin(http: aiohttp.ClientSession, *, user: str) -> dict[str, Any]:
    async with http.post("/v1/sessions", json={"model": TWIN, "user": user}) as response:
        if response.status != 201:
            raise _NotAnsweredError(f"{response.status}: {(await response.text())[:200]}")
        made: dict[str, Any] = await response.json()
    return made | {"user": user}


async def _ask(
    http: aiohttp.ClientSession, session: dict[str, Any] | None, said: str, *, stream: bool
) -> dict[str, Any]:
    """Return the answer's id and its question's; raises _NotAnsweredError where none came whole."""
    headers = {} if session is None else {"x-session-id": session["id"]}
    body: dict[str, Any] = {"model": TWIN, "messages": [{"role": "user", "content": said}], "stream": stream}
    if session is not None:
        body["user"] = session["user"]
    async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
        text = await response.text()
        if response.status != 200:
            raise _NotAnsweredError(f"{response.status}: {text[:200]}")
    if not stream:
        document = json.loads(text)
    else:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        if not lines or lines[-1] != "[DONE]" or any('"error"' in line for line in lines):
            raise _NotAnsweredError("the stream broke off")
        document = json.loads(lines[-2])
    more = document["bettertherapy"]
    if not more.get("answered", True):
        raise _NotAnsweredError("nobody answered")
    return {"answerId": document["id"].removeprefix("chatcmpl-"), "questionId": more["questionId"]}


async def _rate(
    http: aiohttp.ClientSession, session: dict[str, Any], answer: dict[str, Any], told: _Acknowledged, *, stars: int,
    ends: float,
) -> None:  # fmt: skip
    """Rate an answer; the same again, as a client does that doesn't know whether it was taken, until it is."""
    rating = {
        "sessionId": session["id"], "answerId": answer["answerId"], "questionId": answer["questionId"], "stars": stars,
        "user": session["user"],
    }  # fmt: skip
    while time.monotonic() < ends:
        try:
            async with http.post("/v1/ratings", json=rating) as response:
                if response.status in (200, 201):
                    told.ratings[answer["answerId"]] = stars
                    return
                told.failed[f"rating: {response.status}"] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            told.failed[f"rating: {type(error).__name__}"] += 1
        await asyncio.sleep(_AGAIN_SECONDS)


async def _compared(url: str, told: _Acknowledged) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return what is lost, what is there twice, and what is there beyond what was acknowledged; each by kind."""
    connection = await asyncpg.connect(url)
    try:
        sessions = {row["session_id"] for row in await connection.fetch("SELECT session_id FROM sessions")}
        asked = Counter(row["session_id"] for row in await connection.fetch("SELECT session_id FROM questions"))
        answers = {
            row["answer_id"]: row["session_id"]
            for row in await connection.fetch(
                "SELECT answer_id, session_id FROM answers WHERE COALESCE(failure, '') = ''"
            )
        }
        chosen = Counter(row["answer_id"] for row in await connection.fetch("SELECT answer_id FROM chosen"))
        ratings: dict[str, list[int]] = {}
        for row in await connection.fetch("SELECT answer_id, stars FROM ratings"):
            ratings.setdefault(row["answer_id"], []).append(row["stars"])
    finally:
        await connection.close()
    lost = Counter(
        sessions=len(told.sessions.keys() - sessions),
        answers=sum(answers.get(answer) != session or answer not in chosen for answer, session in told.answers.items()),
        ratings=sum(stars not in ratings.get(answer, []) for answer, stars in told.ratings.items()),
    )
    doubled = Counter(
        questions=sum(max(0, asked[session] - sent) for session, sent in told.sessions.items()),
        chosen=sum(number - 1 for number in chosen.values()),
        ratings=sum(len(found) - 1 for found in ratings.values()),
    )
    beside = Counter(
        sessions=len(sessions - told.sessions.keys()), answers=len(chosen.keys() - told.answers.keys()),
        ratings=len(ratings.keys() - told.ratings.keys()),
    )  # fmt: skip
    return lost, doubled, beside


def _result(
    options: Options, parts: list[_Part], told: _Acknowledged, *, spent: float, lost: Counter[str],
    doubled: Counter[str], beside: Counter[str], aside: int,
) -> Result:  # fmt: skip
    def rows() -> Iterator[Figure]:
        def row(figure: str, value: float, target: str | None = None) -> Figure:
            met = None if target is None else value == 0
            return Figure(
                subject="killed at random", figure=figure, unit="", digits=0, spread=Spread.of([value]), target=target,
                met=met,
            )  # fmt: skip

        for part in parts:
            yield row(f"{part.name} killed", part.kills)
        yield row("sessions acknowledged", len(told.sessions))
        yield row("answers acknowledged", len(told.answers))
        yield row("ratings acknowledged", len(told.ratings))
        yield row("requests that failed meanwhile", told.failed.total())
        for kind in ("sessions", "answers", "ratings"):
            yield row(f"{kind} lost", lost[kind], "0")
        for kind in ("questions", "chosen", "ratings"):
            yield row(f"{kind} doubled", doubled[kind], "0")
        yield row("entries that the ledger refused", aside, "0")

    if not told.answers or not told.ratings:
        raise BenchmarkError(f"nothing was answered or rated: {dict(told.failed)}")
    what = "" if "privacy" not in options.skip else " Texts were taken to be free of identifiers."
    return Result(
        name="gateway_kills",
        title="What is lost while gateway, miners and ledger are killed",
        how=(
            f"{CLIENTS} clients ask, half of them by streams, and rate, for {spent:.0f} s; the gateway, the "
            "process beside it that writes the ledger, one of three "
            f"miners' processes, or the PostgreSQL (fsync on) is killed by SIGKILL every {_FEWEST_SECONDS:.0f} to "
            f"{_MOST_SECONDS:.0f} s, two of them at once in a fifth of the cases, and started again within "
            f"{_LONGEST_AWAY:.0f} s, by a fixed seed. Acknowledged is a session by 201, an answer when it came whole, "
            f"a rating by 200 or 201; a client repeats a rating until it is acknowledged.{what}"
        ),
        figures=tuple(rows()),
        notes=(
            "In the ledger without having been acknowledged (the gateway was killed before it could say so): "
            f"{beside['sessions']} sessions, {beside['answers']} answers, {beside['ratings']} ratings.",
        ),
        versions=versions.of_python(),
        command="make bench BENCH_ARGS=gateway_kills",
    )


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["gateway_kills", *sys.argv[1:]]))
