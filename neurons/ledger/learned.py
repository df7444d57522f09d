"""Lineage as the trainer keeps it in the store, taken into the ledger: what each adapter learned, line by line."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api.faults import first_fault
from neurons.ledger.errors import BadRecord
from neurons.ledger.records import Training, Twin, derived_id
from neurons.store import join, open_store

_MAX_OBJECTS: Final = 100_000
_MAX_BYTES: Final = 256 * 1024 * 1024
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class LineageFile(BaseModel):
    """`<store>/<twin>/lineage/<64 hex>.json`: what is read of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: _Digest
    parent_digest: _Digest | None = None
    dataset_digest: _Digest
    run: Annotated[str, Field(min_length=1, max_length=253)]
    lines: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...]
    """Of the adapter and all its ancestors."""


async def learned(store: str, *, twin: Twin, folder: str, at_ms: int) -> tuple[Training, ...]:
    """Return the trainings that the twin's part of the store tells of. Raises BadRecord, StoreError.

    Each has the lines that it learned beyond its parent's. The same file always gives the same record.
    """
    location = open_store(join(store, folder, "lineage"))
    files: dict[str, LineageFile] = {}
    for meta in await location.listing(at_most=_MAX_OBJECTS):
        name = str(meta["path"])
        if name.endswith(".json") and (data := await location.read(name, at_most=_MAX_BYTES)) is not None:
            try:
                read = LineageFile.model_validate_json(data)
            except ValidationError as error:
                raise BadRecord(f"{location.uri}/{name} is no lineage: {first_fault(error)}") from None
            files[read.digest] = read
    return tuple(_training(each, files, twin=twin, at_ms=at_ms) for _, each in sorted(files.items()))


def _training(file: LineageFile, files: dict[str, LineageFile], *, twin: Twin, at_ms: int) -> Training:
    parent = files.get(file.parent_digest or "")
    before = frozenset(parent.lines) if parent is not None else frozenset()
    return Training(
        training_id=derived_id("training", twin.uid, file.digest, file.run),
        run=file.run,
        twin=twin,
        dataset_digest=file.dataset_digest,
        adapter_digest=file.digest,
        at_ms=at_ms,
        parent_digest=file.parent_digest,
        line_digests=tuple(sorted(frozenset(file.lines) - before)),
    )
