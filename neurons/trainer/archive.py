"""What a twin has in the store besides its adapters: datasets, lineage and the state of runs.

    <store>/<twin>/datasets/<64 hex>.jsonl    a canonical dataset, named after its digest
    <store>/<twin>/lineage/<64 hex>.json      of an adapter: what it and its ancestors were trained on
    <store>/<twin>/runs/<run>/state.json      how far a run came, so that another attempt goes on from there
    <store>/<twin>/runs/<run>/checkpoint.pt   the training's last checkpoint, gone when the run is done
    <store>/<twin>/tensorboard/<run>/…        event files of TensorBoard, where the pool asks for them

Lineage outlives the adapters, which are deleted beyond the history limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE
from bettertherapy_api.run_progress import ArtifactReport, DatasetReport
from neurons.cluster import Backoff
from neurons.store import DEFAULT_LIMITS, Limits, Location, StoreError, join, open_store
from neurons.trainer.errors import BadParent

T = TypeVar("T")

_MAX_RECORD_BYTES: Final = 256 * 1024 * 1024
_MAX_OBJECTS: Final = 100_000
_HEX_DIGITS: Final = 64


class LineageRecord(BaseModel):
    """One adapter's lineage, with all that was learned on the way to it."""

    model_config = ConfigDict(frozen=True)

    digest: str
    parent_digest: str | None = None
    dataset_digest: str
    run: str
    seed: int
    lines: tuple[str, ...] = Field(default=(), repr=False)
    """Digests of all lines that this adapter and its ancestors were trained on."""
    questions: tuple[str, ...] = Field(default=(), repr=False)
    """Digests of all questions in them, which must not be asked in an evaluation."""


class RunState(BaseModel):
    """How far a run came. What is set is done and is not done again."""

    model_config = ConfigDict(frozen=True)

    request: str
    """Digest of what the run was asked to do: another request begins anew."""
    dataset: DatasetReport | None = None
    validation: str | None = None
    """Digest of the lines that are held back from it, kept as a dataset."""
    manifest: str | None = None
    """The manifest of the adapter that is being published, so that a second attempt publishes the very same."""
    artifact: ArtifactReport | None = None


class Archive:
    """A twin's part of the store. Its methods raise StoreError; those that are marked try again for a while."""

    def __init__(
        self,
        store: str,
        twin: str,
        *,
        limits: Limits = DEFAULT_LIMITS,
        pvc_dir: Path | None = None,
        patience_seconds: float = 120.0,
        create: bool = True,
    ) -> None:
        """`create` makes the twin's folder; an examiner only reads."""
        self.store, self.twin, self._create = store, twin, create
        self.uri = join(store, twin)
        self.limits, self.pvc_dir = limits, pvc_dir
        self._patience = patience_seconds

    async def put_dataset(self, data: bytes) -> tuple[str, str]:
        """Publish a canonical dataset and return its URI and digest. Tries again."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        name = f"datasets/{names.digest_hex(digest)}.jsonl"

        async def put() -> None:
            location = self._location()
            if await location.size(name) != len(data):
                await location.put(name, data)

        await self.patiently(put)
        return join(self.uri, name), digest

    async def dataset(self, digest: str) -> bytes | None:
        """Return a published dataset; None when it isn't there or is damaged."""
        data = await self._read(f"datasets/{names.digest_hex(digest)}.jsonl")
        return data if data is not None and "sha256:" + hashlib.sha256(data).hexdigest() == digest else None

    async def lineage(self, digest: str) -> LineageRecord | None:
        """Return an adapter's lineage; None when none was kept, as for one that was pushed by hand.

        Raises BadParent for one that can't be read: everything that it holds would be taken for new.
        """
        name = f"lineage/{names.digest_hex(digest)}.json"
        data = await self._read(name)
        if data is None:
            return None
        record = _parsed(LineageRecord, data)
        if record is None or record.digest != digest or not record.lines:
            raise BadParent(
                f"{join(self.uri, name)}: what the adapter was trained on can't be read: the file is damaged, or a "
                "newer release wrote it. Its lines would be learned twice, so nothing is trained. Bring the file back "
                "from a backup, or train with the release that wrote it."
            )
        return record

    async def put_lineage(self, record: LineageRecord) -> None:
        """Keep an adapter's lineage. Tries again."""
        await self._put(f"lineage/{names.digest_hex(record.digest)}.json", record.model_dump_json().encode())

    async def state(self, run: str, request: str) -> RunState:
        """Return how far the run came; a new state when it hasn't begun, or was asked for something else."""
        data = await self._read(f"runs/{run}/state.json")
        state = None if data is None else _parsed(RunState, data)
        return state if state is not None and state.request == request else RunState(request=request)

    async def put_state(self, run: str, state: RunState) -> None:
        """Keep how far the run came. Tries again."""
        await self._put(f"runs/{run}/state.json", state.model_dump_json(exclude_none=True).encode())

    async def has_run(self, run: str) -> bool:
        """Tell whether a run of this name has worked here."""
        return await self._location().size(f"runs/{run}/state.json") is not None

    async def checkpoint(self, run: str, target: Path) -> bool:
        """Bring the run's checkpoint to a local file; False when there is none."""
        location = self._location()
        name = f"runs/{run}/checkpoint.pt"
        if await location.size(name) is None:
            return False
        result = await location.get(name)
        with target.open("wb") as file:
            async for chunk in location.chunks(result, name=name):
                file.write(chunk)
        return True

    async def put_checkpoint(self, run: str, source: Path) -> None:
        """Keep a checkpoint in the place of the last one: whole, or not at all."""
        await self._location().put(f"runs/{run}/checkpoint.pt", source)

    async def drop_checkpoint(self, run: str) -> None:
        """Delete the run's checkpoint."""
        await self._location().delete(f"runs/{run}/checkpoint.pt")

    async def put_events(self, run: str, source: Path) -> None:
        """Keep one of the run's event files in the place of what it was before."""
        await self._location().put(f"tensorboard/{run}/{source.name}", source)

    async def prune(self, *, keep: Collection[str], history_limit: int) -> tuple[str, ...]:
        """Delete the twin's adapters beyond the newest `history_limit`, never one of `keep`; return their digests.

        The manifest goes first: without it nobody takes what is left for an adapter.
        """
        location = self._location()
        files: dict[str, list[str]] = {}
        published: dict[str, str] = {}
        for entry in await location.listing(at_most=_MAX_OBJECTS):
            folder, _, name = entry["path"].partition("/")
            if len(folder) == _HEX_DIGITS and names.is_digest(f"sha256:{folder}"):
                files.setdefault(folder, []).append(entry["path"])
                if name == MANIFEST_FILE:
                    published[folder] = entry["last_modified"].isoformat()
        newest = sorted(published, key=lambda folder: (published[folder], folder), reverse=True)
        spared = {names.digest_hex(digest) for digest in keep} | set(newest[:history_limit])
        doomed = [folder for folder in newest if folder not in spared]
        for folder in doomed:
            paths = sorted(files[folder], key=lambda path: not path.endswith(f"/{MANIFEST_FILE}"))
            for path in paths:
                await location.delete(path)
            if location.folder is not None:
                with suppress(OSError):  # somebody put something else there
                    await asyncio.to_thread((location.folder / folder).rmdir)
        return tuple(f"sha256:{folder}" for folder in doomed)

    async def patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again with growing pauses while the store says that it may work later."""
        backoff = Backoff(first=0.5, most=15.0)
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                return await action()
            except StoreError as error:
                pause = backoff.next()
                if not error.retryable or asyncio.get_running_loop().time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)

    def _location(self) -> Location:
        return open_store(self.uri, create=self._create, limits=self.limits, pvc_dir=self.pvc_dir)

    async def _read(self, name: str) -> bytes | None:
        return await self._location().read(name, at_most=_MAX_RECORD_BYTES)

    async def _put(self, name: str, data: bytes) -> None:
        await self.patiently(lambda: self._location().put(name, data))


def request_digest(**asked: object) -> str:
    """Return one digest over what a run was asked to do."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


M = TypeVar("M", bound=BaseModel)


def _parsed(kind: type[M], data: bytes) -> M | None:
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        return None  # of another version of this program
