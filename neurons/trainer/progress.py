"""Tells how a run goes, or its examination: lines on standard output, and one ConfigMap that the operator reads.

Telling never delays the training and never ends it: a thread writes the newest state, a new stage at once and the rest
at most every 5 s, and what the API server did not take is written again with what came after.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from bettertherapy_api.run_progress import PROGRESS_KEY, RunProgress, RunStage
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient, ClusterError

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "trainer"
_PAUSE_SECONDS: Final = 5.0
_LAST_WORD_SECONDS: Final = 15.0
_SHARES: Final[Mapping[RunStage, tuple[int, int]]] = {
    RunStage.DATA: (0, 2),
    RunStage.TRAIN: (2, 70),
    RunStage.PUBLISH: (70, 72),
    RunStage.EVALUATE: (72, 99),
    RunStage.DONE: (100, 100),
}
"""Percent of the run at which each stage begins and ends."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where progress is written."""

    namespace: str
    configmap: str

    @property
    def path(self) -> str:
        """Return the ConfigMap's path at the API server."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{self.configmap}"


class Progress:
    """The run's progress. `with Progress(...) as progress`: leaving it writes the last state, for at most 15 s."""

    def __init__(
        self, *, attempt: str, target: Target | None, pause_seconds: float = _PAUSE_SECONDS,
        first: RunStage = RunStage.DATA, field_manager: str = FIELD_MANAGER, elsewhere: bool = False,
    ) -> None:  # fmt: skip
        self._document = RunProgress(attempt=attempt, stage=first, elsewhere=elsewhere)
        self._beside: dict[str, str] = {}
        self.target, self._pause, self._field_manager = target, pause_seconds, field_manager
        self._changed, self._closing = threading.Event(), threading.Event()
        # Ends the pause between two writes: another stage, another run, or the end.
        self._urgent = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self.target is not None:
            self._changed.set()
            thread = threading.Thread(target=self._run, name="progress", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a pod may have so many
                log.warning("progress is not reported: %s", error)
            else:
                self._thread = thread
        return self

    def __exit__(self, *_: object) -> None:
        self.close_soon()
        if self._thread is not None:
            self._thread.join(timeout=_LAST_WORD_SECONDS + 5)

    def close_soon(self) -> None:
        """Begin to write the last state; leaving the context waits for it."""
        self._closing.set()
        self._urgent.set()
        self._changed.set()

    @property
    def document(self) -> RunProgress:
        """Return what is known now."""
        return self._document

    def documents(self) -> dict[str, str]:
        """Return the ConfigMap's data as it should be now."""
        with self._lock:
            return {PROGRESS_KEY: self._document.to_json(), **self._beside}

    def tell(self, **fields: Any) -> None:
        """Change fields of the document (by their Python names)."""
        with self._lock:
            before, self._document = self._document, self._document.model_copy(update=fields)
        if (self._document.stage, self._document.elsewhere) != (before.stage, before.elsewhere):
            self._urgent.set()
        self._changed.set()

    def attach(self, documents: Mapping[str, str]) -> None:
        """Set what stands in the ConfigMap beside the progress, by key."""
        with self._lock:
            self._beside = dict(documents)
        self._changed.set()

    def stage(self, stage: RunStage, *, done: int = 0, of: int = 1, **fields: Any) -> None:
        """Say that `done` of `of` parts of a stage are done; the percentage never falls within a stage."""
        begin, end = _SHARES[stage]
        percent = begin + (end - begin) * min(done, of) // max(1, of)
        self.tell(stage=stage, progress_percent=percent, **fields)

    def _run(self) -> None:
        asyncio.run(self._write_changes())

    async def _write_changes(self) -> None:
        try:
            async with ClusterClient() as client:
                await self._follow(client)
        except ClusterAccessError as error:
            log.warning("progress is not reported: %s", error)

    async def _follow(self, client: ClusterClient) -> None:
        backoff = Backoff(first=0.5, most=10.0)
        deadline: float | None = None
        while True:
            await asyncio.to_thread(self._changed.wait)
            self._urgent.clear()  # before the look at `closing`, which sets it too
            closing = self._closing.is_set()
            if closing and deadline is None:
                deadline = time.monotonic() + _LAST_WORD_SECONDS
            self._changed.clear()
            try:
                await self._write(client)
            except (ClusterError, ClusterAccessError, aiohttp.ClientError, TimeoutError, OSError) as error:
                pause = backoff.next()
                self._changed.set()
                if deadline is not None and time.monotonic() + pause > deadline:
                    log.warning("the last progress is not reported: %s", error)
                    return
                await asyncio.sleep(pause)
                continue
            backoff.reset()
            if closing and not self._changed.is_set():
                return
            if not closing:
                await asyncio.to_thread(self._urgent.wait, self._pause)

    async def _write(self, client: ClusterClient) -> None:
        assert self.target is not None  # noqa: S101 - the thread runs for a target only
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.target.configmap},
            "data": self.documents(),
        }
        await client.apply(self.target.path, body=json.dumps(body), field_manager=self._field_manager)


_RUN: ContextVar[str | None] = ContextVar("run", default=None)


@contextmanager
def saying_of(run: str | None) -> Iterator[None]:
    """Let each line that is said name the run, where a process has several."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def say(**fields: object) -> None:
    """Write one JSON object on standard output."""
    run = _RUN.get()
    sys.stdout.write(json.dumps(fields if run is None else {"run": run, **fields}) + "\n")
    sys.stdout.flush()
