"""Which topic a patient's question is of: by the questions of the set, and by none where it is far from all."""

from __future__ import annotations

import pytest

from neurons.lessons.embedding import EmbedderMissing
from neurons.lessons.model import load_embedder
from neurons.validator.rounds import service
from neurons.validator.rounds.challenges import OWN, load_challenges
from neurons.validator.rounds.service import Classifier
from neurons.validator.rounds.topics import Topics
from tests.unit.rounds.people import order


def test_most_questions_that_find_a_topic_find_their_own_though_they_are_left_out() -> None:
    """The figures of docs/rounds.md."""
    every = load_challenges(OWN).challenges
    embedder = load_embedder()
    vectors = dict(zip((each.prompt for each in every), embedder.embed([each.prompt for each in every]), strict=True))

    class Remembered:
        """Embeds nothing twice."""

        def embed(self, texts: list[str]) -> object:
            import numpy as np

            return np.array([vectors[text] for text in texts])

    found = [Topics(every[:at] + every[at + 1 :], Remembered()).of([each.prompt])[0] for at, each in enumerate(every)]
    told = [(topic, each.topic) for topic, each in zip(found, every, strict=True) if topic is not None]
    right = sum(topic == own for topic, own in told)
    assert (len(every), len(told), right) == (286, pytest.approx(268, abs=4), pytest.approx(169, abs=4))


def test_questions_of_no_topic_are_of_none() -> None:
    classify = Classifier(order())
    assert classify(["Where do I pay my bill?", "When are you open?"]) == [None, None]
    assert classify(["Can I take ibuprofen while pregnant?"]) == ["pregnancy"]
    assert classify([]) == []


def test_without_the_model_or_with_another_set_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Can I take ibuprofen while pregnant?"
    assert Classifier(order(challengeDigest="sha256:" + "0" * 64))([question]) == [None]

    def missing() -> None:
        raise EmbedderMissing("it isn't installed")

    monkeypatch.setattr(service, "load_embedder", missing)
    assert Classifier(order())([question]) == [None]
