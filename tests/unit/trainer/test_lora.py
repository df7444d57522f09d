from __future__ import annotations

from collections.abc import Sequence

import pytest

from neurons.trainer.dataset import Message
from neurons.trainer.errors import BadModel
from neurons.trainer.fingerprint import fixed_tokens, mean_distance
from neurons.trainer.lora import Step, tokenise


class WordTokenizer:
    """A chat template over whole words, so that every token of an example can be read."""

    def __init__(self, *, forgetful: bool = False) -> None:
        self.words: dict[str, int] = {}
        self.forgetful = forgetful

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False, **_: object
    ) -> dict[str, list[int]]:
        kept = messages[-2:] if self.forgetful else messages
        words = [word for message in kept for word in (f"<{message['role']}>", *message["content"].split(), "<end>")]
        if add_generation_prompt:
            words.append("<assistant>")
        return {"input_ids": [self.words.setdefault(word, len(self.words)) for word in words]}

    def read(self, token_ids: Sequence[int]) -> str:
        names = {number: word for word, number in self.words.items()}
        return " ".join(names[token] for token in token_ids)


def chat(*contents: str) -> list[Message]:
    return [
        Message(role="assistant" if index % 2 else "user", content=content) for index, content in enumerate(contents)
    ]


def learned(labels: Sequence[int]) -> list[int]:
    return [label for label in labels if label != -100]


def test_only_the_answer_and_its_end_are_learned() -> None:
    tokenizer = WordTokenizer()
    example = tokenise(chat("it hurts", "rest it"), tokenizer, max_tokens=100)
    assert tokenizer.read(example.token_ids) == "<user> it hurts <end> <assistant> rest it <end>"
    assert tokenizer.read(learned(example.labels)) == "rest it <end>"


def test_every_answer_of_a_conversation_is_learned() -> None:
    tokenizer = WordTokenizer()
    example = tokenise(chat("a", "b", "c", "d e"), tokenizer, max_tokens=100)
    assert tokenizer.read(learned(example.labels)) == "b <end> d e <end>"


def test_labels_stand_at_their_tokens() -> None:
    example = tokenise(chat("a", "b c"), WordTokenizer(), max_tokens=100)
    assert all(label in (-100, token) for token, label in zip(example.token_ids, example.labels, strict=True))


def test_a_long_conversation_is_cut_at_the_end() -> None:
    example = tokenise(chat("a", "b c d e f"), WordTokenizer(), max_tokens=6)
    assert len(example.token_ids) == len(example.labels) == 6


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    with pytest.raises(BadModel, match="template"):
        tokenise(chat("a", "b", "c", "d"), WordTokenizer(forgetful=True), max_tokens=100)


def test_remaining_time_follows_the_steps_so_far() -> None:
    assert Step(number=5, of=20, loss=1.0, seconds=10.0).remaining_seconds == 30.0


def test_the_fingerprint_text_has_at_most_64_tokens() -> None:
    assert 30 <= len(fixed_tokens(WordTokenizer())) <= 64


def test_the_distance_is_the_mean_of_absolute_differences() -> None:
    assert mean_distance([-1.0, -2.0], [-2.0, -1.5]) == 0.75
