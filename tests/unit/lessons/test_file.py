"""The lessons file: written and read, refused when it is another twin's or not what its digest says."""

from __future__ import annotations

import orjson
import pytest

from neurons.lessons import Kind, Lesson, LessonsError, LessonsFile, read_lessons, read_pointer, write_lessons
from neurons.lessons.file import MAX_LESSONS, digest_of, newest

TAUGHT = Lesson("May I take ibuprofen with warfarin?", "Never. Take paracetamol.", Kind.CORRECTION, approved=True)
LIKED = Lesson("When are you open?", "On Tuesday.", Kind.LIKED, approved=False)


def file(*lessons: Lesson, uid: str = "uid-1") -> LessonsFile:
    return LessonsFile("dr-gurung", uid, 7, lessons)


def test_what_was_written_is_read() -> None:
    data, pointer = write_lessons(file(TAUGHT, LIKED, TAUGHT))
    read = read_lessons(data, digest=pointer.digest, twin_uid="uid-1")
    assert set(read.lessons) == {TAUGHT, LIKED}
    assert len(read.lessons) == 2
    assert read_pointer(pointer.to_bytes()) == pointer
    assert write_lessons(file(LIKED, TAUGHT))[0] == data


def test_another_twins_file_is_nobodys() -> None:
    data, pointer = write_lessons(file(TAUGHT))
    with pytest.raises(LessonsError, match="belongs to the twin with UID uid-1, not to uid-2"):
        read_lessons(data, digest=pointer.digest, twin_uid="uid-2")


def test_changed_bytes_are_refused() -> None:
    data, pointer = write_lessons(file(TAUGHT))
    with pytest.raises(LessonsError, match="its digest is"):
        read_lessons(data.replace(b"Never", b"Always"), digest=pointer.digest, twin_uid="uid-1")


def test_changed_words_are_refused_though_the_file_was_named_anew() -> None:
    data = write_lessons(file(TAUGHT))[0].replace(b"Never", b"Always")
    with pytest.raises(LessonsError, match="line 2: its digest is not that of its words"):
        read_lessons(data, digest=digest_of(data), twin_uid="uid-1")


def test_a_correction_needs_its_doctor() -> None:
    with pytest.raises(LessonsError, match="not approved"):
        write_lessons(file(Lesson("a", "b", Kind.CORRECTION, approved=False)))


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b'{"question": 1}', orjson.dumps({"question": "q", "answer": "a", "kind": "liked", "approved": 1})],
)
def test_a_line_that_is_no_lesson_is_named_and_never_quoted(line: bytes) -> None:
    data = write_lessons(file())[0] + line + b"\n"
    with pytest.raises(LessonsError, match="line 2"):
        read_lessons(data, digest=digest_of(data), twin_uid="uid-1")


def test_the_newest_stay_and_corrections_before_what_was_liked() -> None:
    many = [Lesson(f"q{number}", "a", Kind.LIKED, approved=True) for number in range(MAX_LESSONS + 5)]
    kept = newest([TAUGHT, *many])
    assert len(kept) == MAX_LESSONS
    assert kept[0] == TAUGHT
    assert many[-1] in kept
    assert many[0] not in kept


def test_what_the_doctor_corrected_again_is_not_her_answer_any_more() -> None:
    """Two answers of hers to one question: the older one is what she took back."""

    def corrected(question: str, answer: str) -> Lesson:
        return Lesson(question, answer, Kind.CORRECTION, approved=True)

    older = corrected("May I take ibuprofen, with warfarin?", "One tablet of 400 mg.")
    liked = Lesson("may I take ibuprofen with warfarin", "Yes, three a day.", Kind.LIKED, approved=True)
    assert newest([older, TAUGHT, liked]) == (TAUGHT,)
    assert newest([TAUGHT, older]) == (older,)
