"""What the operator says of tasks, fetched when somebody waits for it; and the reports to validators, until taken."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import orjson
from pydantic import ValidationError

from bettertherapy_api.report import TaskClaim
from bettertherapy_api.task_states import KEY, PublishedTask, PublishedTasks, tasks_name
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient, ClusterError
from neurons.miner.tasks import TaskBook
from neurons.outside import ForbiddenAddress, TooLong, check_url, outside_session, read_bounded
from neurons.wire.tasks import TaskError, reports_url

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 20.0
SOON_SECONDS: Final = 0.5
"""Between two looks while somebody waits."""
REPORT_SECONDS: Final = 20.0
_ANSWER_BYTES: Final = 16 * 1024
_NOT_FOUND: Final = 404
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 600.0
_AGAIN: Final = frozenset({403, 408, 425, 429})
"""Beside 500 and above: 403 is said of a hotkey whose registration the gateway hasn't read yet."""


class TaskSource(Protocol):
    """Where the operator's word on tasks is read."""

    async def read(self) -> Mapping[str, PublishedTask] | None:
        """Return the tasks by id; None where they can't be read now."""


class ConfigMapSource:
    """The ConfigMap that the operator keeps for the pool."""

    def __init__(self, client: ClusterClient, *, namespace: str, pool: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{tasks_name(pool)}"

    async def read(self) -> Mapping[str, PublishedTask] | None:
        """See `TaskSource`."""
        try:
            found = await self._client.get(self._path, {})
        except ClusterError as error:
            if error.status == _NOT_FOUND:
                return {}
            log.warning("what became of tasks can't be read: %s", error)
            return None
        except (ClusterAccessError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("what became of tasks can't be read: %s", type(error).__name__)
            return None
        return _read((found.get("data") or {}).get(KEY) or "{}")


class FolderTasks:
    """A folder instead of a cluster: `claims.json` is written, `tasks.json` read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self) -> Mapping[str, PublishedTask] | None:
        """See `TaskSource`."""
        try:
            return _read((self._folder / KEY).read_text())
        except OSError:
            return {}

    def write(self, claims: list[TaskClaim]) -> None:
        """Write what the operator is asked."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / ".claims.json.part"
        part.write_bytes(orjson.dumps([each.to_dict() for each in claims]))
        part.replace(self._folder / "claims.json")


async def follow_cluster_tasks(book: TaskBook, *, namespace: str, pool: str) -> None:
    """Follow what the operator says, for ever."""
    async with ClusterClient() as client:
        await follow_tasks(book, ConfigMapSource(client, namespace=namespace, pool=pool))


async def follow_folder_tasks(book: TaskBook, folder: Path, *, news: asyncio.Event) -> None:
    """Follow what a folder says, and write there what is asked, for ever: a miner without a cluster."""
    source = FolderTasks(folder)

    async def write() -> None:
        written: list[TaskClaim] = []
        while True:
            await news.wait()
            news.clear()
            if (claims := book.claims) != written:
                source.write(claims)
                written = claims

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(follow_tasks(book, source))


async def follow_tasks(book: TaskBook, source: TaskSource, *, look_seconds: float = LOOK_SECONDS) -> None:
    """Bring the operator's word into the book for ever; what can't be read leaves it as it is."""
    while True:
        if (found := await source.read()) is not None:
            await book.take(found)
        if book.claims:
            await asyncio.sleep(SOON_SECONDS)
            continue
        book.asked.clear()
        try:
            async with asyncio.timeout(look_seconds * random.uniform(0.8, 1.0)):  # noqa: S311
                await book.asked.wait()
        except TimeoutError:
            continue


class TaskReporter:
    """Reports to each task's gateway what became of it, each state until it is taken or the task's time is over."""

    def __init__(
        self,
        book: TaskBook,
        *,
        loopback: bool = False,
        pause_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`loopback`: gateways may be on this machine, as in tests."""
        self._book, self._loopback, self._pause, self._clock, self._now = book, loopback, pause_seconds, clock, now
        self._done: dict[str, set[str]] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Report for ever."""
        async with outside_session(loopback=self._loopback, seconds=REPORT_SECONDS) as session:
            while True:
                await self.once(session)
                await asyncio.sleep(self._pause)

    async def once(self, session: aiohttp.ClientSession) -> None:
        """Report what is due now, of all tasks side by side."""
        tasks = dict(self._book.published)
        for gone in self._done.keys() - tasks.keys():
            self._done.pop(gone)
            self._backoffs.pop(gone, None)
            self._not_before.pop(gone, None)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))
        due = [
            each
            for each in tasks.values()
            if each.deadline > now and self._clock() >= self._not_before.get(each.id, float("-inf"))
        ]
        await asyncio.gather(*(self._report(session, each) for each in due))

    async def _report(self, session: aiohttp.ClientSession, task: PublishedTask) -> None:
        done = self._done.setdefault(task.id, set())
        for state, report in self._book.reports(task):
            if state in done:
                continue
            if not await self._sent(session, task, state, report):
                backoff = self._backoffs.setdefault(task.id, Backoff(first=_FIRST_PAUSE, most=_LONGEST_PAUSE))
                self._not_before[task.id] = self._clock() + backoff.next()
                return
            done.add(state)
        self._backoffs.pop(task.id, None)

    async def _sent(self, session: aiohttp.ClientSession, task: PublishedTask, state: str, report: bytes) -> bool:
        """Tell whether nothing more is to be done: it was taken, or refused for good."""
        said = {"task": task.id, "state": state}
        try:
            url = reports_url(task.dataset)
            check_url(url, loopback=self._loopback)
            async with session.post(
                url, data=report, allow_redirects=False, headers={"Content-Type": "application/json"}
            ) as response:
                body = await read_bounded(response, _ANSWER_BYTES)
                status = response.status
        except (ForbiddenAddress, TaskError) as error:
            log.error("a task can't be reported: %s", error, extra=said)  # noqa: TRY400 - it says all
            return True
        except (aiohttp.ClientError, TimeoutError, OSError, TooLong) as error:
            log.warning("a task isn't reported yet", extra=said | {"why": type(error).__name__})
            return False
        if status == 200:
            log.info("a task was reported", extra=said)
            return True
        if status >= 500 or status in _AGAIN:
            log.warning("a task isn't reported yet", extra=said | {"why": _words(status, body)})
            return False
        log.error("a validator doesn't take a task's report", extra=said | {"why": _words(status, body)})
        return True


def _read(text: str) -> Mapping[str, PublishedTask] | None:
    try:
        found = PublishedTasks.model_validate_json(text)
    except ValidationError:
        log.error("what the operator says of tasks can't be read")  # noqa: TRY400
        return None
    return {each.id: each for each in found.tasks}


def _words(status: int, body: bytes) -> str:
    try:
        message = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        message = ""
    return f"{status} {str(message)[:300]}".strip()
