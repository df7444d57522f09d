"""Watching one engine: does it answer, what does it hold, did it restart, is it wedged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from neurons.agent.engine import EngineAnswer, EngineClient, EngineDown, EngineError, Model
from neurons.agent.progress import ProgressJudge, Sample, Verdict, parse_sample
from neurons.agent.traffic import Traffic

log = logging.getLogger(__name__)

EAGER_SECONDS: Final = 0.3
CALM_SECONDS: Final = 0.5
_SILENCES: Final = 3
"""Polls without an answer before an engine that accepts connections counts as not live: a busy one may be slow."""


@dataclass(frozen=True)
class Listing:
    """One answer of /v1/models."""

    models: tuple[Model, ...] = ()
    asked_at: float = 0.0
    """time.monotonic() just before the question: what was loaded later may be missing in it."""

    def root(self, name: str) -> str | None:
        """Return the root of a name, "" for one without a root, None for an unknown name."""
        return self._roots.get(name)

    @cached_property
    def _roots(self) -> dict[str, str]:
        # Each adapter is looked for in each listing; of two entries of one name the first counts.
        return {model.id: model.root or "" for model in reversed(self.models)}

    def adapters(self) -> dict[str, str]:
        """Return the adapters, name to root."""
        return {m.id: m.root or "" for m in self.models if m.parent is not None}

    def bases(self) -> tuple[str, ...]:
        """Return the names under which the base model answers."""
        return tuple(m.id for m in self.models if m.parent is None)


class EngineMonitor:
    """Polls the engine; tells `listeners` after every answer and every change.

    `epoch` counts the engine processes seen: what was verified in an older epoch is unverified now.
    """

    def __init__(
        self,
        engine: EngineClient,
        traffic: Traffic,
        *,
        wedged_file: Path | None,
        socket: Path | None,
        wedge_seconds: float,
        eager: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._traffic = traffic
        self._wedged_file = wedged_file
        self._socket = socket
        self._wedge_seconds = wedge_seconds
        self._judge_every = min(5.0, max(0.05, wedge_seconds / 12))
        self._judge = ProgressJudge(wedge_seconds=wedge_seconds)
        self._next_judgement = 0.0
        self._probe: asyncio.Task[None] | None = None
        self._identity: tuple[float | None, int | None] | None = None
        self._silences = 0
        self._kick = asyncio.Event()
        self._came_up = asyncio.Event()
        self._born = time.monotonic()
        self._held: frozenset[str] = frozenset()
        self._end_at = 0.0
        """When the process that is condemned is ended."""
        self.eager = eager
        self.history: Callable[[], str | None] = lambda: None
        """What is wrong with one engine process after another, if something is."""
        self.listeners: list[Callable[[], None]] = []
        self.up = False
        self.wedged = False
        self.condemned = False
        """Wedged by a judgement that only another process can lift: it moves, but what it says is wrong."""
        self.epoch = 0
        self.listing = Listing()
        self.version: str | None = None
        self.start_time: float | None = None
        self.cold_start_seconds: int | None = None
        self.message: str | None = "the engine has not answered yet"

    @property
    def live(self) -> bool:
        """It answers and makes progress."""
        return self.up and not self.wedged

    @property
    def process(self) -> str | None:
        """What tells this engine process from any other, to the next agent too; None from a server that doesn't say."""
        start_time, inode = self._identity or (None, None)
        if inode is not None:
            return f"socket {inode}"
        return None if start_time is None else f"start {start_time!r}"

    @property
    def started_at(self) -> str | None:
        """RFC 3339 start of the engine's process."""
        if self.start_time is None:
            return None
        return datetime.fromtimestamp(self.start_time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    @property
    def max_model_length(self) -> int | None:
        """The base model's context length, as the engine says."""
        return next((m.max_model_len for m in self.listing.models if m.max_model_len), None)

    def kick(self) -> None:
        """Poll now: someone saw a sign of trouble."""
        self._kick.set()

    def condemn(self, message: str, *, pause: float = 0.0) -> None:
        """Have this engine process ended, in so many seconds: its answers can't be trusted, though it answers."""
        if not self.condemned:
            self.condemned = True
            self._end_at = time.monotonic() + pause
            self._set_wedged(message)
            self._tell()

    def end_now(self) -> None:
        """Let no pause keep a condemned process."""
        self._end_at = min(self._end_at, time.monotonic())
        self._end_when_due()

    def acquit(self) -> None:
        """Take a condemned process back into service: its answers are right again, and nobody can restart it."""
        if self.condemned:
            self._set_wedged(None)
            self._tell()

    async def wait_up(self) -> None:
        """Wait until the engine answers; it may take minutes, so the caller sets no limit on purpose."""
        await self._came_up.wait()

    async def look_who_answers(self) -> None:
        """Find out whether another process answers by now, as behind an address one takes another's place unseen.

        Raises EngineError.
        """
        await self._identify()
        self._tell()

    async def run(self) -> None:
        """Poll for ever."""
        try:
            while True:
                await self.poll()
                interval = EAGER_SECONDS if not self.up or self.eager() else CALM_SECONDS
                # Not wait_for: before Python 3.12 it may swallow a cancellation.
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await self._kick.wait()
                self._kick.clear()
        finally:
            if self._probe is not None:
                self._probe.cancel()

    async def poll(self) -> None:
        """Ask once and take note."""
        asked_at = time.monotonic()
        try:
            models = await self._engine.models()
            if not self.up or self._lost_some(models) or self._rebound():
                await self._identify()
        except EngineDown as error:
            self._went_down(str(error))
            if self._socket is not None:
                _clear_stale_socket(self._socket)
        except EngineError as error:
            self._silences += 1
            if not self.up or self._silences >= _SILENCES:
                self._set_up(False, str(error))
        else:
            self._silences = 0
            if self.cold_start_seconds is None:
                self.cold_start_seconds = round(time.monotonic() - self._born)
            self.listing = Listing(tuple(models), asked_at)
            self._held = frozenset(self.listing.adapters())
            self._set_up(True, None)
        self._tell()
        self._end_when_due()
        if self._wedged_file is not None and time.monotonic() >= self._next_judgement:
            self._next_judgement = time.monotonic() + self._judge_every
            await self._judge_progress()
            self._tell()

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    def _lost_some(self, models: Sequence[Model]) -> bool:
        """Names that went away: by our own unload, or because another process answers now."""
        return bool(self._held - {m.id for m in models})

    def _rebound(self) -> bool:
        return self._identity is not None and self._inode() != self._identity[1]

    async def _identify(self) -> None:
        """Find out whether this is the process we knew; raises EngineError when it stops answering meanwhile."""
        start_time: float | None = None
        # A foreign server may have no /metrics, and says no version.
        with suppress(EngineAnswer):
            start_time = parse_sample(await self._engine.metrics()).start_time
        self.version = await self._engine.version()
        identity = (start_time, self._inode())
        if identity != self._identity:
            restarted = self._identity is not None
            self._identity = identity
            self.start_time = start_time
            self.epoch += 1
            self._judge.restart()
            self._cancel_probe()
            self._set_wedged(None)
            log.info("engine %s: version %s, process %d", "restarted" if restarted else "up", self.version, self.epoch)

    def _inode(self) -> int | None:
        """Return what changes when another process binds the socket."""
        if self._socket is None:
            return None
        try:
            stat = self._socket.stat()
        except OSError:
            return None
        return hash((stat.st_ino, stat.st_ctime_ns))

    def _went_down(self, message: str) -> None:
        self._silences = 0
        self._held = frozenset()
        self.listing = Listing()
        if self.up or self.wedged:
            # Its process is gone, and with it whatever it held and whatever held it up.
            self._judge.restart()
            self._cancel_probe()
            self._set_wedged(None)
        self._set_up(False, message)

    def _set_up(self, up: bool, message: str | None) -> None:
        if up != self.up:
            log.log(logging.INFO if up else logging.WARNING, "engine answers: %s (%s)", up, message or "well")
        self.up = up
        if up:
            self._came_up.set()
        else:
            self._came_up.clear()
        if not self.wedged:
            history = None if up else self.history()
            self.message = message if history is None else f"{message}; {history}"

    async def _judge_progress(self) -> None:
        if not self.epoch or (not self.up and not self._silences):
            return  # starting, or gone: the container's own restart is at work
        sample: Sample | None
        try:
            sample = parse_sample(await self._engine.metrics())
        except EngineDown:
            return
        except EngineError:
            sample = None
        probing = self._probe is not None and not self._probe.done()
        verdict = self._judge.judge(
            time.monotonic(),
            sample,
            in_flight=self._traffic.total + int(probing),
            unanswered=self._traffic.unanswered,
        )
        if verdict is Verdict.WEDGED and not self.condemned:
            self._set_wedged(
                f"no progress for {self._wedge_seconds:g} s with requests in flight: it is wedged and being restarted"
            )
        elif self.wedged and not self.condemned:
            self._set_wedged(None)
        if verdict is Verdict.SUSPECT and not probing and self.listing.bases():
            self._probe = asyncio.create_task(self._ask_for_a_token(self.listing.bases()[0]))

    async def _ask_for_a_token(self, model: str) -> None:
        # Its outcome does not matter: an engine that is well moves its counters for it, or answers an error.
        with suppress(EngineError):
            await self._engine.generate_one_token(model, seconds=self._wedge_seconds * 2 + 5)

    def _cancel_probe(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _set_wedged(self, message: str | None) -> None:
        wedged = message is not None
        if not wedged:
            self.condemned = False
        if wedged == self.wedged:
            # A file left by an earlier agent or for an earlier process must go even if we know nothing of it.
            if not wedged and self._wedged_file is not None:
                self._wedged_file.unlink(missing_ok=True)
            return
        self.wedged, self.message = wedged, message
        log.log(logging.ERROR if wedged else logging.INFO, "engine wedged: %s", wedged)
        if wedged and not self.condemned:
            self._end_at = 0.0
        self._end_when_due()
        if self._wedged_file is not None and not wedged:
            self._change(lambda file: file.unlink(missing_ok=True))

    def _end_when_due(self) -> None:
        if self.wedged and time.monotonic() >= self._end_at:
            self._change(lambda file: file.exists() or file.write_text(f"{self.message}\n"))

    def _change(self, change: Callable[[Path], object]) -> None:
        if self._wedged_file is None:
            return
        try:
            change(self._wedged_file)
        except OSError as error:
            log.error("%s can't be changed: %s", self._wedged_file, error)  # noqa: TRY400 - no trace needed


def _clear_stale_socket(path: Path, table: Path = Path("/proc/net/unix")) -> None:
    """Remove the socket file of an engine that is gone: vLLM leaves it behind and then can't bind it again.

    A refused connection is no proof, because vLLM binds minutes before it listens. The kernel's table is: containers of
    a pod share a network namespace, so a socket that any process holds is in it. No engine can bind while the old file
    is there, so nothing can come between the look and the removal.
    """
    try:
        if not path.is_socket():
            return
        bound = {line.rsplit(" ", 1)[-1] for line in table.read_text().splitlines()}
        if str(path) not in bound:
            path.unlink(missing_ok=True)
            log.info("removed %s, which an earlier engine left", path)
    except OSError as error:
        log.warning("%s may be in the next engine's way: %s", path, error)
