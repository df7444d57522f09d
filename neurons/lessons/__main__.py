"""`python -m neurons.lessons`: a doctor's corrections, at once.

`publish DATASET.jsonl --twin-uri STORE/TWIN --twin-uid UID` reads lines of a dataset (`docs/datasets.md`) and makes
lessons of those that the doctor corrected, and of those that were rated high; these count as approved if
`--approve-liked` says that the doctor has seen them. `list --twin-uri STORE/TWIN` says what counts now.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from neurons.arguments import filled, filled_path
from neurons.lessons.context import asked_in
from neurons.lessons.file import MAX_ANSWER, MAX_QUESTION, LessonsError, LessonsFile, newest
from neurons.lessons.lesson import Kind, Lesson
from neurons.lessons.shelf import fetch, look, publish
from neurons.store import StoreError

LIKED_FROM: Final = 4


def lessons_of(lines: Iterable[bytes], *, approve_liked: bool) -> Iterator[Lesson]:
    """Return the lessons in a dataset's lines; raises LessonsError that names the line and quotes nothing.

    A line without consent, one that is too long, and one that holds no question with an answer give none.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise LessonsError(f"line {number} is no JSON") from None
        if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
            raise LessonsError(f"line {number} is no line of a dataset: it has no `messages`")
        if document.get("consent") is True and (lesson := _lesson(document, approve_liked=approve_liked)) is not None:
            yield lesson


def _lesson(document: dict[str, Any], *, approve_liked: bool) -> Lesson | None:
    said = [
        (message["role"], message["content"])
        for message in document["messages"]
        if isinstance(message, dict)
        and isinstance(message.get("content"), str)
        and isinstance(message.get("role"), str)
    ]
    if len(said) < 2 or said[-1][0] != "assistant" or said[-2][0] != "user":
        return None
    question, answer = asked_in(said[:-1]), said[-1][1].strip()
    kind, approved, rating = Kind.LIKED, approve_liked, document.get("rating")
    correction = document.get("correction")
    if isinstance(correction, str) and correction.strip():
        answer, kind, approved = correction.strip(), Kind.CORRECTION, True
    elif isinstance(rating, bool) or not isinstance(rating, int) or rating < LIKED_FROM:
        return None
    if not question or not answer or len(question) > MAX_QUESTION or len(answer) > MAX_ANSWER:
        return None
    return Lesson(question, answer, kind, approved)


async def _publish(given: argparse.Namespace) -> str:
    lines = [line for path in given.datasets for line in path.read_bytes().split(b"\n")]
    lessons = newest(lessons_of(lines, approve_liked=given.approve_liked))
    twin = given.twin_uri.rstrip("/").rpartition("/")[2]
    revision = given.revision if given.revision is not None else time.time_ns() // 1_000_000
    pointer = await publish(given.twin_uri, LessonsFile(twin, given.twin_uid, revision, lessons))
    return f"{len(lessons)} lessons, {pointer.digest}, revision {pointer.revision}"


async def _list(given: argparse.Namespace) -> str:
    pointer = await look(given.twin_uri)
    if pointer is None:
        return "no lessons"
    _, file = await fetch(given.twin_uri, pointer)
    kinds = {kind: sum(lesson.kind is kind for lesson in file.lessons) for kind in Kind}
    counts = ", ".join(f"{count} {kind.value}" for kind, count in kinds.items())
    return f"twin {file.twin_uid}: {counts}, {pointer.digest}, revision {pointer.revision}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m neurons.lessons", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    publishing = commands.add_parser("publish", help="make these a twin's lessons, in place of all it has")
    publishing.add_argument(
        "datasets", nargs="+", type=filled_path, help="files in the form of a dataset, oldest first"
    )
    publishing.add_argument("--twin-uid", required=True, type=filled, help="metadata.uid of the DoctorTwin")
    publishing.add_argument("--approve-liked", action="store_true", help="the doctor has approved what was rated high")
    publishing.add_argument("--revision", type=int, help="greater than the last; the time by default")
    listing = commands.add_parser("list", help="say what counts now")
    for command in (publishing, listing):
        command.add_argument(
            "--twin-uri", required=True, type=filled, help="the twin's folder in the store: s3://bucket/twin"
        )
    given = parser.parse_args(arguments)
    try:
        print(asyncio.run(_publish(given) if given.command == "publish" else _list(given)))  # noqa: T201
    except (LessonsError, StoreError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
