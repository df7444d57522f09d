"""The texts of a corpus file: MedQuAD's XML as NLM published it, and JSON Lines. What can't be read is told.

A JSON line is an object with `text` or `answer`; where given `id` or `question_id`, `title` or `focus`, `question`,
`url`, `source`, `licence`, `date` (YYYY, YYYY-MM or YYYY-MM-DD). Other fields are left alone.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api.faults import first_fault
from neurons import jsonl
from neurons.invisible import is_blank
from neurons.sources.errors import CorpusRefused
from neurons.sources.passage import MAX_TEXT

MAX_FILE_BYTES: Final = 1 << 30
"""Of one file, unpacked: a small packed file can hold endlessly much."""
MAX_LINE_BYTES: Final = 4 << 20
MAX_XML_BYTES: Final = 16 << 20
_URL: Final = re.compile(r"https?://[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of a corpus, as it stands in its file."""

    id: str
    title: str
    text: str
    url: str | None = None
    source: str | None = None
    licence: str | None = None
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Omitted:
    """A text that is left out, by its file and line or number, and why. Nothing of the text stands here."""

    where: str
    why: str


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    text: str = Field(validation_alias=AliasChoices("text", "answer"))
    id: str | None = Field(default=None, validation_alias=AliasChoices("id", "question_id"), max_length=300)
    title: str = Field(default="", validation_alias=AliasChoices("title", "focus"), max_length=1000)
    question: str = Field(default="", max_length=4000)
    url: str | None = Field(default=None, max_length=2000, pattern=r"^https?://[!-~]+$")
    source: str | None = Field(default=None, max_length=300)
    licence: str | None = Field(default=None, validation_alias=AliasChoices("licence", "license"), max_length=300)
    date: str | None = Field(default=None, pattern=r"^[12][0-9]{3}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?$")


def read_documents(name: str, content: BinaryIO) -> Iterator[Document | Omitted]:
    """Read one file of a corpus, named `*.xml`, `*.jsonl` or either with `.gz`. Raises CorpusRefused."""
    plain = name.removesuffix(".gz")
    if plain != name:
        content = io.BufferedReader(gzip.GzipFile(fileobj=content))
    try:
        if plain.endswith(".xml"):
            yield from _xml(plain, content)
        elif plain.endswith(".jsonl"):
            yield from _lines(plain, content)
        else:
            raise CorpusRefused(f"{name} is neither .xml (MedQuAD's) nor .jsonl, nor either packed as .gz")
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise CorpusRefused(f"{name} is no whole gzip file; fetch it again") from None


def _lines(name: str, content: BinaryIO) -> Iterator[Document | Omitted]:
    read = 0
    seen: set[str] = set()
    number = 0
    while line := content.readline(MAX_LINE_BYTES + 1):
        number += 1
        read += len(line)
        where = f"{name}, line {number}"
        if len(line) > MAX_LINE_BYTES or read > MAX_FILE_BYTES:
            raise CorpusRefused(f"{where}: longer than a corpus may be ({MAX_LINE_BYTES:,} bytes a line)")
        if number == 1 and (kind := jsonl.other_kind(line)):
            raise CorpusRefused(f"{name}: {kind}")
        if not (raw := jsonl.without_marks(line)):
            continue
        try:
            text = raw.decode()
            row = _Row.model_validate(jsonl.read_object(text))
        except UnicodeDecodeError:
            yield Omitted(where, "not in UTF-8")
            continue
        except jsonl.NotJsonLines as error:
            yield Omitted(where, str(error))
            continue
        except ValidationError as error:
            yield Omitted(where, _instead(error))
            continue
        if jsonl.is_cut(text):
            yield Omitted(where, "half a character (\\ud83d and the like); write it whole")
            continue
        document = Document(
            id=row.id or str(number),
            title=row.title.strip() or row.question.strip() or (row.source or "").strip() or name,
            text=row.text, url=row.url, source=row.source, licence=(row.licence or "").strip() or None, date=row.date,
        )  # fmt: skip
        yield from _checked(document, where, seen)


def _xml(name: str, content: BinaryIO) -> Iterator[Document | Omitted]:
    raw = content.read(MAX_XML_BYTES + 1)
    if len(raw) > MAX_XML_BYTES:
        raise CorpusRefused(f"{name} is longer than {MAX_XML_BYTES >> 20} MiB, which no file of MedQuAD is")
    try:
        root: Element = defusedxml.ElementTree.fromstring(raw, forbid_dtd=True)
    except DefusedXmlException:
        raise CorpusRefused(f"{name} declares a document type or entities, which MedQuAD's files don't") from None
    except (ParseError, ValueError, LookupError) as error:
        where = f", line {error.position[0]}" if isinstance(error, ParseError) else ""
        raise CorpusRefused(f"{name}{where} is no XML") from None
    if root.tag != "Document" or root.find("QAPairs") is None:
        raise CorpusRefused(f"{name} isn't MedQuAD's: expected <Document> with <QAPairs>")
    url = root.get("url") or None
    if url is not None and not _URL.fullmatch(url):
        url = None
    seen: set[str] = set()
    for number, pair in enumerate(root.iterfind("QAPairs/QAPair"), start=1):
        where = f"{name}, pair {number}"
        question = (pair.findtext("Question") or "").strip()
        document = Document(
            id=f"{name.removesuffix('.xml')}-{number}",  # MedQuAD's own ids repeat between and within folders
            title=(root.findtext("Focus") or "").strip() or question or name,
            text=(pair.findtext("Answer") or "").strip(),
            url=url,
            source=root.get("source"),
        )
        yield from _checked(document, where, seen)


def _checked(document: Document, where: str, seen: set[str]) -> Iterator[Document | Omitted]:
    if is_blank(document.text):
        yield Omitted(where, "no text (MedQuAD's folders 10 to 12 have questions only)")
    elif len(document.text) > MAX_TEXT:
        yield Omitted(where, f"longer than {MAX_TEXT:,} characters; cut it at its headings")
    elif document.id in seen:
        yield Omitted(where, "its id stands there before; nobody could tell which one is cited")
    else:
        seen.add(document.id)
        yield document


def _instead(error: ValidationError) -> str:
    """Say which field is wrong, and nothing of what stands in it."""
    kind = error.errors(include_input=False, include_url=False)[0]["type"]
    return first_fault(error, whole="the line") if kind != "model_type" else "no object"


def files_of(path: Path) -> list[tuple[str, Path]]:
    """Return a corpus' files with their names inside it, in the order of the names. Raises CorpusRefused."""
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise CorpusRefused(f"{path} is neither a file nor a folder")
    found = sorted(
        (each.relative_to(path).as_posix(), each)
        for each in path.rglob("*")
        if each.is_file() and each.name.removesuffix(".gz").endswith((".xml", ".jsonl"))
    )
    if odd := next((name for name, _ in found if not name.isprintable()), None):
        raise CorpusRefused(
            f"{path} holds a file with an odd name, {odd!a}: a digest of names must be clear; rename it"
        )
    if not found:
        raise CorpusRefused(f"{path} holds no .xml and no .jsonl")
    return found
