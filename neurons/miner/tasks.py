"""Fine-tune tasks that validators offer this miner: which it takes, and how it answers.

What is taken is written down by the operator, as a FineTuneRun, before the validator is told: a miner that is killed in
between loses nothing that it has promised, and is offered the task again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.report import MAX_TASKS, TaskClaim
from bettertherapy_api.task_states import PublishedTask, TaskState
from neurons.miner.errors import RequestError, unavailable
from neurons.miner.tables import Snapshot, TwinRoute
from neurons.receipts import Keypair
from neurons.wire.tasks import Offer, TaskError, read_offer, sign_report

DECIDE_SECONDS: Final = 15.0
"""So long an offer waits for the operator's word; then the validator is asked to come back."""
LEAST_SECONDS: Final = 1800
"""A task whose time is shorter is refused: nothing is trained and examined in less."""
MOST_SECONDS: Final = 8 * 24 * 3600
HOTKEY: Final = "hotkey:"
"""Stands before the name of a caller who came by the signed door."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPolicy:
    """Which tasks are taken."""

    accept: bool = False
    netuid: int | None = None


class TaskBook:
    """What is offered and not decided, and what the operator has published."""

    def __init__(
        self,
        keypair: Keypair,
        *,
        policy: TaskPolicy,
        snapshot: Callable[[], Snapshot],
        changed: Callable[[], None] = lambda: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        decide_seconds: float = DECIDE_SECONDS,
    ) -> None:
        """`changed` is called when `claims` says something else."""
        self._keypair, self._policy, self._snapshot = keypair, policy, snapshot
        self._changed, self._now_ms, self._decide_seconds = changed, now_ms, decide_seconds
        self._hotkey = str(keypair.ss58_address)
        self._pending: dict[str, TaskClaim] = {}
        self._published: Mapping[str, PublishedTask] = {}
        self._news = asyncio.Condition()
        self.asked = asyncio.Event()
        """Set while somebody waits for the operator's word; who looks for it clears it."""

    @property
    def claims(self) -> list[TaskClaim]:
        """What the operator is asked about, in the order of ids."""
        now = _moment(self._now_ms())
        return [claim for _, claim in sorted(self._pending.items()) if claim.deadline > now]

    @property
    def published(self) -> Mapping[str, PublishedTask]:
        """What the operator says of tasks, by id."""
        return self._published

    async def take(self, tasks: Mapping[str, PublishedTask]) -> None:
        """Take what the operator has published."""
        decided = self._pending.keys() & tasks.keys()
        async with self._news:
            self._published = tasks
            for task in decided:
                del self._pending[task]
            self._news.notify_all()
        if decided:
            self._changed()

    async def offered(self, client: str, body: bytes) -> bytes:
        """Return the signed answer to an offer. Raises RequestError where there is none yet, or none to give."""
        if not client.startswith(HOTKEY):
            raise RequestError(
                403, "permission_error", "tasks are offered by validators: sign the request", code="not_signed"
            )
        try:
            offer = read_offer(body, validator=client.removeprefix(HOTKEY), miner=self._hotkey)
        except TaskError as error:
            raise RequestError(400, "invalid_request_error", str(error), code="bad_offer") from None
        if (known := self._published.get(offer.task)) is None:
            twin = self._snapshot().twins.get(offer.twin)
            refusal = self._refusal(offer, twin)
            if refusal is not None or twin is None:
                return self._report(offer.task, "refused", detail=refusal or "")
            known = await self._decided(offer, twin)
        if known.validator != offer.validator:
            return self._report(offer.task, "refused", detail="another validator has offered a task of this id")
        if known.state is TaskState.REFUSED:
            return self._report(offer.task, "refused", detail=known.message)
        return self._report(offer.task, "accepted")

    def reports(self, task: PublishedTask) -> list[tuple[str, bytes]]:
        """Return what is to be reported of a task that was taken, in its order: state and signed report."""
        if task.state is TaskState.REFUSED:
            return []
        said = [("accepted", self._report(task.id, "accepted"))]
        if task.state in (TaskState.FINISHED, TaskState.FAILED):
            state = task.state.value
            said.append((state, self._report(task.id, state, adapter=task.adapter, detail=task.message)))
        return said

    def _report(self, task: str, state: str, *, adapter: str | None = None, detail: str = "") -> bytes:
        return sign_report(
            self._keypair, task=task, state=state, adapter=adapter, detail=detail, time_ms=self._now_ms()
        )

    def _refusal(self, offer: Offer, twin: TwinRoute | None) -> str | None:
        """Return why a task isn't taken, as a sentence for the validator."""
        left = offer.deadline - self._now_ms()
        if not self._policy.accept:
            return "this miner takes no tasks"
        if offer.netuid != self._policy.netuid:
            return f"this miner is on subnet {self._policy.netuid}, and the task of {offer.netuid}"
        if left < LEAST_SECONDS * 1000 or left > MOST_SECONDS * 1000:
            return f"a task has to leave from {LEAST_SECONDS} to {MOST_SECONDS} s, and this one leaves {left // 1000} s"
        if twin is None or not twin.uid or not twin.active:
            return "the twin isn't served here"
        serving = max(twin.active, key=lambda each: each.weight).digest
        if serving != offer.parent:
            return (
                f"the twin answers by {serving or 'the base model'} here, and the task is to begin from another version"
            )
        return None

    async def _decided(self, offer: Offer, twin: TwinRoute) -> PublishedTask:
        """Ask the operator, and return its word. Raises RequestError (503) where there is none in time."""
        if offer.task not in self._pending:
            if len(self._pending) >= MAX_TASKS:
                self._forget_old()
            if len(self._pending) >= MAX_TASKS:
                raise unavailable("too many tasks wait for a decision", retry_after=5, code="tasks_waiting")
            self._pending[offer.task] = TaskClaim(
                id=offer.task, validator=offer.validator, twin=offer.twin, twin_uid=twin.uid, dataset=offer.dataset,
                dataset_digest=offer.dataset_digest, interactions=offer.interactions, parent_digest=offer.parent,
                deadline=_moment(offer.deadline),
            )  # fmt: skip
            self._changed()
        self.asked.set()
        try:
            async with asyncio.timeout(self._decide_seconds), self._news:
                await self._news.wait_for(lambda: offer.task in self._published)
                return self._published[offer.task]
        except TimeoutError:
            raise unavailable(
                "the operator hasn't decided on the task yet: offer it again", retry_after=5, code="task_waiting"
            ) from None

    def _forget_old(self) -> None:
        now = _moment(self._now_ms())
        for task in [task for task, claim in self._pending.items() if claim.deadline <= now]:
            del self._pending[task]


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
