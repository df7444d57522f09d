"""The real model, where it is installed: the same question in other words is found, another is not."""

from __future__ import annotations

import pytest

from neurons.lessons import LessonsFile
from neurons.lessons.book import Book
from neurons.lessons.embedding import EmbedderMissing
from neurons.lessons.likeness import FLOOR, Asked
from neurons.lessons.model import load_embedder
from tests.unit.lessons.test_file import TAUGHT


def test_the_same_question_in_other_words_is_found() -> None:
    try:
        embedder = load_embedder()
    except EmbedderMissing as missing:
        pytest.skip(str(missing))
    book = Book(LessonsFile("t", "u", 1, (TAUGHT,)), embedder.embed([TAUGHT.question]))
    asked = {
        "I use warfarin for my heart. Is it ok to have an ibuprofen for back pain?": 1,
        "May I take paracetamol with warfarin?": 0,
        "When are you open?": 0,
        "के म गर्भवती हुँदा कफी खान सक्छु?": 0,
    }
    for question, count in asked.items():
        found = book.near(Asked.of(question), embedder.embed([question])[0], floor=FLOOR, most=2)
        assert len(found) == count, question
