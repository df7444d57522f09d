"""Fine-tune tasks: what a twin should learn first, offered to the best miners; and what they report of it. Pure.

An offer and a report are canonical JSON, signed by who says it with its hotkey. What is reported is believed of the
miner that was asked alone; whether a version is any better is for the gate's paired test to say, never for a report.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bettertherapy_api.faults import first_fault
from neurons.ledger.records import Miner, Task, TaskEvent, TaskState, Twin, derived_id
from neurons.receipts import Keypair, NotCanonicalError, canonical, is_signed_by, parse_canonical, scheme_of
from neurons.validator.rounds.steps import key

OFFER: Final = "bettertherapy-task/1"
REPORT: Final = "bettertherapy-task-report/1"
MAX_BYTES: Final = 64 * 1024
MOST_TOPICS: Final = 8
PRIOR: Final = 5.0
"""Answers of middling worth that each topic is given on its way, so that one bad answer doesn't decide."""
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_AFTER: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.OFFERED: frozenset({TaskState.ACCEPTED, TaskState.REFUSED}),
    TaskState.ACCEPTED: frozenset({TaskState.FINISHED, TaskState.FAILED}),
}
"""What a miner may say next; PASSED and FAILED of a finished one are the validator's."""


class TaskError(ValueError):
    """A document is none, or not of whom it should be; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one answer to a topic: what it was worth, whether its claims are supported, how it was rated."""

    topic: str
    worth: float | None = None
    """0 to 1."""
    supported: float | None = None
    rating: float | None = None
    """0 to 1."""


def weakest_topics(seen: Iterable[Seen], *, most: int = MOST_TOPICS) -> tuple[str, ...]:
    """Return the topics to learn first: the worst rated, least supported, least right; of equals the one seen most."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for each in seen:
        values[each.topic] += [value for value in (each.worth, each.supported, each.rating) if value is not None]
    known = {topic: given for topic, given in values.items() if given}
    every = [value for given in known.values() for value in given]
    if not every:
        return ()
    middle = math.fsum(every) / len(every)
    means = {topic: (math.fsum(given) + PRIOR * middle) / (len(given) + PRIOR) for topic, given in known.items()}
    return tuple(sorted(means, key=lambda topic: (means[topic], -len(known[topic]), topic))[:most])


_Signed = TypeVar("_Signed", bound=BaseModel)


class Offer(BaseModel):
    """A task as a miner gets it."""

    model_config = _CONFIG

    format: Literal["bettertherapy-task/1"] = OFFER
    task: Annotated[str, Field(min_length=36, max_length=36)]
    validator: Annotated[str, Field(max_length=64)]
    miner: Annotated[str, Field(max_length=64)]
    netuid: Annotated[int, Field(ge=0, le=65535)]
    twin: Annotated[str, Field(min_length=1, max_length=253)]
    dataset: Annotated[str, Field(max_length=2048)]
    dataset_digest: _Digest
    parent: _Digest | None = None
    topics: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=MOST_TOPICS)] = ()
    offered: Annotated[int, Field(ge=0, le=2**53)]
    deadline: Annotated[int, Field(ge=0, le=2**53)]
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]


class Report(BaseModel):
    """What a miner says of a task."""

    model_config = _CONFIG

    format: Literal["bettertherapy-task-report/1"] = REPORT
    task: Annotated[str, Field(min_length=36, max_length=36)]
    miner: Annotated[str, Field(max_length=64)]
    state: Literal["accepted", "refused", "finished", "failed"]
    adapter: _Digest | None = None
    """Of what came out, once it is finished."""
    detail: Annotated[str, Field(max_length=1024)] = ""
    time: Annotated[int, Field(ge=0, le=2**53)]
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]


def make_tasks(
    twin: Twin,
    miners: Sequence[Miner],
    *,
    round_id: str,
    dataset_uri: str,
    dataset_digest: str,
    parent: str | None,
    at_ms: int,
    deadline_ms: int,
) -> list[Task]:
    """Return a twin's tasks for its best miners; the same for a round begun again."""
    return [
        Task(
            task_id=derived_id("task", round_id, twin.uid, dataset_digest, key(miner)), twin=twin, miner=miner,
            dataset_uri=dataset_uri, dataset_digest=dataset_digest, at_ms=at_ms, deadline_ms=deadline_ms,
            parent_digest=parent,
        )
        for miner in miners
    ]  # fmt: skip


def sign_offer(task: Task, keypair: Keypair, *, netuid: int, topics: Sequence[str]) -> bytes:
    """Return a task as it is sent to its miner, signed by the validator."""
    return _signed(
        keypair, OFFER,
        {
            "format": OFFER, "task": task.task_id, "validator": str(keypair.ss58_address), "miner": task.miner.hotkey,
            "netuid": netuid, "twin": task.twin.name, "dataset": task.dataset_uri, "datasetDigest": task.dataset_digest,
            "parent": task.parent_digest, "topics": list(topics)[:MOST_TOPICS], "offered": task.at_ms,
            "deadline": task.deadline_ms,
        },
    )  # fmt: skip


def read_offer(data: bytes, *, validator: str, miner: str) -> Offer:
    """Return the task that a validator offers this miner. Raises TaskError."""
    document, offer = _read(Offer, data)
    if offer.miner != miner:
        raise TaskError("The task is offered to another miner.")
    _check_signed(document, OFFER, by=validator, said=offer.validator, scheme=offer.scheme)
    return offer


def sign_report(
    keypair: Keypair, *, task: str, state: str, time_ms: int, adapter: str | None = None, detail: str = ""
) -> bytes:
    """Return what a miner says of a task, signed by it."""
    return _signed(
        keypair, REPORT,
        {
            "format": REPORT, "task": task, "miner": str(keypair.ss58_address), "state": state, "adapter": adapter,
            "detail": detail[:1024], "time": time_ms,
        },
    )  # fmt: skip


def take_report(data: bytes, *, task: Task, events: Sequence[TaskEvent], at_ms: int) -> TaskEvent:
    """Return the event that a miner's report comes to; one that came before is the same event.

    Raises:
        TaskError: it isn't by the task's miner, comes out of turn or too late, or names no adapter.
    """
    document, report = _read(Report, data)
    _check_signed(document, REPORT, by=task.miner.hotkey, said=report.miner, scheme=report.scheme)
    if report.task != task.task_id:
        raise TaskError("The report is of another task.")
    state = TaskState(report.state)
    known = [event for event in events if event.state is state]
    if known:
        return known[0]
    latest = events[-1].state if events else TaskState.OFFERED
    if state not in _AFTER.get(latest, frozenset()):
        raise TaskError(f"A task that is {latest.value} can't become {state.value}.")
    if at_ms > task.deadline_ms:
        raise TaskError("The task's time is over.")
    if state is TaskState.FINISHED and report.adapter is None:
        raise TaskError("A finished task names the digest of its adapter.")
    return _event(task, state, at_ms=at_ms, adapter=report.adapter, detail=report.detail)


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished task with the adapter that came of it."""

    task: Task
    adapter: str
    at_ms: int


def distinct(finished: Iterable[Finished], *, known: frozenset[str]) -> tuple[list[Finished], list[Finished]]:
    """Return the finished tasks that are evaluated, and those that aren't.

    An adapter that another reported first, or that there was before (`known`), is no work of who reports it now.
    """
    first: dict[str, Finished] = {}
    twice: list[Finished] = []
    for each in sorted(finished, key=lambda one: (one.at_ms, one.task.task_id)):
        if each.adapter in known or each.adapter in first:
            twice.append(each)
        else:
            first[each.adapter] = each
    return list(first.values()), twice


def credit(finished: Finished, *, promoted: bool, why: str, at_ms: int) -> TaskEvent:
    """Return what the gate's verdict on a finished task comes to."""
    state = TaskState.PASSED if promoted else TaskState.FAILED
    return _event(finished.task, state, at_ms=at_ms, adapter=finished.adapter, detail=why)


def _event(task: Task, state: TaskState, *, at_ms: int, adapter: str | None, detail: str) -> TaskEvent:
    return TaskEvent(
        event_id=derived_id("task-event", task.task_id, state.value), task_id=task.task_id, state=state, at_ms=at_ms,
        adapter_digest=adapter, detail=detail[:1024],
    )  # fmt: skip


def _signed(keypair: Keypair, form: str, document: dict[str, Any]) -> bytes:
    document["scheme"] = scheme_of(keypair)
    document["signature"] = "0x" + bytes(keypair.sign(f"{form}\n".encode() + canonical(document))).hex()
    return canonical(document)


def _read(kind: type[_Signed], data: bytes) -> tuple[dict[str, Any], _Signed]:
    if len(data) > MAX_BYTES:
        raise TaskError(f"The document has more than {MAX_BYTES} bytes.")
    try:
        document = parse_canonical(data)
        return document, kind.model_validate(document)
    except NotCanonicalError as error:
        raise TaskError(f"It can't be read: {error}.") from None
    except ValidationError as error:
        raise TaskError(f"It can't be read: {first_fault(error)}.") from None


def _check_signed(document: dict[str, Any], form: str, *, by: str, said: str, scheme: str) -> None:
    if said != by:
        raise TaskError(f"It is by {said}, and not by {by}.")
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    signature = bytes.fromhex(str(document["signature"]).removeprefix("0x"))
    if not is_signed_by(by, f"{form}\n".encode() + canonical(unsigned), signature, scheme=scheme):
        raise TaskError(f"{by} did not sign it.")
