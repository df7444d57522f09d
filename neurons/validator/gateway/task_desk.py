"""What a miner with a fine-tune task fetches of the gateway, what it says and what it delivers.

    GET  /v1/tasks/ID/dataset?…        what it learns from, by an address that the validator's hotkey signed
    POST /v1/tasks/ID/reports          what became of the task, signed by the miner's hotkey
    PUT  /v1/tasks/ID/adapter?…&file=  what it made, file by file, by the dataset's address (`deliveries`)
    GET  /v1/tasks/ID/examination?…    for the validator's own: what the miner had, and what no miner is given

No key opens them. A dataset is not kept: it is made anew from the ledger, and given only as long as that comes to the
very bytes that were offered. So what a patient takes back is gone from here at once. Nothing of it gets into a log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import orjson
from aiohttp import web
from sqlalchemy.engine import URL

from bettertherapy_api.manifest import MANIFEST_FILE
from neurons.ledger import Ledger, LedgerDown, Task, TaskEvent, TaskState, Training, derived_id
from neurons.ledger.database import Database
from neurons.ledger.dataset import Bounds, again
from neurons.ledger.records import AnyRecord
from neurons.miner.bodies import read_body
from neurons.miner.errors import JSON_HEADERS, RequestError, overloaded
from neurons.receipts import Keypair
from neurons.store import StoreError
from neurons.validator.gateway.deliveries import MOST_MANIFEST, Deliveries, NotTaken
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.rounds.tasks import event_of, take_report
from neurons.wire.capability import Capability, CapabilityError, read_capability
from neurons.wire.metagraph import Reading
from neurons.wire.rates import Rates
from neurons.wire.tasks import ADAPTER, DATASET, EXAMINATION, MAX_BYTES, TaskError, read_report

log = logging.getLogger(__name__)

MOST_FETCHES: Final = 16
"""At once; whoever is counted among them has an address that this validator signed."""
MOST_REPORTS: Final = 64
"""At once; of whom they are is known when they were read."""
READ_SECONDS: Final = 5.0
MOST_WAITING: Final = 8
"""Who wants a dataset while others are made; one is made at a time."""
MAKE_SECONDS: Final = 120.0
AGAIN_SECONDS: Final = 10
FETCHES_PER_SECOND: Final = 1 / 30
FETCHES: Final = 10
"""Of one task at once; a trainer that starts again fetches it again."""
MOST_TASKS: Final = 4096
_PIECE_BYTES: Final = 256 * 1024
MOST_DELIVERIES: Final = 32
"""Files that are taken at once, of one task one: a task's miner alone must not hold all places."""
DELIVER_SECONDS: Final = 900.0
SILENT_SECONDS: Final = 20.0
"""Between two pieces of a file."""
GRACE_SECONDS: Final = 30.0
SLOWEST_BYTES: Final = 128 * 1024
"""A second, once the grace is over: who holds a place without sending keeps others out of it."""
_OPEN: Final = frozenset({TaskState.OFFERED, TaskState.EXPIRED, TaskState.ACCEPTED})
_DELIVERABLE: Final = frozenset({TaskState.ACCEPTED, TaskState.FINISHED})
_METHODS: Final = {DATASET: "GET", EXAMINATION: "GET", "reports": "POST", ADAPTER: "PUT"}


class TaskDesk:
    """Answers both; `ledger` is read and written directly, past any queue: what a miner is told is true then."""

    def __init__(
        self,
        *,
        keypair: Keypair,
        ledger: Ledger | None,
        reading: Callable[[], Reading],
        metrics: Metrics,
        deliveries: Deliveries | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`reading`: the metagraph in use. `deliveries`: where adapters are put; None: none are taken."""
        self._metrics, self._deliveries = metrics, deliveries
        self._delivering: set[str] = set()
        self._keypair, self._ledger, self._reading, self._now_ms = keypair, ledger, reading, now_ms
        self._making = asyncio.Semaphore(1)
        self._waiting = 0
        self._fetching = self._reporting = 0
        self._made: set[asyncio.Task[bytes | None]] = set()
        self._rates = Rates(per_second=FETCHES_PER_SECOND, burst=FETCHES)
        self._fetched: set[str] = set()

    async def answer(self, request: web.BaseRequest, task_id: str, what: str) -> web.Response:
        """Answer a request of a task. Raises RequestError."""
        try:
            response = await self._answer(request, task_id, what)
        except RequestError as error:
            self._metrics.tasks.labels(what, str(error.status)).inc()
            raise
        self._metrics.tasks.labels(what, str(response.status)).inc()
        return response

    async def _answer(self, request: web.BaseRequest, task_id: str, what: str) -> web.Response:
        ledger = self._ledger
        if ledger is None:
            raise RequestError(404, "invalid_request_error", "this gateway keeps no ledger", code="no_ledger")
        wanted = _METHODS[what]
        if request.method != wanted:
            raise RequestError(
                405, "invalid_request_error", f"use {wanted} for a task's {what}", code="wrong_method", allow=wanted
            )
        try:
            match what:
                case "dataset" | "examination":
                    return await self._fetch(ledger, task_id, request.query, what=what)
                case "adapter":
                    return await self._deliver(ledger, task_id, request)
                case _:
                    return await self._hear(ledger, task_id, request)
        except LedgerDown:
            raise RequestError(
                503, "server_error", "the ledger doesn't answer, and tasks are kept there: come back soon",
                code="ledger_down", retry_after=AGAIN_SECONDS,
            ) from None  # fmt: skip

    def _opened(self, task_id: str, query: Mapping[str, str], *, what: str) -> Capability:
        try:
            return read_capability(task_id, query, keypair=self._keypair, now_ms=self._now_ms(), what=what)
        except CapabilityError as error:
            raise RequestError(403, "permission_error", str(error), code="not_opened") from None

    async def _fetch(self, ledger: Ledger, task_id: str, query: Mapping[str, str], *, what: str) -> web.Response:
        capability = self._opened(task_id, query, what=what)
        if self._fetching >= MOST_FETCHES:
            raise overloaded("too many datasets are fetched at once: come back soon", retry_after=AGAIN_SECONDS)
        self._within_rate(task_id)
        self._fetching += 1
        try:
            return await self._dataset(ledger, task_id, capability)
        finally:
            self._fetching -= 1

    async def _hear(self, ledger: Ledger, task_id: str, request: web.BaseRequest) -> web.Response:
        if self._reporting >= MOST_REPORTS:
            raise overloaded("too many miners report at once: come back soon", retry_after=AGAIN_SECONDS)
        self._reporting += 1
        try:
            return await self._report(ledger, task_id, request)
        finally:
            self._reporting -= 1

    async def _dataset(self, ledger: Ledger, task_id: str, capability: Capability) -> web.Response:
        states = await ledger.task(task_id)
        if states is None:
            raise _unknown(task_id)
        latest = states.events[-1].state if states.events else TaskState.OFFERED
        if latest is TaskState.WITHDRAWN:
            raise _withdrawn()
        if latest not in (_OPEN if capability.what == DATASET else {TaskState.FINISHED}):
            raise RequestError(
                410, "invalid_request_error", f"the task is {latest.value}: its dataset isn't given any more",
                code="task_over",
            )  # fmt: skip
        data = await self._make(ledger, states.task, capability)
        if data is None:
            if capability.what == DATASET:
                await self._withdraw(ledger, task_id)
            raise _withdrawn()
        headers = {"Content-Type": "application/jsonl", "Cache-Control": "no-store"}
        return web.Response(body=data, headers=headers)

    def _within_rate(self, task_id: str) -> None:
        if wait := self._rates.wait(task_id):
            raise RequestError(
                429, "rate_limit_error", f"the dataset was fetched too often: wait {wait} s", code="rate_limited",
                retry_after=wait,
            )  # fmt: skip
        if len(self._fetched) >= MOST_TASKS:
            self._fetched.clear()
        self._fetched.add(task_id)
        self._rates.keep(self._fetched)
        self._rates.take(task_id)

    async def _make(self, ledger: Ledger, task: Task, capability: Capability) -> bytes | None:
        if capability.what == DATASET and capability.digest != task.dataset_digest:
            return None
        if self._waiting >= MOST_WAITING:
            raise overloaded("other datasets are made at the moment: come back soon", retry_after=AGAIN_SECONDS)
        self._waiting += 1
        try:
            made = asyncio.create_task(self._one_at_a_time(ledger.database.url, task, capability))
            self._made.add(made)
            made.add_done_callback(self._made.discard)
            # A thread can't be ended: who leaves meanwhile must not let another one begin beside it.
            return await asyncio.shield(made)
        finally:
            self._waiting -= 1

    async def _one_at_a_time(self, url: URL, task: Task, capability: Capability) -> bytes | None:
        async with self._making:
            bounds = Bounds(capability.start_ms, capability.end_ms)
            # Beside the loop, by a connection of its own: patients' answers don't wait for a twin's whole day.
            return await asyncio.to_thread(_made_again, url, task.twin.uid, bounds, capability.digest)

    async def _withdraw(self, ledger: Ledger, task_id: str) -> None:
        """Note that the task's dataset is no more, so that it counts neither way."""

        def decide(task: Task, events: Sequence[TaskEvent]) -> Sequence[AnyRecord]:
            latest = events[-1].state if events else TaskState.OFFERED
            return [event_of(task, TaskState.WITHDRAWN, at_ms=self._now_ms())] if latest in _OPEN else []

        await ledger.decide_on_task(task_id, decide)

    async def _deliver(self, ledger: Ledger, task_id: str, request: web.BaseRequest) -> web.Response:
        """Take one file of the adapter that a miner made; its address is the dataset's, with the file's name."""
        self._opened(task_id, request.query, what=DATASET)
        if self._deliveries is None:
            raise RequestError(
                404, "invalid_request_error", "this validator examines no versions: nothing is delivered here",
                code="no_deliveries",
            )  # fmt: skip
        if task_id in self._delivering or len(self._delivering) >= MOST_DELIVERIES:
            raise overloaded("too many files are delivered at once: come back soon", retry_after=AGAIN_SECONDS)
        self._delivering.add(task_id)
        try:
            return await self._take(ledger, self._deliveries, task_id, request)
        finally:
            self._delivering.discard(task_id)

    async def _take(
        self, ledger: Ledger, deliveries: Deliveries, task_id: str, request: web.BaseRequest
    ) -> web.Response:  # fmt: skip
        states = await ledger.task(task_id)
        if states is None:
            raise _unknown(task_id)
        latest = states.events[-1].state if states.events else TaskState.OFFERED
        if latest not in _DELIVERABLE:
            raise RequestError(
                409, "invalid_request_error", f"the task is {latest.value}: nothing is delivered for it",
                code="not_taken", retry_after=AGAIN_SECONDS if latest in _OPEN else None,
            )  # fmt: skip
        name, adapter = request.query.get("file", ""), request.query.get("adapter", "")
        try:
            async with asyncio.timeout(DELIVER_SECONDS):
                if name == MANIFEST_FILE:
                    taken = await deliveries.put_manifest(
                        task_id, await _small(request), parent=states.task.parent_digest
                    )
                else:
                    taken = await deliveries.put_file(task_id, adapter, name, _pieces(request))
        except NotTaken as error:
            raise RequestError(422, "invalid_request_error", str(error), code="not_taken") from None
        except TimeoutError:
            raise RequestError(
                408, "timeout",
                f"no piece came for {SILENT_SECONDS:.0f} s, less than {SLOWEST_BYTES // 1024} KiB a second, or not all "
                f"in {DELIVER_SECONDS:.0f} s",
                code="body_timeout",
            ) from None  # fmt: skip
        except StoreError as error:
            log.error("what miners deliver can't be kept: %s", error)  # noqa: TRY400
            raise RequestError(
                503, "server_error", "what is delivered can't be kept at the moment: come back soon",
                code="store_down", retry_after=AGAIN_SECONDS,
            ) from None  # fmt: skip
        if not taken.missing:  # it may never be reported, and yet it learned from patients
            await ledger.decide_on_task(
                task_id, lambda task, _: [_training(task, taken.adapter, at_ms=self._now_ms())]
            )  # fmt: skip
        return web.Response(
            body=orjson.dumps({"adapter": taken.adapter, "missing": list(taken.missing)}), headers=JSON_HEADERS
        )

    async def _report(self, ledger: Ledger, task_id: str, request: web.BaseRequest) -> web.Response:
        if (request.content_length or 0) > MAX_BYTES:
            raise RequestError(
                413, "invalid_request_error", f"a report has at most {MAX_BYTES} bytes", code="body_too_large"
            )
        try:
            async with asyncio.timeout(READ_SECONDS):
                data = await read_body(request)
        except TimeoutError:
            raise RequestError(
                408, "timeout", f"the report didn't arrive within {READ_SECONDS:.0f} s", code="body_timeout"
            ) from None
        try:
            report = read_report(data)
        except TaskError as error:
            raise RequestError(400, "invalid_request_error", str(error), code="bad_report") from None
        if report.task != task_id:
            raise RequestError(400, "invalid_request_error", "The report is of another task.", code="bad_report")
        block = self._registered(report.miner)
        if report.state == TaskState.FINISHED.value and report.adapter is not None and self._deliveries is not None:
            await self._check_delivered(ledger, self._deliveries, task_id, report.adapter)
        said: list[TaskState] = []

        def decide(task: Task, events: Sequence[TaskEvent]) -> Sequence[AnyRecord]:
            if report.miner == task.miner.hotkey and block != task.miner.registered_block:
                raise TaskError("The miner was registered anew since it was offered the task.")
            event = take_report(data, task=task, events=events, at_ms=self._now_ms())
            said.append(event.state)
            return [event, *_lineage(task, event)]

        try:
            found = await ledger.decide_on_task(task_id, decide)
        except TaskError as error:
            raise RequestError(409, "invalid_request_error", str(error), code="not_taken") from None
        if not found:
            raise _unknown(task_id)
        return web.Response(body=orjson.dumps({"task": task_id, "state": said[0].value}), headers=JSON_HEADERS)

    async def _check_delivered(
        self, ledger: Ledger, deliveries: Deliveries, task_id: str, adapter: str
    ) -> None:  # fmt: skip
        """Raise RequestError while the adapter that is reported isn't here: what is here was made for this very task,
        so nobody finishes a task by another's digest, or by any other that he knows."""
        states = await ledger.task(task_id)
        if states is None or states.events[-1:] == () or states.events[-1].state is not TaskState.ACCEPTED:
            return  # nothing can become finished by it, or it is already
        try:
            there = await deliveries.has(task_id, adapter)
        except StoreError as error:
            log.error("what miners deliver can't be looked at: %s", error)  # noqa: TRY400
            raise RequestError(
                503, "server_error", "what was delivered can't be looked at at the moment: come back soon",
                code="store_down", retry_after=AGAIN_SECONDS,
            ) from None  # fmt: skip
        if not there:
            raise RequestError(
                425, "invalid_request_error",
                "the adapter was not delivered yet, and a finished task counts with it alone: deliver it, and report "
                "again",
                code="not_delivered", retry_after=AGAIN_SECONDS,
            )  # fmt: skip

    def _registered(self, hotkey: str) -> int:
        """Return the block at which a hotkey was registered. Raises RequestError: strangers' words cost no look-up."""
        metagraph = self._reading().metagraph
        if metagraph is None:
            raise RequestError(
                503, "server_error", "this gateway has read no metagraph yet: come back soon", code="no_metagraph",
                retry_after=AGAIN_SECONDS,
            )  # fmt: skip
        found = next((each for each in metagraph.neurons if each.hotkey == hotkey), None)
        if found is None:
            raise RequestError(
                403, "permission_error", f"{hotkey} is not registered on subnet {metagraph.netuid}",
                code="not_registered",
            )  # fmt: skip
        return found.block_at_registration


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body in pieces. Raises TimeoutError for one that falls silent, or drips."""
    size, waited = 0, 0.0
    while True:
        asked = time.monotonic()
        async with asyncio.timeout(SILENT_SECONDS):
            piece = await request.content.read(_PIECE_BYTES)
        waited += time.monotonic() - asked  # not what it takes to write it here
        if not piece:
            return
        size += len(piece)
        if size < (waited - GRACE_SECONDS) * SLOWEST_BYTES:
            raise TimeoutError
        yield piece


async def _small(request: web.BaseRequest) -> bytes:
    parts, size = [], 0
    async for piece in _pieces(request):
        size += len(piece)
        if size > MOST_MANIFEST:
            raise NotTaken(f"A manifest has at most {MOST_MANIFEST} bytes.")
        parts.append(piece)
    return b"".join(parts)


def _lineage(task: Task, event: TaskEvent) -> list[Training]:
    """Return the record by which an erasure finds what learned from a patient."""
    if event.state is not TaskState.FINISHED or event.adapter_digest is None:
        return []
    return [_training(task, event.adapter_digest, at_ms=event.at_ms)]


def _training(task: Task, adapter: str, *, at_ms: int) -> Training:
    return Training(
        training_id=derived_id("task-training", task.task_id, adapter), run=f"task-{task.task_id}", twin=task.twin,
        dataset_digest=task.dataset_digest, adapter_digest=adapter, at_ms=at_ms, parent_digest=task.parent_digest,
    )  # fmt: skip


def _made_again(url: URL, twin_uid: str, bounds: Bounds, digest: str) -> bytes | None:
    async def make() -> bytes | None:
        database = Database(url.render_as_string(hide_password=False), pool=1)
        try:
            async with database.long(seconds=MAKE_SECONDS) as connection:
                return await again(connection, twin_uid=twin_uid, bounds=bounds, digest=digest)
        finally:
            await database.close()

    return asyncio.run(make())


def _unknown(task_id: str) -> RequestError:
    return RequestError(404, "invalid_request_error", f"the ledger has no task {task_id}", code="unknown_task")


def _withdrawn() -> RequestError:
    return RequestError(
        410, "invalid_request_error",
        "the dataset is no more: a patient took back what was in it, or the day's records have changed. The task "
        "counts neither way",
        code="dataset_withdrawn",
    )  # fmt: skip
