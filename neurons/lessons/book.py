"""One twin's lessons, ready to be found by what is asked: exact words first, then by embeddings above a floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neurons.lessons.context import names
from neurons.lessons.file import LessonsFile
from neurons.lessons.lesson import Found, Kind, Lesson
from neurons.lessons.likeness import Asked, floor_for

if TYPE_CHECKING:
    from neurons.lessons.embedding import Vectors


class Book:
    """The lessons of one twin, by its UID."""

    def __init__(self, file: LessonsFile, vectors: Vectors | None, *, liked_unapproved: bool = False) -> None:
        """`vectors` are the questions' of `taught(file)`, in its order; without them only the same words are found."""
        self.twin_uid, self.revision = file.twin_uid, file.revision
        self._lessons = taught(file, liked_unapproved=liked_unapproved)
        self._vectors = vectors
        self._asked = [Asked.of(lesson.question) for lesson in self._lessons]
        # A correction in the place of what was liked, where both answer the same words.
        order = sorted(range(len(self._lessons)), key=lambda n: self._lessons[n].kind is Kind.CORRECTION)
        self._by_words = {self._asked[number].words: number for number in order}

    def __len__(self) -> int:
        return len(self._lessons)

    def same_words(self, question: Asked) -> Found | None:
        """Return the lesson whose question has the same words."""
        number = self._by_words.get(question.words)
        return Found(self._lessons[number], 1.0) if number is not None else None

    def near(self, question: Asked, vector: Vectors, *, floor: float, most: int) -> list[Found]:
        """Return the lessons nearest to a question's vector, the nearest first, of equals a correction first."""
        if self._vectors is None or not self._lessons:
            return []
        scores = self._vectors.astype("float32") @ vector
        numbers = [
            number
            for number in map(int, (scores >= floor).nonzero()[0])
            if scores[number] >= floor_for(question, self._asked[number], floor=floor)
        ]
        numbers.sort(key=lambda n: (-float(scores[n]), self._lessons[n].kind is not Kind.CORRECTION, n))
        return [Found(self._lessons[n], min(1.0, float(scores[n]))) for n in numbers[:most]]


def taught(file: LessonsFile, *, liked_unapproved: bool = False) -> tuple[Lesson, ...]:
    """Return the lessons that count: what the doctor approved, and, where it is wanted, all that was liked.

    A question that names nothing ("May I take it?", "Is 500 mg ok?") was about one thing in its own conversation and is
    about another in each other: its answer would be the doctor's to what nobody asked her.
    """
    return tuple(lesson for lesson in file.lessons if (lesson.approved or liked_unapproved) and names(lesson.question))


def pick(found: Sequence[Sequence[Found]], *, most: int, most_bytes: int) -> tuple[Found, ...]:
    """Return what goes into the prompt of a conversation, of what each of its questions found, oldest question first.

    The last question's come before the others' when there is not room for all; what stays is in the order of the
    questions, so that a conversation's prompt begins as it began before.
    """
    taken: dict[str, tuple[int, Found]] = {}
    room = most_bytes
    for number in range(len(found) - 1, -1, -1):
        for one in found[number]:
            size = len(one.lesson.question.encode()) + len(one.lesson.answer.encode())
            known = taken.get(one.lesson.digest)
            if known is not None:
                taken[one.lesson.digest] = (number, known[1])
            elif len(taken) < most and size <= room:
                taken[one.lesson.digest] = (number, one)
                room -= size
    return tuple(one for _, one in sorted(taken.values(), key=lambda entry: (entry[0], -entry[1].similarity)))
