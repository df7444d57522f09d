"""A run's curves for whoever looks at trainings with MLflow or TensorBoard: numbers and names, no line's words.

Nothing here delays a training or ends it: a thread tells what is queued, and what a tracking server does not take is
lost with a warning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp

from neurons.store import StoreError
from neurons.trainer.archive import Archive
from neurons.trainer.errors import Preempted, TrainerError
from neurons.trainer.termination import Terminated

log = logging.getLogger(__name__)

EXPERIMENT: Final = "bettertherapy"
RUN_TAG: Final = "bettertherapy.run"
"""By which another attempt finds the MLflow run that the one before began."""
_KILLED: Final = "KILLED"
_PAUSE_SECONDS: Final = 5.0
_LAST_WORD_SECONDS: Final = 15.0
_MOST_WAITING: Final = 10_000
_MOST_FAILURES: Final = 3
"""In a row, after which a target is given up for this attempt."""
_REQUEST_SECONDS: Final = 5
_MOST_METRICS: Final = 1000
"""That MLflow takes at once."""
_LONGEST_VALUE: Final = 500
_MOST_BYTES: Final = 1024 * 1024
"""Of one answer."""
_CREDENTIALS: Final = ("TOKEN", "USERNAME", "PASSWORD")
_BY_NAME: Final = "experiments/get-by-name"
"""The one call that is answered with 404 where nothing is wrong."""

Point = tuple[int, float, Mapping[str, float]]
"""Step, seconds since the epoch, values by name."""
Ask = Callable[..., Awaitable[dict[str, Any]]]


class TrackingError(Exception):
    """A tracking server did not do what it was asked. The message is of our own words, and may be logged."""


class Sink(Protocol):
    """Where curves go. Its methods may raise what they like, and may take seconds."""

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Begin, or go on with, the run of that name."""

    def write(self, points: list[Point]) -> None:
        """Take points."""

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """End with FINISHED, FAILED or KILLED."""


class Tracking:
    """Tells sinks of a training, from a thread of its own. `with Tracking(sinks) as tracking`.

    Nothing is told before `begin`, as of a run that is skipped or was published by an attempt before.
    """

    def __init__(self, sinks: Mapping[str, Sink], *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        """Tell the sinks, by the names that warnings call them."""
        self._sinks = dict(sinks)
        self._failures = dict.fromkeys(self._sinks, 0)
        self._pause = pause_seconds
        self._queue: queue.Queue[Callable[[Sink], None]] = queue.Queue(_MOST_WAITING)
        self._points: list[Point] = []
        self._begun = self._ended = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Tracking:
        if self._sinks:
            self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self.broke_off(error)
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=_LAST_WORD_SECONDS)
            if self._thread.is_alive():
                log.warning("tracking: the last values are not told, it takes longer than %g s", _LAST_WORD_SECONDS)

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Say what is trained; other attempts of the same name go on with the same curves."""
        self._begun = True
        self._put(lambda sink: sink.begin(name, params, tags))

    def step(self, number: int, **values: float | None) -> None:
        """Add a point to each curve that has a value."""
        point = (number, time.time(), {name: value for name, value in values.items() if value is not None})
        with self._lock:
            if self._begun and len(self._points) < _MOST_WAITING:
                self._points.append(point)

    def end(self, status: str, **tags: str) -> None:
        """Say how it ended: FINISHED, FAILED or KILLED."""
        self._ended = True
        if self._begun:
            self._flush()
            self._put(lambda sink: sink.end(status, tags))

    def broke_off(self, error: BaseException) -> None:
        """Say that it ended with an error, unless it had ended before."""
        if not self._ended:
            self.end(_KILLED if isinstance(error, (Preempted, Terminated)) else "FAILED", failure=_class_of(error))

    def _put(self, tell: Callable[[Sink], None]) -> None:
        if self._sinks:
            with suppress(queue.Full):
                self._queue.put_nowait(tell)

    def _flush(self) -> None:
        with self._lock:
            points, self._points = self._points, []
        if points:
            self._put(lambda sink: sink.write(points))

    def _run(self) -> None:
        while True:
            closing = self._closing.wait(self._pause) if self._queue.empty() else self._closing.is_set()
            self._flush()
            while not self._queue.empty():
                self._tell(self._queue.get_nowait())
            if closing:
                return

    def _tell(self, tell: Callable[[Sink], None]) -> None:
        for name, sink in self._sinks.items():
            if self._failures[name] >= _MOST_FAILURES:
                continue
            try:
                tell(sink)
            except Exception as error:  # noqa: BLE001 - tensorboardX, and an answer that is no tracking server's, raise what they like
                self._failures[name] += 1
                given_up = "; it is told no more" if self._failures[name] >= _MOST_FAILURES else ""
                # Another's message may hold the server's whole answer.
                said = str(error) if isinstance(error, TrackingError) else type(error).__name__
                log.warning("tracking: %s did not take it (%s)%s", name, said, given_up)
            else:
                self._failures[name] = 0


def _class_of(error: BaseException) -> str:
    return error.failure_class if isinstance(error, TrainerError) else type(error).__name__


class Mlflow:
    """A run in an experiment of an MLflow tracking server, by its REST API 2.0.

    Credentials are MLflow's own variables: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD.
    """

    def __init__(self, uri: str, experiment: str = EXPERIMENT, *, environment: Mapping[str, str] = os.environ) -> None:
        self._uri, self._experiment = uri.rstrip("/"), experiment
        # A server may serve several namespaces, whose twins, and so whose nights, may have the same names.
        self._namespace = environment.get("POD_NAMESPACE")
        self._environment = environment
        self._asked: tuple[str, Mapping[str, object], Mapping[str, str]] | None = None
        self._run_id: str | None = None

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Begin the run, or go on with the one that an attempt before began."""
        self._asked = (name, params, tags)
        asyncio.run(self._talk(self._opened))

    def write(self, points: list[Point]) -> None:
        """Take points."""
        metrics = [
            {"key": name, "value": value, "timestamp": round(1000 * at), "step": number}
            for number, at, values in points for name, value in values.items()
        ]  # fmt: skip

        async def write(ask: Ask) -> None:
            run_id = await self._opened(ask)
            for start in range(0, len(metrics), _MOST_METRICS):
                await ask("POST", "runs/log-batch", run_id=run_id, metrics=metrics[start : start + _MOST_METRICS])

        asyncio.run(self._talk(write))

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """End the run."""

        async def end(ask: Ask) -> None:
            run_id = await self._opened(ask)
            await ask("POST", "runs/log-batch", run_id=run_id, tags=_pairs(tags))
            await ask("POST", "runs/update", run_id=run_id, status=status, end_time=round(1000 * time.time()))

        asyncio.run(self._talk(end))

    async def _talk(self, say: Callable[[Ask], Awaitable[object]]) -> None:
        # Here and not at the start: credentials that are none end no training.
        limits, headers = aiohttp.ClientTimeout(total=_REQUEST_SECONDS), _credentials(self._environment)
        async with aiohttp.ClientSession(timeout=limits, headers=headers) as session:

            async def ask(method: str, path: str, **fields: object) -> dict[str, Any]:
                sent: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
                url = f"{self._uri}/api/2.0/mlflow/{path}"
                async with session.request(method, url, allow_redirects=False, **sent) as response:
                    if response.status == 404 and path == _BY_NAME:
                        return {}
                    if response.status != 200:
                        raise TrackingError(f"{path} was answered with status {response.status}")
                    return _read(path, await _whole(path, response))

            await say(ask)

    async def _opened(self, ask: Ask) -> str:
        """Return the run's id; a server that was away when the run began may be there now."""
        if self._run_id is not None:
            return self._run_id
        assert self._asked is not None  # noqa: S101 - begin comes first
        name, params, tags = self._asked
        found = await ask("GET", _BY_NAME, experiment_name=self._experiment)
        if not (experiment := found.get("experiment", {}).get("experiment_id")):
            experiment = (await ask("POST", "experiments/create", name=self._experiment)).get("experiment_id")
        known_as = name if self._namespace is None else f"{self._namespace}/{name}"
        ours = f"tags.`{RUN_TAG}` = '{known_as}'"
        runs = (await ask("POST", "runs/search", experiment_ids=[experiment], filter=ours, max_results=1)).get("runs")
        if runs:
            run_id = str(runs[0]["info"]["run_id"])
            await ask("POST", "runs/update", run_id=run_id, status="RUNNING")
        else:
            made = await ask(
                "POST", "runs/create", experiment_id=experiment, run_name=name.rpartition("/")[2],
                start_time=round(1000 * time.time()), tags=_pairs({RUN_TAG: known_as, **tags}),
            )  # fmt: skip
            run_id = str(made["run"]["info"]["run_id"])
            await ask("POST", "runs/log-batch", run_id=run_id, params=_pairs(params))
        self._run_id = run_id
        return run_id


def _pairs(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(each)[:_LONGEST_VALUE]} for key, each in values.items() if each is not None]


async def _whole(path: str, response: aiohttp.ClientResponse) -> bytes:
    """Return an answer to its end: it comes in as many parts as servers and proxies please."""
    read = bytearray()
    async for part in response.content.iter_chunked(1 << 16):
        read += part
        if len(read) > _MOST_BYTES:
            raise TrackingError(f"{path} was answered with more than {_MOST_BYTES >> 20} MiB, which is not read")
    return bytes(read)


def _read(path: str, answer: bytes) -> dict[str, Any]:
    try:
        told = json.loads(answer)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise TrackingError(f"{path} was answered with no JSON object: this is no MLflow tracking server")
    return told


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the header with the credentials, if there are any; a Secret's last line feed is none of theirs."""
    token, user, password = (environment.get(f"MLFLOW_TRACKING_{name}", "").rstrip("\r\n") for name in _CREDENTIALS)
    if token:
        if not (token.isascii() and token.isprintable()):
            raise TrackingError("MLFLOW_TRACKING_TOKEN holds what no header may")
        return {"Authorization": f"Bearer {token}"}
    if user:
        if ":" in user:
            raise TrackingError("MLFLOW_TRACKING_USERNAME holds a colon, which ends a name")
        return {"Authorization": aiohttp.encode_basic_auth(user, password)}
    return {}


class TensorBoard:
    """Event files at `<store>/<twin>/tensorboard/<run>/`, which TensorBoard reads from the store itself."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        """Write the file in `folder` first, which must be this attempt's alone."""
        self._archive, self._folder = archive, folder
        self._writer: Any = None
        self._run = ""

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Begin another event file of the run. Needs tensorboardX."""
        from tensorboardX import SummaryWriter  # noqa: PLC0415

        self._run = name.rpartition("/")[2]
        self._writer = SummaryWriter(
            logdir=str(self._folder), filename_suffix=f".{secrets.token_hex(4)}"
        )  # for attempts of one second
        shown = "\n".join(f"    {key}: {value}" for key, value in {**tags, **params}.items())
        self._writer.add_text("run", shown, 0)
        self._writer.flush()
        self._upload()

    def write(self, points: list[Point]) -> None:
        """Take points."""
        for number, at, values in points:
            for name, value in values.items():
                self._open().add_scalar(name, value, number, walltime=at)
        self._open().flush()
        self._upload()

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """End the file."""
        self._open().add_text(
            "ended", "\n".join(f"    {key}: {value}" for key, value in (("status", status), *tags.items()))
        )
        self._writer.close()  # before it goes up: flush leaves out what the writer's thread has still in its queue
        self._upload()

    def _open(self) -> Any:
        if self._writer is None:
            raise RuntimeError("the file could not be begun")
        return self._writer

    def _upload(self) -> None:
        for path in self._folder.glob("events.out.tfevents.*"):
            with suppress(StoreError):  # the next points bring the whole file again
                asyncio.run(self._archive.put_events(self._run, path))


def tracking_of(options: argparse.Namespace, folder: Path) -> Tracking:
    """Return what the arguments of a run ask for; `folder` is scratch space."""
    sinks: dict[str, Sink] = {}
    if options.mlflow_endpoint is not None:
        sinks["MLflow"] = Mlflow(options.mlflow_endpoint, options.mlflow_experiment)
    if options.tensorboard:
        sinks["TensorBoard"] = TensorBoard(Archive(options.store, options.twin), folder)
    return Tracking(sinks)
