"""A corpus on disk, which is its content: it is named by digest, and other bytes under its name are refused."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from neurons.sources.documents import MAX_FILE_BYTES, Document, Omitted, files_of, read_documents
from neurons.sources.errors import CorpusRefused

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SHOWN: Final = 100
MAX_DOCUMENTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts of a corpus whose digest is the one that was asked for."""

    digest: str
    documents: tuple[Document, ...]
    omitted: tuple[Omitted, ...]
    """The first hundred that were left out."""
    omissions: int
    """How many were left out."""


def digest_of_corpus(path: Path) -> str:
    """Return a corpus' digest: of a file its own; of a folder that of the names and digests of its files, sorted."""
    return _digest(path, [(name, _content(file)) for name, file in files_of(path)])


def load_corpus(path: Path, *, digest: str) -> Corpus:
    """Read a corpus, a file or a folder. Raises CorpusRefused, also when it has another digest.

    The bytes that are compared are those that are read: a file can't change in between.
    """
    if not _DIGEST.fullmatch(digest):
        raise CorpusRefused(f"{path}: its digest has to be given as sha256: and 64 hex digits, in small letters")
    contents = [(name, _content(file)) for name, file in files_of(path)]
    found = _digest(path, contents)
    if found != digest:
        raise CorpusRefused(
            f"{path} is {found}, and {digest} was named. It isn't used: fetch the named one, or look through this one "
            "and name it instead"
        )
    documents: list[Document] = []
    omitted: list[Omitted] = []
    omissions = 0
    for name, content in contents:
        for each in read_documents(name, io.BytesIO(content)):
            if isinstance(each, Document):
                documents.append(each)
                if len(documents) > MAX_DOCUMENTS:
                    raise CorpusRefused(f"{path} holds more than {MAX_DOCUMENTS:,} texts; make several corpora of it")
                continue
            omissions += 1
            if len(omitted) < _SHOWN:
                omitted.append(each)
    if not documents:
        raise CorpusRefused(f"{path} holds no text" + (f"; {omitted[0].where}: {omitted[0].why}" if omitted else ""))
    if len({each.id for each in documents}) < len(documents):
        raise CorpusRefused(f"{path}: two of its files give the same id; nobody could tell which one is cited")
    return Corpus(digest=found, documents=tuple(documents), omitted=tuple(omitted), omissions=omissions)


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise CorpusRefused(f"{file} is larger than {MAX_FILE_BYTES >> 20} MiB; split it")
        return file.read_bytes()
    except OSError as error:
        raise CorpusRefused(f"{file} can't be read: {error.strerror}") from None


def _digest(path: Path, contents: list[tuple[str, bytes]]) -> str:
    if path.is_file():
        return f"sha256:{hashlib.sha256(contents[0][1]).hexdigest()}"
    listed = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents)
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
