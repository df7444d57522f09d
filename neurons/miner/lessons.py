"""The lessons of all twins that this miner serves, and those among them that a conversation is about.

Books come from `lesson_feed`; without any, nothing is loaded and nothing is computed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from neurons.conversation import Message, text_of
from neurons.lessons import Found, LessonsFile
from neurons.lessons.book import Book, pick, taught
from neurons.lessons.context import asked_in
from neurons.lessons.embedding import BATCH, Embedder, EmbedderMissing
from neurons.lessons.likeness import Asked
from neurons.miner.metrics import Metrics

if TYPE_CHECKING:
    from neurons.lessons.embedding import Vectors

log = logging.getLogger(__name__)

QUESTIONS: Final = 4
"""So many of a conversation's last questions are looked at: "and with food?" is about what was asked before."""
EACH: Final = 2
"""Lessons of one question."""
MOST: Final = 3
MOST_BYTES: Final = 3000
"""Of all lessons in a prompt."""
MAX_LESSONS: Final = 50_000
"""Of all twins of one miner: some 100 MB."""
FIND_SECONDS: Final = 0.5
KNOWN_VECTORS: Final = 2048
_MOST_CHARACTERS: Final = 2000
"""Of a question; more than the model looks at."""


@dataclass(frozen=True, slots=True)
class _Shelf:
    """What is kept of one twin."""

    digest: str
    book: Book


class Lessons:
    """All books, by the UIDs of their twins."""

    def __init__(
        self, metrics: Metrics, *, floor: float, load: Callable[[], Embedder], liked_unapproved: bool = False
    ) -> None:
        """`load` is called in a thread when there is the first lesson."""
        self._metrics, self._floor, self._load, self._liked = metrics, floor, load, liked_unapproved
        self._shelves: dict[str, _Shelf] = {}
        self._embedder: Embedder | None = None
        self._missing = False
        # One thread: what embeds for one question would only slow another's down.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding")
        self._known: OrderedDict[bytes, Vectors] = OrderedDict()
        self._key = secrets.token_bytes(16)
        """Of the hashes by which vectors are known: no text is kept, nor what could be compared with one."""

    def has(self, twin_uid: str) -> bool:
        """Tell whether a twin has lessons."""
        shelf = self._shelves.get(twin_uid)
        return shelf is not None and len(shelf.book) > 0

    def digest(self, twin_uid: str) -> str | None:
        """Return which file of a twin's is in use."""
        shelf = self._shelves.get(twin_uid)
        return shelf.digest if shelf is not None else None

    def uids(self) -> set[str]:
        """Return the UIDs of the twins that have lessons."""
        return set(self._shelves)

    def drop(self, twin_uid: str) -> None:
        """Forget a twin's lessons."""
        if self._shelves.pop(twin_uid, None) is not None:
            self._show()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def put(self, file: LessonsFile, digest: str) -> bool:
        """Use a twin's lessons from now on, once their vectors are there; tell whether there is room for them."""
        others = sum(len(shelf.book) for uid, shelf in self._shelves.items() if uid != file.twin_uid)
        lessons = taught(file, liked_unapproved=self._liked)
        if others + len(lessons) > MAX_LESSONS:
            log.error("a twin's lessons are too many beside the others'", extra={"twin": file.twin})
            return False
        vectors = await self._vectors([lesson.question for lesson in lessons])
        book = Book(file, vectors, liked_unapproved=self._liked)
        self._shelves[file.twin_uid] = _Shelf(digest, book)
        self._show()
        log.info("lessons", extra={"twin": file.twin, "lessons": len(book), "revision": file.revision})
        return True

    async def find(self, twin_uid: str, turns: Sequence[Message]) -> tuple[Found, ...]:
        """Return the lessons of this twin that a conversation is about; none rather than late, which is counted."""
        shelf = self._shelves.get(twin_uid)
        if shelf is None or shelf.book.twin_uid != twin_uid:
            return ()
        questions = _questions(turns)
        try:
            async with asyncio.timeout(FIND_SECONDS):
                vectors = await self._embedded(questions)
            outcome = "found"
        except TimeoutError:
            vectors, outcome = [None] * len(questions), "late"
        found = []
        for question, vector in zip(questions, vectors, strict=True):
            asked = Asked.of(question)
            same = shelf.book.same_words(asked)
            near = shelf.book.near(asked, vector, floor=self._floor, most=EACH) if vector is not None else []
            others = [one for one in near if same is None or one.lesson.digest != same.lesson.digest]
            found.append([*([same] if same is not None else []), *others][:EACH])
        picked = pick(found, most=MOST, most_bytes=MOST_BYTES)
        self._metrics.lessons_asked.labels("found" if picked else "late" if outcome == "late" else "none").inc()
        return picked

    async def _embedded(self, questions: Sequence[str]) -> list[Vectors | None]:
        keys = [hashlib.blake2b(text.encode("utf-8", "replace"), key=self._key).digest() for text in questions]
        new = {key: text for key, text in zip(keys, questions, strict=True) if key not in self._known}
        if new and (made := await self._vectors(list(new.values()))) is not None:
            for key, vector in zip(new, made, strict=True):
                self._known[key] = vector
        vectors = []
        for key in keys:
            vectors.append(self._known.get(key))
            if key in self._known:
                self._known.move_to_end(key)
        while len(self._known) > KNOWN_VECTORS:
            self._known.popitem(last=False)
        return vectors

    async def _vectors(self, texts: Sequence[str]) -> Vectors | None:
        """Return the texts' vectors, None where nothing can embed; in pieces, so that questions pass between them."""
        if not texts or self._missing:
            return None
        loop = asyncio.get_running_loop()
        try:
            parts = [
                await loop.run_in_executor(self._thread, self._embed, texts[at : at + BATCH])
                for at in range(0, len(texts), BATCH)
            ]
        except EmbedderMissing as error:
            self._missing = True
            log.warning("lessons are found by the same words only: %s", error)
            return None
        except Exception as error:  # noqa: BLE001 - a patient's answer doesn't depend on it, whatever it is
            # By its name alone: what it says may hold the question.
            log.error("questions can't be embedded now: %s", type(error).__name__)  # noqa: TRY400
            return None
        if len(parts) == 1:
            return parts[0]
        import numpy  # noqa: PLC0415 - only a miner that has lessons pays for it

        whole: Vectors = numpy.concatenate(parts)
        return whole

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if self._embedder is None:
            self._embedder = self._load()
        return self._embedder.embed(texts)

    def _show(self) -> None:
        self._metrics.lessons.set(sum(len(shelf.book) for shelf in self._shelves.values()))


def _questions(turns: Sequence[Message]) -> list[str]:
    """Return a conversation's last questions, each with what it is about where it doesn't say it itself."""
    # Cut before anybody looks at words: normalised, a megabyte keeps all others waiting for seconds.
    said = [(turn["role"], text[:_MOST_CHARACTERS]) for turn in turns if (text := text_of(turn).strip())]
    ends = [index + 1 for index, (role, _) in enumerate(said) if role == "user"][-QUESTIONS:]
    return [(asked_in(said[:end]) or said[end - 1][1])[:_MOST_CHARACTERS] for end in ends]
