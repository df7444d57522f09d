"""From a dataset's URI to the one canonical dataset that a run trains on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bettertherapy_api.manifest import Lineage
from bettertherapy_api.names import digest_hex
from neurons.store import AccessDenied, ArtifactNotFound, FolderNotFound, Location, open_store
from neurons.store.locations import is_object_name
from neurons.trainer import dataset
from neurons.trainer.archive import Archive, LineageRecord
from neurons.trainer.dataset import Refusal, added, admit, canonical, counted, counts, parse_lines, read_lines
from neurons.trainer.errors import BadData, BadParent
from neurons.trainer.held_out import HeldOut
from neurons.trainer.lines import Flaw, Line
from neurons.trainer.tokens import UNFIT, Fit, unfit
from neurons.trainer.web_dataset import fetch, is_web_address, shown

_MAX_FILES: Final = 10_000
_SUFFIX: Final = ".jsonl"
_FILES: Final = (
    ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".xml", ".html", ".xlsx", ".parquet", ".gz", ".bz2", ".xz",
    ".zst", ".zip", ".7z", ".tar", ".tgz",
)  # fmt: skip
"""With one of these a name is meant as a file's, so that one that isn't there is an error and no folder to be made."""
NAMED_FILES: Final = 20
"""Of the files that are passed over, so many are named."""
FEWEST_TO_HOLD_BACK_FROM: Final = 20
"""Conversations; of fewer all are learned."""
FEWEST_HELD_BACK: Final = 2
_NAME_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class Trained:
    """What the parent and its ancestors were trained on: digests of lines and of questions."""

    lines: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    dataset_digest: str | None = None
    """Of a parent whose lines nobody wrote down: a file with this digest was its dataset."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a dataset's URI."""

    lines: tuple[Line, ...]
    """May be trained on, and are new; each once. What a doctor corrected or compared comes first, then the oldest."""
    refused: dict[str, int]
    known: int
    """Lines that the parent was trained on already, or that stand there twice."""
    flaws: Mapping[str, frozenset[Flaw]] = field(default_factory=dict)
    """Of those of the lines that were repaired, by digest."""
    passed_over: tuple[str, ...] = ()
    """Files and folders beside those that are read, and lines that aren't written to their end, at most 20."""
    waiting: int = 0
    """Lines that are new and are left to the next run."""
    earlier: tuple[Line, ...] = ()
    """Conversations that the parent was trained on already and that still lie there, to be rehearsed."""
    rehearsed: tuple[Line, ...] = ()
    """Those of them that are."""
    validation: tuple[Line, ...] = ()
    """New lines that are not learned tonight, to tell whether what is learned holds for others; the next run's."""

    @property
    def data(self) -> bytes:
        """The canonical dataset."""
        return canonical((*self.lines, *self.rehearsed))

    @property
    def repaired(self) -> dict[str, int]:
        """How many of the lines were repaired, by flaw."""
        return counted(self.flaws.get(line.digest, frozenset()) for line in self.lines)

    def that_fits(self, fit: Callable[[Line], Fit]) -> Found:
        """Return it without what can't be learned as it stands, which is counted, as is what will be shortened."""
        fits = {line.digest: fit(line) for line in self.lines}
        flaws = dict(self.flaws)
        for digest, how in fits.items():
            if how is Fit.SHORTENED:
                flaws[digest] = flaws.get(digest, frozenset()) | {Flaw.TOO_LONG}
        lines = tuple(line for line in self.lines if fits[line.digest] not in UNFIT)
        refused = added(self.refused, unfit(fits.values()))
        return replace(self, lines=lines, refused=refused, flaws=flaws)

    def without(self, held_out: HeldOut) -> Found:
        """Return it without the lines that are held out for the evaluation, which are counted."""
        lines = tuple(line for line in self.lines if not held_out.has(line))
        refused = added(self.refused, {Refusal.HELD_OUT.value: len(self.lines) - len(lines)})
        earlier = tuple(line for line in self.earlier if not held_out.has(line))
        return replace(self, lines=lines, refused=refused, earlier=earlier)

    def holding_back(self, percent: int) -> Found:
        """Return it with that share of the conversations held back, the newest, if that makes enough to say anything.

        What a doctor wrote is never held back: she sees what became of it the next morning.
        """
        conversations = sum(not line.is_pair for line in self.lines)
        candidates = [line for line in self.lines if not line.is_doctors]
        count = min(conversations * percent // 100, len(candidates))
        if conversations < FEWEST_TO_HOLD_BACK_FROM or count < FEWEST_HELD_BACK:
            return self
        held = candidates[-count:]
        digests = {line.digest for line in held}
        kept = tuple(line for line in self.lines if line.digest not in digests)
        return replace(self, lines=kept, validation=tuple(held))

    def rehearsing(self, percent: int, *, key: str, fit: Callable[[Line], Fit], fits: Callable[[int], bool]) -> Found:
        """Return it with so many earlier lines to rehearse for each hundred new conversations.

        They are drawn by `key`, and are fewer where `fits` denies that so many have room.
        """
        wanted = sum(not line.is_pair for line in self.lines) * percent // 100

        def drawn(line: Line) -> str:
            return hashlib.sha256(f"{key} {line.digest}".encode()).hexdigest()

        chosen: list[Line] = []
        for line in sorted(self.earlier, key=drawn):
            if len(chosen) == wanted or not fits(len(chosen) + 1):
                break
            if fit(line) not in UNFIT:
                chosen.append(line)
        return replace(self, rehearsed=tuple(chosen))

    def first(self, *, conversations: int, pairs: int, sizes: Mapping[str, int] | None = None) -> Found:
        """Return it with the first so many conversations and preference pairs; the rest waits.

        `sizes`, by digest, tells which count for more than one. The first of all is taken however much it counts.
        """
        most = {False: conversations, True: pairs}
        taken = {False: 0, True: 0}
        chosen: list[Line] = []
        for line in self.lines:
            size = sizes[line.digest] if sizes is not None else 1
            if taken[line.is_pair] and taken[line.is_pair] + size > most[line.is_pair]:
                most[line.is_pair] = 0  # a smaller one that comes later must not go before it
            elif most[line.is_pair] > 0:
                taken[line.is_pair] += size
                chosen.append(line)
        return replace(self, lines=tuple(chosen), waiting=self.waiting + len(self.lines) - len(chosen))


async def trained_before(archive: Archive, parent_digest: str | None, *, lineage: Lineage | None) -> Trained:
    """Return what the parent knows already; `lineage` is what its manifest says.

    Where nobody kept a record of it (as of one that was pushed by hand), it is put together again from its dataset and
    its own parent's record. Raises BadParent where the record can't be read or is lost, so that nothing is learned
    twice unnoticed, and StoreError.
    """
    if parent_digest is None:
        return Trained()
    if (record := await archive.lineage(parent_digest)) is not None:
        return _recorded(record)
    if lineage is None:
        return Trained()
    before = Trained()
    if lineage.parent_digest is not None:
        if (record := await archive.lineage(lineage.parent_digest)) is None:
            raise _lost(archive, parent_digest)
        before = _recorded(record)
    if lineage.dataset_digest is None:
        return before
    data = await archive.dataset(lineage.dataset_digest)
    if data is not None:
        own = _trained_on(parse_lines(data, where=lineage.dataset_digest))
        return Trained(lines=before.lines | own.lines, questions=before.questions | own.questions)
    if lineage.parent_digest is not None or (lineage.run is not None and await archive.has_run(lineage.run)):
        raise _lost(archive, parent_digest)
    return Trained(dataset_digest=lineage.dataset_digest)  # trained elsewhere, perhaps on a file that lies here


def _recorded(record: LineageRecord) -> Trained:
    return Trained(lines=frozenset(record.lines), questions=frozenset(record.questions))


def _lost(archive: Archive, parent_digest: str) -> BadParent:
    return BadParent(
        f"{archive.uri}: what the parent adapter {parent_digest} was trained on can't be told any more, since "
        f"lineage/{digest_hex(parent_digest)}.json is gone, and with it what it could be made from again. Its "
        "lines would be learned twice, so nothing is trained. Bring `lineage` and `datasets` back into this folder "
        "from a backup, or begin without a parent."
    )


async def find_lines(
    uri: str, digest: str | None, *, before: Trained, archive: Archive, unrated: bool = True
) -> tuple[Found, Trained]:
    """Read the dataset at `uri` and return what is new in it, and what was known (for a parent without a record).

    A folder stands for all its `*.jsonl`; lines that the parent's lineage was trained on are left out. One that is
    empty, or that nobody has made yet, holds nothing new. A file that is named is read whatever its name ends in. A
    last line that isn't written to its end yet is left to the next run. With a digest the URI is one file that must
    have it, and all of it is trained on, what is known too. `unrated`: see `admit`. Raises BadData and StoreError.
    """
    single = digest is not None or uri.endswith(_SUFFIX)
    passed_over: tuple[str, ...] = ()
    if is_web_address(uri):
        files = await _fetched(uri, digest, archive=archive)
        uri = shown(uri)
    elif single:
        files = await _read_file(uri, archive=archive)
    else:
        files, passed_over = await _read_folder(uri, archive=archive)
        if not files and not passed_over and (named := await _named_file(uri, archive=archive)) is not None:
            files, single = named, True
    if digest is not None:
        [data] = files.values()
        if (actual := "sha256:" + hashlib.sha256(data).hexdigest()) != digest:
            raise BadData(f"{uri}: the dataset's digest is {actual}, expected {digest}. It was changed, or is another.")
    lines: list[Line] = []
    unfinished: list[str] = []
    flaws: dict[str, frozenset[Flaw]] = {}
    left_out: dict[str, int] = {}
    for name, data in files.items():
        read = read_lines(data, where=name, growing=digest is None)
        unfinished += [f"{name[:_NAME_LENGTH]}, line {number} (unfinished)" for number in read.unfinished]
        if before.dataset_digest == "sha256:" + hashlib.sha256(data).hexdigest():
            before = _trained_on(read.lines)
        lines += read.lines
        left_out = added(left_out, read.left_out)
        for line, repaired in zip(read.lines, read.flaws, strict=True):
            flaws.setdefault(line.digest, repaired)
    if single and not lines and not left_out:
        raise BadData(f"{uri}: no line in it: the dataset is empty. Check what writes it.")
    admitted, refused = admit(lines, unrated=unrated)
    known = before.lines if digest is None else frozenset()
    new = {line.digest: line for line in admitted if line.digest not in known}
    found = Found(
        # Stable: within each of the two, in the order of files and lines, so that no line waits for ever.
        lines=tuple(sorted(new.values(), key=lambda line: not line.is_doctors)),
        refused=added(left_out, refused),
        known=len(admitted) - len(new),
        flaws=flaws,
        passed_over=(*unfinished, *passed_over)[:NAMED_FILES],
        earlier=tuple({line.digest: line for line in admitted if line.digest in known and not line.is_pair}.values()),
    )
    return found, before


def too_few(found: Found, minimum: int) -> str | None:
    """Return why a run is skipped, or None when there is enough."""
    new = len(found.lines) + found.waiting + len(found.validation)
    if new >= minimum:
        return None
    names = ", ".join(found.passed_over)
    passed_over = f" Passed over, since only whole lines of *.jsonl in the folder itself are read: {names}."
    passed_over = passed_over if found.passed_over else ""
    if not (found.lines or found.known or found.refused):
        return f"0 new interactions, {minimum} are needed: there is no line in the dataset's folder yet.{passed_over}"
    left_out = [f"{found.known} known already"] if found.known else []
    left_out += [counts(found.refused)] if found.refused else []
    told = f" ({', '.join(left_out)})" if left_out else ""
    return f"{new} new interactions, {minimum} are needed{told}.{passed_over}"


async def _fetched(uri: str, digest: str | None, *, archive: Archive) -> dict[str, bytes]:
    """Return the content of what a gateway gives for a task. Raises BadData, StoreError."""
    if digest is None:
        raise BadData(f"{shown(uri)}: what somebody else gives must have a digest: set dataset.digest.")
    return {"the task's dataset": await archive.patiently(lambda: fetch(uri, at_most=dataset.MAX_DATASET_BYTES))}


async def _read_file(uri: str, *, archive: Archive) -> dict[str, bytes]:
    """Return the content of the one file that is named, by its name. Raises BadData when it isn't there."""
    folder, _, name = uri.rpartition("/")
    try:
        location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    size = await location.size(name)
    if size is None:
        raise BadData(f"{uri}: there is no such file. Check dataset.uri.")
    return await _contents(uri, location, {name: size})


async def _named_file(uri: str, *, archive: Archive) -> dict[str, bytes] | None:
    """Return the content of what is no folder after all; None when there is nothing that could be meant as a file."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    try:
        location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
        size = await location.size(name) if name else None
    except (ArtifactNotFound, AccessDenied):  # of a folder only what lies in it may be visible
        size = None
    if size is not None:
        return await _contents(uri, location, {name: size})
    if name.lower().endswith(_FILES):
        raise BadData(
            f"{uri}: there is neither such a file nor such a folder. A dataset is a folder with *{_SUFFIX} in it, or "
            "one file. Check dataset.uri."
        )
    return None


async def _read_folder(uri: str, *, archive: Archive) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the contents of what is to be read in a folder, by name, and the names of what isn't."""
    try:
        location = open_store(uri, limits=archive.limits, pvc_dir=archive.pvc_dir)
    except FolderNotFound:
        return {}, ()  # the twin's first night: nothing was collected yet
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    entries = await location.listing(at_most=_MAX_FILES + 1)
    if len(entries) > _MAX_FILES:  # which of them are first is the store's affair: the newest might never be read
        raise BadData(
            f"{uri}: more than {_MAX_FILES} files lie in it and below it. Join them, or move those elsewhere whose "
            "lines are learned."
        )
    sizes = {entry["path"]: entry["size"] for entry in entries if _is_read(entry["path"])}
    nameless = _nameless(location.folder) if location.folder is not None else []
    passed_over = _named([*nameless, *(entry["path"] for entry in entries if not _is_read(entry["path"]))])
    return await _contents(uri, location, sizes), passed_over


async def _contents(uri: str, location: Location, sizes: Mapping[str, int]) -> dict[str, bytes]:
    if (total := sum(sizes.values())) > dataset.MAX_DATASET_BYTES:
        raise BadData(f"{uri}: {total} bytes, at most {dataset.MAX_DATASET_BYTES} are read. Split the dataset.")
    return {each: await _content(location, each) for each in sorted(sizes)}


def _is_read(path: str) -> bool:
    """Tell whether a file in the folder is read; one whose name begins with a dot is another program's own."""
    return path.endswith(_SUFFIX) and "/" not in path and not path.startswith(".")


def _named(paths: Iterable[str]) -> tuple[str, ...]:
    """Return what of these somebody may miss: no hidden files, and of a subfolder its name."""
    names = {f"{folder}/" if inside else folder for folder, inside, _ in (path.partition("/") for path in paths)}
    return tuple(name[:_NAME_LENGTH] for name in sorted(names) if not name.startswith("."))[:NAMED_FILES]


def _nameless(folder: Path) -> list[str]:
    """Return, spelled out, the names in a folder that no store can be asked for."""
    return [ascii(name)[1:-1] for name in os.listdir(folder) if not is_object_name(name)]


async def _content(location: Location, name: str) -> bytes:
    data = await location.read(name, at_most=dataset.MAX_DATASET_BYTES)
    return data if data is not None else b""


def _trained_on(lines: tuple[Line, ...]) -> Trained:
    known = dataset.Dataset(lines=lines, refused={}, digest="")
    return Trained(lines=frozenset(line.digest for line in lines), questions=known.question_digests)
