"""From a dataset's URI to the one canonical dataset that a run trains on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from neurons.store import ArtifactNotFound, FolderNotFound, Location, open_store
from neurons.trainer import dataset
from neurons.trainer.archive import Archive
from neurons.trainer.dataset import Line, admit, canonical, counts, parse_lines
from neurons.trainer.errors import BadData

_MAX_FILES: Final = 10_000
_SUFFIX: Final = ".jsonl"


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
    """May be trained on, and are new; each once."""
    refused: dict[str, int]
    known: int
    """Lines that the parent was trained on already, or that stand there twice."""

    @property
    def data(self) -> bytes:
        """The canonical dataset."""
        return canonical(self.lines)


async def trained_before(archive: Archive, parent_digest: str | None, *, dataset_digest: str | None) -> Trained:
    """Return what the parent knows already; `dataset_digest` is what its manifest says. Raises StoreError."""
    if parent_digest is None:
        return Trained()
    record = await archive.lineage(parent_digest)
    if record is not None:
        return Trained(lines=frozenset(record.lines), questions=frozenset(record.questions))
    if dataset_digest is None:
        return Trained()
    data = await archive.dataset(dataset_digest)
    if data is None:
        return Trained(dataset_digest=dataset_digest)
    return _trained_on(parse_lines(data, where=dataset_digest))


async def find_lines(uri: str, digest: str | None, *, before: Trained, archive: Archive) -> tuple[Found, Trained]:
    """Read the dataset at `uri` and return what is new in it, and what was known (for a parent without a record).

    A folder stands for all its `*.jsonl`; lines that the parent's lineage was trained on are left out. One that is
    empty, or that nobody has made yet, holds nothing new. With a digest the URI is one file that must have it, and all
    of it is trained on. Raises BadData and StoreError.
    """
    single = digest is not None or uri.endswith(_SUFFIX)
    files = await _read_files(uri, single=single, archive=archive)
    if digest is not None:
        [data] = files.values()
        if (actual := "sha256:" + hashlib.sha256(data).hexdigest()) != digest:
            raise BadData(f"{uri}: the dataset's digest is {actual}, expected {digest}. It was changed, or is another.")
        before = Trained(questions=before.questions)
    lines: list[Line] = []
    for name, data in files.items():
        read = parse_lines(data, where=name)
        if before.dataset_digest == "sha256:" + hashlib.sha256(data).hexdigest():
            before = _trained_on(read)
        lines += read
    if single and not lines:
        raise BadData(f"{uri}: no line in it: the dataset is empty. Check what writes it.")
    admitted, refused = admit(lines)
    new = {line.digest: line for line in admitted if line.digest not in before.lines}
    found = Found(lines=tuple(new[key] for key in sorted(new)), refused=refused, known=len(admitted) - len(new))
    return found, before


def too_few(found: Found, minimum: int) -> str | None:
    """Return why a run is skipped, or None when there is enough."""
    if len(found.lines) >= minimum:
        return None
    if not (found.lines or found.known or found.refused):
        return f"0 new interactions, {minimum} are needed: there is no line in the dataset's folder yet."
    left_out = [f"{found.known} known already"] if found.known else []
    left_out += [counts(found.refused)] if found.refused else []
    told = f" ({', '.join(left_out)})" if left_out else ""
    return f"{len(found.lines)} new interactions, {minimum} are needed{told}."


async def _read_files(uri: str, *, single: bool, archive: Archive) -> dict[str, bytes]:
    folder, _, name = uri.rpartition("/")
    try:
        if single:
            location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
            sizes = {name: await location.size(name)}
            if sizes[name] is None:
                raise BadData(f"{uri}: there is no such file. Check dataset.uri.")
        else:
            location = open_store(uri, limits=archive.limits, pvc_dir=archive.pvc_dir)
            entries = await location.listing(at_most=_MAX_FILES)
            sizes = {
                entry["path"]: entry["size"]
                for entry in entries
                if entry["path"].endswith(_SUFFIX) and "/" not in entry["path"]
            }
    except FolderNotFound as error:
        if single:
            raise BadData(f"{uri}: {error}") from error
        return {}  # the twin's first night: nothing was collected yet
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    total = sum(size or 0 for size in sizes.values())
    if total > dataset.MAX_DATASET_BYTES:
        raise BadData(f"{uri}: {total} bytes, at most {dataset.MAX_DATASET_BYTES} are read. Split the dataset.")
    return {each: await _content(location, each) for each in sorted(sizes)}


async def _content(location: Location, name: str) -> bytes:
    data = await location.read(name, at_most=dataset.MAX_DATASET_BYTES)
    return data if data is not None else b""


def _trained_on(lines: tuple[Line, ...]) -> Trained:
    known = dataset.Dataset(lines=lines, refused={}, digest="")
    return Trained(lines=frozenset(line.digest for line in lines), questions=known.question_digests)
