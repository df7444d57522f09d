"""What validator and miner say to each other of fine-tune tasks: offers and reports. Pure.

An offer and a report are canonical JSON, signed by who says it with its hotkey. A validator sends an offer to
`POST /v1/tasks` of a miner and is answered with a report; later ones the miner sends to `POST /v1/tasks/ID/reports` of
the gateway that has the dataset, at `GET /v1/tasks/ID/dataset`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bettertherapy_api.faults import first_fault
from neurons.receipts import Keypair, NotCanonicalError, canonical, is_signed_by, parse_canonical, scheme_of
from neurons.wire.task_places import (
    ADAPTER,
    DATASET,
    EXAMINATION,
    MAX_URL,
    PATH,
    TASK_ID,
    TaskError,
    adapter_url,
    path_of,
    place_of,
    reports_url,
)

OFFER: Final = "bettertherapy-task/1"
REPORT: Final = "bettertherapy-task-report/1"
MAX_BYTES: Final = 64 * 1024
MOST_TOPICS: Final = 8
MAX_DETAIL: Final = 1024
"""Characters of what a report says in words."""
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_TaskId = Annotated[str, Field(pattern=f"^{TASK_ID}$")]
_Hotkey = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$")]
_Moment = Annotated[int, Field(ge=0, le=2**53)]


class Offer(BaseModel):
    """A task as a miner gets it."""

    model_config = _CONFIG

    format: Literal["bettertherapy-task/1"] = OFFER
    task: _TaskId
    validator: _Hotkey
    miner: _Hotkey
    netuid: Annotated[int, Field(ge=0, le=65535)]
    twin: Annotated[str, Field(min_length=1, max_length=253)]
    dataset: Annotated[str, Field(max_length=MAX_URL)]
    """Where it is fetched without another key: the URL is one."""
    dataset_digest: _Digest
    interactions: Annotated[int, Field(ge=1, le=100_000_000)]
    """Lines of the dataset."""
    parent: _Digest | None = None
    """Version from which is trained; None for the base model itself."""
    topics: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=MOST_TOPICS)] = ()
    """What the twin should learn first, the weakest first."""
    offered: _Moment
    deadline: _Moment
    """In milliseconds since 1970: what is reported later counts for nothing."""
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]


class Report(BaseModel):
    """What a miner says of a task."""

    model_config = _CONFIG

    format: Literal["bettertherapy-task-report/1"] = REPORT
    task: _TaskId
    miner: _Hotkey
    state: Literal["accepted", "refused", "finished", "failed"]
    adapter: _Digest | None = None
    """Of what came out, once it is finished."""
    detail: Annotated[str, Field(max_length=MAX_DETAIL)] = ""
    time: _Moment
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]


def sign_offer(
    keypair: Keypair, *, task: str, miner: str, netuid: int, twin: str, dataset: str, dataset_digest: str,
    interactions: int, parent: str | None, topics: tuple[str, ...], offered_ms: int, deadline_ms: int,
) -> bytes:  # fmt: skip
    """Return a task as it is sent to its miner, signed by the validator."""
    return _signed(
        keypair, OFFER,
        {
            "format": OFFER, "task": task, "validator": str(keypair.ss58_address), "miner": miner, "netuid": netuid,
            "twin": twin, "dataset": dataset, "datasetDigest": dataset_digest, "interactions": interactions,
            "parent": parent, "topics": list(topics)[:MOST_TOPICS], "offered": offered_ms, "deadline": deadline_ms,
        },
    )  # fmt: skip


def read_offer(data: bytes, *, validator: str, miner: str) -> Offer:
    """Return the task that a validator offers this miner. Raises TaskError."""
    document, offer = _read(Offer, data)
    if offer.miner != miner:
        raise TaskError("The task is offered to another miner.")
    _check_signed(document, OFFER, by=validator, said=offer.validator, scheme=offer.scheme)
    check_dataset_url(offer.dataset, task=offer.task)
    return offer


def sign_report(
    keypair: Keypair, *, task: str, state: str, time_ms: int, adapter: str | None = None, detail: str = ""
) -> bytes:
    """Return what a miner says of a task, signed by it."""
    return _signed(
        keypair, REPORT,
        {
            "format": REPORT, "task": task, "miner": str(keypair.ss58_address), "state": state, "adapter": adapter,
            "detail": detail[:MAX_DETAIL].encode("utf-8", "replace").decode(), "time": time_ms,
        },
    )  # fmt: skip


def read_report(data: bytes, *, miner: str | None = None) -> Report:
    """Return what a miner says, signed by whom it names; `miner`: who it has to be. Raises TaskError."""
    document, report = _read(Report, data)
    _check_signed(document, REPORT, by=miner or report.miner, said=report.miner, scheme=report.scheme)
    return report


def check_dataset_url(dataset: str, *, task: str) -> None:
    """Look whether a URL is that of the task's dataset at some gateway, and of nothing else. Raises TaskError."""
    if reports_url(dataset).path != f"{PATH}/{task}/reports":
        raise TaskError("The dataset is at another task's address.")


_Signed = TypeVar("_Signed", bound=BaseModel)


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


__all__ = [
    "ADAPTER", "DATASET", "EXAMINATION", "MAX_BYTES", "MAX_DETAIL", "MAX_URL", "MOST_TOPICS", "OFFER", "PATH",
    "REPORT", "TASK_ID", "Offer", "Report", "TaskError", "adapter_url", "check_dataset_url", "path_of", "place_of",
    "read_offer", "read_report", "reports_url", "sign_offer", "sign_report",
]  # fmt: skip
