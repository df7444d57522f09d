"""Every twin's latest days, put where its fine-tune reads them; and what was taken back, taken out there.

A day's file follows from what the ledger has of the day, so that whoever comes twice, or late, writes nothing twice: a
file that has the bytes already isn't touched. The days before yesterday are looked at again, since records may arrive
late, and a run may have been missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api import names
from bettertherapy_api.faults import first_fault
from neurons.ledger.copies import clean
from neurons.ledger.dataset import Day
from neurons.ledger.errors import BadRecord, LedgerDown, LedgerError, SchemaMismatch
from neurons.ledger.ledger import Ledger
from neurons.ledger.records import Twin, derived_id
from neurons.store import AccessDenied, FolderNotFound, Location, StoreError, StoreUnreachable, open_store

MOST_DAYS: Final = 31
DAYS: Final = 7
MOST_TWINS_BYTES: Final = 16 * 1024 * 1024
_IN_A_ROW: Final = 3
_MAX_BYTES: Final = 256 * 1024 * 1024
"""Of a file; the trainer reads none that is larger."""


@dataclass(slots=True)
class Handed:
    """What became of the files, of all twins together."""

    written: int = 0
    unchanged: int = 0
    deleted: int = 0
    """Of which no line may be learned any more."""
    lines: int = 0
    """In the files as they are now, of these days."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers that are in none of them, by reason."""
    taken_out: int = 0
    """Lines of patients who were erased or have withdrawn consent, of whatever day."""
    failed: dict[str, str] = field(default_factory=dict)
    """Twins that it could not be done for, and why."""


class _NamedTwin(BaseModel):
    """One twin of a gateway's `--twins-file`: what is read of it here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^/]+$")]
    uid: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None


class _TwinsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    twins: Annotated[tuple[_NamedTwin, ...], Field(max_length=20_000)]


def twins_of(document: bytes) -> tuple[Twin, ...]:
    """Return the twins of a gateway's `--twins-file`, as the gateway writes them into the ledger. Raises BadRecord."""
    try:
        read = _TwinsFile.model_validate_json(document)
    except ValidationError as error:
        raise BadRecord(f"the file of twins can't be read: {first_fault(error)}") from None
    return tuple(Twin(uid=each.uid or derived_id("twin", each.name), name=each.name) for each in read.twins)


def days_until(last: date, count: int) -> tuple[date, ...]:
    """Return so many days, oldest first."""
    return tuple(last - timedelta(days=before) for before in reversed(range(count)))


async def hand_over(
    ledger: Ledger, *, twins: Sequence[Twin], store: str, days: Sequence[date], zone: str, hold_out: bool = False
) -> Handed:  # fmt: skip
    """Bring `<store>/<twin>/interactions/<day>.jsonl` of these twins and days to what the ledger has.

    `hold_out`: without the patients by whom miners' versions are examined. First goes what may be learned no more, of
    any day and twin. One twin's trouble holds up no other. Raises LedgerDown
    and SchemaMismatch; StoreUnreachable and AccessDenied when several twins in a row meet with them: each of the others
    would wait as long for nothing.
    """
    handed, in_a_row = Handed(), 0
    talked = {twin.uid for twin in await ledger.twins()}
    wanted = {twin.name: twin for twin in twins if twin.uid in talked}
    recalled = await ledger.recalled()
    taken_back = {line.line_id for line in recalled}
    concerned = {line.twin_uid for line in recalled}
    former = {twin.name for twin in await ledger.exported_twins() if twin.uid in concerned} if recalled else set()
    for name in sorted(former | wanted.keys()):
        folder = names.interactions_uri(store, name)
        try:
            if name in former:
                handed.taken_out += await _take_out(folder, taken_back)
            if name in wanted:
                await _bring(ledger, wanted[name], folder, days=days, zone=zone, handed=handed, hold_out=hold_out)
            in_a_row = 0
        except (LedgerDown, SchemaMismatch):
            raise
        except (LedgerError, StoreError) as error:
            handed.failed[name] = str(error)
            in_a_row += isinstance(error, StoreUnreachable | AccessDenied)
            if in_a_row == _IN_A_ROW:
                raise
    # What was taken back while the days were written may be in a file that was read from the ledger before.
    since = [line for line in await ledger.recalled() if line.line_id not in taken_back]
    concerned = {line.twin_uid for line in since}
    for name in sorted({twin.name for twin in await ledger.exported_twins() if twin.uid in concerned} if since else ()):
        try:
            handed.taken_out += await _take_out(names.interactions_uri(store, name), {line.line_id for line in since})
        except (LedgerError, StoreError) as error:
            handed.failed[name] = str(error)
    return handed


async def _take_out(folder: str, line_ids: set[str]) -> int:
    try:
        return sum(each.lines for each in await clean(folder, line_ids))
    except FolderNotFound:
        return 0


async def _bring(
    ledger: Ledger, twin: Twin, folder: str, *, days: Sequence[date], zone: str, handed: Handed, hold_out: bool
) -> None:
    for day in days:
        made = await ledger.dataset(twin_uid=twin.uid, day=day, zone=zone, hold_out=hold_out)
        handed.left_out.update(made.left_out)
        if not made.lines and not made.left_out:
            continue  # nothing is known of the day: a file of it is not this ledger's, or older than what is kept
        if len(made.data) > _MAX_BYTES:
            raise LedgerError(f"{day.isoformat()} has more than {_MAX_BYTES >> 20} MiB, which no fine-tune reads.")
        handed.lines += made.lines
        await _put(folder, f"{day.isoformat()}.jsonl", made, handed)


async def _put(folder: str, name: str, made: Day, handed: Handed) -> None:
    location, stored = await _stored(folder, name)
    if made.lines:
        if stored == made.data:
            handed.unchanged += 1
            return
        await (location or open_store(folder, create=True)).put(name, made.data)
        handed.written += 1
    elif location is not None and stored is not None:
        await location.delete(name)
        handed.deleted += 1


async def _stored(folder: str, name: str) -> tuple[Location | None, bytes | None]:
    """Return the folder, if it is there, and what lies in it under this name."""
    try:
        location = open_store(folder)
    except FolderNotFound:
        return None, None
    return location, await location.read(name, at_most=_MAX_BYTES)
