"""The lessons file of one twin: JSON Lines, content-addressed, each line in canonical form.

The first line says whose it is, `{"format", "revision", "twin", "twinUid"}`; each other is one lesson,
`{"answer", "approved", "digest", "kind", "question"}`, by the order of their digests. Beside it `current.json`
names the file that counts. A reader takes all of a file or nothing: what is damaged is refused in words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api.faults import first_fault
from neurons.lessons.lesson import Kind, Lesson
from neurons.lessons.likeness import Asked

FORMAT: Final = "bettertherapy-lessons/1"
MAX_LESSONS: Final = 512
"""Of one twin. A night's fine-tune takes up what is older."""
MAX_QUESTION: Final = 2000
MAX_ANSWER: Final = 2000
"""Characters. A longer one is no lesson for a prompt; cut, it might lose the words that matter."""
MAX_BYTES: Final = 2 * 1024 * 1024
MAX_POINTER_BYTES: Final = 4096

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Uid = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]


_M = TypeVar("_M", bound=BaseModel)


class LessonsError(ValueError):
    """It is no lessons file, or not the one that was meant; the message is a sentence and quotes no lesson."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Pointer(_Strict):
    """`current.json`: which file counts now."""

    format: Literal["bettertherapy-lessons/1"] = FORMAT
    digest: Digest
    revision: Annotated[int, Field(ge=0, lt=2**53)]
    """Grows with each publication; of two files the one with the greater counts."""
    twin_uid: Annotated[Uid, Field(alias="twinUid")]

    def to_bytes(self) -> bytes:
        """Return its canonical form."""
        return _canonical(self.model_dump(by_alias=True))


class _Head(_Strict):
    format: Literal["bettertherapy-lessons/1"]
    revision: Annotated[int, Field(ge=0, lt=2**53)]
    twin: Annotated[str, Field(min_length=1, max_length=63)]
    twin_uid: Annotated[Uid, Field(alias="twinUid")]


class _Line(_Strict):
    answer: Annotated[str, Field(min_length=1, max_length=MAX_ANSWER)]
    approved: bool
    digest: Digest
    kind: Literal["correction", "liked"]
    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]


@dataclass(frozen=True, slots=True)
class LessonsFile:
    """All lessons of one twin."""

    twin: str
    twin_uid: str
    revision: int
    lessons: tuple[Lesson, ...]


def write_lessons(file: LessonsFile) -> tuple[bytes, Pointer]:
    """Return a file's bytes and what points at them; raises LessonsError for what no reader would take."""
    by_digest = {lesson.digest: lesson for lesson in file.lessons}
    head = {"format": FORMAT, "revision": file.revision, "twin": file.twin, "twinUid": file.twin_uid}
    lines = [head, *(_document(digest, by_digest[digest]) for digest in sorted(by_digest))]
    data = b"".join(_canonical(line) + b"\n" for line in lines)
    digest = digest_of(data)
    read_lessons(data, digest=digest, twin_uid=file.twin_uid)
    return data, Pointer.model_validate({"digest": digest, "revision": file.revision, "twinUid": file.twin_uid})


def read_lessons(data: bytes, *, digest: str, twin_uid: str) -> LessonsFile:
    """Return what the bytes say; raises LessonsError for other bytes, another twin's file, or a damaged one."""
    if len(data) > MAX_BYTES:
        raise LessonsError(f"a lessons file has at most {MAX_BYTES} bytes, this one {len(data)}: publish fewer lessons")
    if digest_of(data) != digest:
        raise LessonsError(f"its digest is {digest_of(data)}, expected {digest}: publish the lessons again")
    first, *rest = data.removesuffix(b"\n").split(b"\n")
    if len(rest) > MAX_LESSONS:
        raise LessonsError(f"a twin has at most {MAX_LESSONS} lessons at once, this file {len(rest)}")
    head = _read(_Head, first, line=1)
    if head.twin_uid != twin_uid:
        raise LessonsError(f"it belongs to the twin with UID {head.twin_uid}, not to {twin_uid}: nobody gets it")
    lessons = []
    for number, line in enumerate(rest, start=2):
        given = _read(_Line, line, line=number)
        lesson = Lesson(given.question, given.answer, Kind(given.kind), given.approved)
        if lesson.digest != given.digest:
            raise LessonsError(f"line {number}: its digest is not that of its words: publish the lessons again")
        if lesson.kind is Kind.CORRECTION and not lesson.approved:
            raise LessonsError(f"line {number}: a correction that its doctor has not approved is no lesson")
        if not lesson.question.strip() or not lesson.answer.strip():
            raise LessonsError(f"line {number}: question or answer is empty")
        lessons.append(lesson)
    return LessonsFile(head.twin, head.twin_uid, head.revision, tuple(lessons))


def read_pointer(data: bytes) -> Pointer:
    """Return what `current.json` says; raises LessonsError."""
    return _read(Pointer, data, line=1)


def digest_of(data: bytes) -> str:
    """Return `sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def newest(lessons: Iterable[Lesson]) -> tuple[Lesson, ...]:
    """Return the last MAX_LESSONS of them, corrections before what was liked; the iterable is oldest first.

    Of several answers to the same words only one stays, the last: what a doctor corrected again is not her answer any
    more. What was liked never stands beside a correction of the same words.
    """
    kept: dict[str, Lesson] = {}
    for lesson in lessons:
        words = Asked.of(lesson.question).words or lesson.digest
        if lesson.kind is Kind.LIKED and words in kept and kept[words].kind is Kind.CORRECTION:
            continue
        kept.pop(words, None)
        kept[words] = lesson
    corrections = [lesson for lesson in kept.values() if lesson.kind is Kind.CORRECTION][-MAX_LESSONS:]
    room = MAX_LESSONS - len(corrections)
    liked = [lesson for lesson in kept.values() if lesson.kind is Kind.LIKED][-room:] if room else []
    return (*corrections, *liked)


def _document(digest: str, lesson: Lesson) -> dict[str, Any]:
    return {
        "answer": lesson.answer, "approved": lesson.approved, "digest": digest, "kind": lesson.kind.value,
        "question": lesson.question,
    }  # fmt: skip


def _canonical(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _read(model: type[_M], data: bytes, *, line: int) -> _M:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise LessonsError(f"line {line} is no JSON") from None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise LessonsError(f"line {line}: {first_fault(error)}") from None
