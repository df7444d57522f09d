"""Hands fine-tune tasks to a round's best miners: made once, stored before anything is sent, offered until answered.

Which dataset goes to whom is a step of the round in the ledger, and a task's id follows from twin, dataset and miner: a
round that is killed anywhere, and a later one of the same day, hand out each task once. What a miner answers is an
event of the task; one that can't be reached is offered it again for a while, and then left, in words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, Protocol

import aiohttp
import orjson

from bettertherapy_api.round_progress import OrderedTasks, RoundOrder
from neurons.ledger import Ledger
from neurons.ledger.dataset import Bounds, Disliked, Line, yesterday
from neurons.ledger.records import Miner, RoundItem, Score, Task, TaskState, Twin
from neurons.ledger.rounds import RoundRows, TaskStates, round_rows, tasks_by_id
from neurons.outside import TooLong, read_bounded
from neurons.receipts import Keypair
from neurons.validator.gateway.roster import Member
from neurons.validator.rounds.conclude import Results
from neurons.validator.rounds.marks import WORTH
from neurons.validator.rounds.planning import round_id_of
from neurons.validator.rounds.steps import Step, key, miner_of, of_milli, step_record
from neurons.validator.rounds.subnet import Subnet
from neurons.validator.rounds.tasks import Seen, event_of, take_report, task_id, weakest_topics
from neurons.validator.rounds.together import together
from neurons.wire.capability import Capability, signed_url
from neurons.wire.signer import RequestSigner, signed_request
from neurons.wire.tasks import MAX_BYTES, PATH, TaskError, sign_offer

log = logging.getLogger(__name__)

OFFER_SECONDS: Final = 25.0
"""For one answer: the miner's operator writes the task down before it is accepted."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
LONGEST_SECONDS: Final = 180.0
"""So long a round's tasks are offered: its weights wait for it."""
RESERVE_SECONDS: Final = 60.0
"""Of the round's time so much is left for its end: a Job that is killed fails, though its results are stored."""
AT_ONCE: Final = 64
_PASSING: Final = frozenset({408, 425, 429})
_OURS: Final = frozenset({401, 403, 429})
DEFAULT_MINERS: Final = 100
MOST_BYTES: Final = 32 * 1024 * 1024
"""Of one dataset."""
MIDDLING_STARS: Final = 3


class Unreached(Exception):  # noqa: N818 - said of a miner
    """An offer got no answer that counts; the message is a clause."""

    def __init__(self, message: str, *, again: bool, ours: bool = False) -> None:
        super().__init__(message)
        self.again = again
        """Whether another try may succeed."""
        self.ours = ours
        """It may be this validator's own fault: its clock, its permit, its rate."""


class _NoTime(Unreached):
    """The round's time is over: no miner's fault, and no miner said so."""

    def __init__(self) -> None:
        super().__init__("the round's time is over", again=False, ours=True)


@dataclass(slots=True)
class _Said:
    """How miners answered one round's offers."""

    answered: int = 0
    blamed: list[tuple[Task, str]] = field(default_factory=list)
    """Who called it the validator's fault, and how."""


class Post(Protocol):
    """Brings an offer to a miner."""

    async def __call__(self, member: Member, offer: bytes) -> bytes:
        """Return the miner's signed report. Raises Unreached."""


class Classify(Protocol):
    """Tells what questions are about."""

    def __call__(self, questions: Sequence[str]) -> Sequence[str | None]:
        """Return each question's topic; None where it is of none. It may block."""


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What was handed out by one round."""

    made: int = 0
    sent: int = 0
    """Of those under way, so many the miners have answered."""
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class SignedPost:
    """Sends offers by the signed wire."""

    session: aiohttp.ClientSession
    signer: RequestSigner
    seconds: float = OFFER_SECONDS

    async def __call__(self, member: Member, offer: bytes) -> bytes:
        """See `Post`."""
        url = member.url.with_path(PATH)
        try:
            async with (
                asyncio.timeout(self.seconds),
                signed_request(
                    self.session, self.signer, method="POST", url=url, receiver=member.hotkey, body=offer, tries=1
                ) as response,
            ):
                data = await read_bounded(response, MAX_BYTES)
                status = response.status
        except TooLong as error:
            raise Unreached(f"its answer can't be taken: {error}", again=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreached(f"it can't be reached ({type(error).__name__})", again=True) from None
        if status == 200:
            return data
        raise Unreached(
            f"it answered {status}{_code_in(data)}", again=status in _PASSING or status >= 500, ours=status in _OURS
        )


@dataclass(frozen=True, kw_only=True)
class HandingOut:
    """Hands out one round's tasks."""

    ledger: Ledger
    subnet: Subnet
    keypair: Keypair
    post: Post
    now_ms: Callable[[], int]
    classify: Classify | None = None
    """None: nobody can tell what patients' questions are about."""
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)

    async def hand_out(
        self, order: RoundOrder, rows: RoundRows, results: Results, twins: Mapping[str, Twin], *, started_ms: int
    ) -> HandedOut:
        """Make the round's tasks and offer them; what is done already is not done again. Raises LedgerError.

        `rows`: the finished round's. `started_ms`: its moment, in milliseconds since 1970.
        """
        wanted = order.tasks
        round_id = round_id_of(order.uid)
        if wanted is None:
            return HandedOut()
        step = rows.steps.get(Step.TASKS.value)
        if step is None:
            day = yesterday(now=datetime.fromtimestamp(started_ms / 1000, UTC), zone=wanted.time_zone)
            planned = await self._plan(wanted, order, rows, results, twins, day=day)
            # Whoever came first holds: another attempt may have done the same side by side.
            await self.ledger.record(step_record(round_id, Step.TASKS, planned, at_ms=self.now_ms()))
            step = (await round_rows(self.ledger.database, round_id)).steps[Step.TASKS.value]
        evidence = step.evidence
        made = self._tasks(evidence, wanted)
        ids = [each.task_id for each in made]
        known = await tasks_by_id(self.ledger.database, ids)
        if new := [each for each in made if each.task_id not in {one.task.task_id for one in known}]:
            await self.ledger.record(*new)
            known = await tasks_by_id(self.ledger.database, ids)
        until_ms = self._until(order, started_ms)
        said = _Said(_counted(known, since_ms=int(evidence["at"])).sent)
        await self._offer_all([each for each in known if _is_open(each)], evidence, order, said, until_ms=until_ms)
        return _counted(await tasks_by_id(self.ledger.database, ids), since_ms=int(evidence["at"]))

    async def _plan(
        self, wanted: OrderedTasks, order: RoundOrder, rows: RoundRows, results: Results, twins: Mapping[str, Twin], *,
        day: date,
    ) -> dict[str, Any]:  # fmt: skip
        """Return which dataset of which twin goes to whom."""
        at_ms, bounds = self.now_ms(), Bounds.of(day, zone=wanted.time_zone)
        best = _best(results, order)
        found: dict[str, Any] = {}
        for name in sorted(twins):
            if order.twins is not None and name not in order.twins:
                continue
            parents = self.subnet.parents(name)
            chosen = {key(each): parents[each] for each in best if each in parents}
            if not chosen:
                continue
            picked = _Picked(
                seen=_seen(rows, twins[name]), classify=self.classify, least=wanted.min_interactions,
                most=wanted.max_interactions,
            )  # fmt: skip
            made = await self.ledger.task_dataset(
                twin_uid=twins[name].uid, day=day, zone=wanted.time_zone, choose=picked
            )
            if made.lines:
                found[twins[name].uid] = {
                    "name": name, "digest": made.digest, "lines": made.lines, "topics": list(picked.topics),
                    "miners": chosen,
                }  # fmt: skip
        return {
            "at": at_ms, "deadline": at_ms + wanted.deadline_seconds * 1000, "day": day.isoformat(),
            "from": bounds.start_ms, "to": bounds.end_ms, "twins": found,
        }  # fmt: skip

    def _tasks(self, evidence: Mapping[str, Any], wanted: OrderedTasks) -> list[Task]:
        made = []
        for uid, of_twin in sorted(evidence["twins"].items()):
            twin = Twin(uid=uid, name=of_twin["name"])
            for word, parent in sorted(of_twin["miners"].items()):
                miner = miner_of(word)
                own = task_id(twin, of_twin["digest"], miner)
                capability = Capability(
                    own, of_twin["digest"], evidence["from"], evidence["to"], until_ms=evidence["deadline"]
                )
                made.append(
                    Task(
                        task_id=own, twin=twin, miner=miner, at_ms=evidence["at"], deadline_ms=evidence["deadline"],
                        dataset_uri=signed_url(self.keypair, capability, base=wanted.url),
                        dataset_digest=of_twin["digest"], parent_digest=parent,
                    )
                )  # fmt: skip
        return made

    def _until(self, order: RoundOrder, started_ms: int) -> int:
        """Return until when tasks are offered; where the round has no time left a later one of the day does it."""
        ends = started_ms + round((order.deadline_seconds - RESERVE_SECONDS) * 1000)
        return min(self.now_ms() + round(LONGEST_SECONDS * 1000), ends)

    async def _offer_all(
        self, open_tasks: Sequence[TaskStates], evidence: Mapping[str, Any], order: RoundOrder, said: _Said, *,
        until_ms: int,
    ) -> None:  # fmt: skip
        at_once = asyncio.Semaphore(AT_ONCE)
        twins = evidence["twins"]
        async with self.subnet.followed():
            await together(
                [
                    self._offer(each, twins[each.task.twin.uid], order, at_once, said, until_ms=until_ms)
                    for each in open_tasks
                ]
            )
        # A clock or a permit that is wrong is so for all: who is alone with it has only found words for taking nothing.
        if said.answered >= max(1, len(said.blamed)):
            await self.ledger.record(
                *(
                    event_of(
                        task, TaskState.EXPIRED, at_ms=self.now_ms(),
                        detail=f"the miner was left: {why}, and {said.answered} others answered theirs",
                    )
                    for task, why in said.blamed
                )
            )  # fmt: skip

    async def _offer(
        self, states: TaskStates, of_twin: Mapping[str, Any], order: RoundOrder, at_once: asyncio.Semaphore,
        said: _Said, *, until_ms: int,
    ) -> None:  # fmt: skip
        task, pause = states.task, FIRST_PAUSE
        offer = sign_offer(
            self.keypair, task=task.task_id, miner=task.miner.hotkey, netuid=order.netuid, twin=task.twin.name,
            dataset=task.dataset_uri, dataset_digest=task.dataset_digest, interactions=of_twin["lines"],
            parent=task.parent_digest, topics=tuple(of_twin["topics"]), offered_ms=task.at_ms,
            deadline_ms=task.deadline_ms,
        )  # fmt: skip
        while True:
            try:
                async with at_once:
                    data = await self._sent(task, offer, until_ms=until_ms)
                event = take_report(data, task=task, events=states.events, at_ms=self.now_ms())
            except (Unreached, TaskError) as error:
                again = isinstance(error, Unreached) and error.again
                if again and self.now_ms() + pause * 1000 < min(until_ms, task.deadline_ms):
                    await self.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                log.warning("a task isn't taken", extra={"hotkey": task.miner.hotkey, "why": str(error)[:300]})
                if isinstance(error, Unreached) and error.ours:  # what may be our fault is not told of it yet
                    if not isinstance(error, _NoTime):
                        said.blamed.append((task, str(error)))
                else:
                    await self.ledger.record(
                        event_of(task, TaskState.EXPIRED, at_ms=self.now_ms(), detail=f"the miner was left: {error}")
                    )
                return
            said.answered += 1
            await self.ledger.record(event)
            return

    async def _sent(self, task: Task, offer: bytes, *, until_ms: int) -> bytes:
        if self.now_ms() >= min(until_ms, task.deadline_ms):
            raise _NoTime
        member = self.subnet.serving(task.twin.name).get(task.miner)
        if member is None:
            raise Unreached("it announces the twin no more", again=True)
        return await self.post(member, offer)


@dataclass(slots=True)
class _Picked:
    """Picks a dataset's lines: what can be learned, of the weakest topics first. Called once."""

    seen: Sequence[Seen]
    classify: Classify | None
    least: int
    most: int
    topics: tuple[str, ...] = ()

    def __call__(self, lines: Sequence[Line], disliked: Sequence[Disliked]) -> Sequence[Line]:
        # What nobody rated or corrected teaches nothing there: it stays here.
        lines = [each for each in lines if each.teaches]
        if len(lines) < self.least:
            return []
        asked: list[Line | Disliked] = [*lines, *disliked]
        every = self.classify([each.asked for each in asked]) if self.classify is not None else [None] * len(asked)
        rated = [
            Seen(topic, rating=(each.stars - 1) / 4)
            for each, topic in zip(asked, every, strict=True)
            if topic is not None and each.stars is not None
        ]
        found = every[: len(lines)]
        self.topics = weakest_topics([*self.seen, *rated])
        places = {topic: place for place, topic in enumerate(self.topics)}
        ordered = sorted(
            zip(lines, found, strict=True),
            key=lambda pair: (
                places.get(pair[1] or "", len(places)), pair[0].stars or MIDDLING_STARS, pair[0].digest
            ),
        )  # fmt: skip
        picked, size = [], 0
        for line, _ in ordered[: self.most]:
            size += len(line.data) + 1
            if size > MOST_BYTES:
                break
            picked.append(line)
        return picked


def _best(results: Results, order: RoundOrder) -> list[Miner]:
    """Return the miners that the round pays, the best first."""
    most = order.rewards.top_miners if order.rewards is not None else DEFAULT_MINERS
    paid = [each.miner for each in results.outcomes if results.rewards.weights.get(each.miner, 0) > 0]
    return paid[:most]


def _seen(rows: RoundRows, twin: Twin) -> list[Seen]:
    """Return what the round says of the twin's answers, by topic."""
    topics = {each.item_id: topic for each in rows.items if each.twin.uid == twin.uid and (topic := _topic(each))}
    return [
        Seen(topics[each.item_id], worth=of_milli(each.value_milli), supported=_supported(each))
        for each in rows.scores
        if each.part == WORTH and each.item_id in topics
    ]


def _topic(item: RoundItem) -> str | None:
    challenge = item.reference.get("challenge")
    return str(challenge.get("category") or "") or None if isinstance(challenge, Mapping) else None


def _supported(score: Score) -> float | None:
    """Return which share of an answer's claims are supported, of those that could be checked."""
    standings = [str(each.get("standing")) for each in score.evidence.get("facts", ())]
    checked = [each == "Supported" for each in standings if each in ("Supported", "Contradicted")]
    return sum(checked) / len(checked) if checked else None


def _is_open(states: TaskStates) -> bool:
    """Tell whether a task waits for its miner's answer still."""
    return {event.state for event in states.events} <= {TaskState.EXPIRED}


def _counted(tasks: Iterable[TaskStates], *, since_ms: int) -> HandedOut:
    """Return what this round handed out: a task of an earlier one counts where this one was answered."""
    made = sent = accepted = 0
    for each in tasks:
        made += each.task.at_ms == since_ms
        states = {event.state for event in each.events if event.at_ms >= since_ms}
        sent += bool(states & {TaskState.ACCEPTED, TaskState.REFUSED})
        accepted += TaskState.ACCEPTED in states
    return HandedOut(made, sent, accepted)


def _code_in(data: bytes) -> str:
    try:
        code = orjson.loads(data)["error"]["code"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""
    return f" ({code})" if isinstance(code, str) and code.isascii() and code.isprintable() and len(code) < 33 else ""
