from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from neurons.conversation import shape
from neurons.trainer.dataset import Pair, to_compare, to_learn, with_system_prompt
from neurons.trainer.errors import BadModel
from neurons.trainer.fingerprint import fixed_tokens, mean_distance
from neurons.trainer.lines import Line, Message
from neurons.trainer.lora import Step
from neurons.trainer.template import manner_of, templated
from neurons.trainer.tokens import Fit, examples_of, fit, shortened, shortened_pair, tokenise


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
    [example] = tokenise(chat("it hurts", "rest it"), tokenizer)
    assert tokenizer.read(example.token_ids) == "<user> it hurts <end> <assistant> rest it <end>"
    assert tokenizer.read(learned(example.labels)) == "rest it <end>"


def test_every_answer_of_a_conversation_is_learned() -> None:
    tokenizer = WordTokenizer()
    [example] = tokenise(chat("a", "b", "c", "d e"), tokenizer)
    assert tokenizer.read(learned(example.labels)) == "b <end> d e <end>"


CORRECTED = {
    "messages": [message.model_dump() for message in chat("a", "poor advice", "c", "worse advice")],
    "consent": True, "rating": 1, "correction": "good advice",
}  # fmt: skip


@pytest.mark.parametrize("prompt", [None, "be kind"])
def test_of_a_conversation_that_was_corrected_only_the_correction_is_learned(prompt: str | None) -> None:
    tokenizer = WordTokenizer()
    conversation = with_system_prompt(to_learn(Line.model_validate(CORRECTED)), prompt)
    [example] = tokenise(conversation, tokenizer)
    assert "poor advice <end>" in tokenizer.read(example.token_ids)
    assert "worse" not in tokenizer.read(example.token_ids)
    assert tokenizer.read(learned(example.labels)) == "good advice <end>"


def test_labels_stand_at_their_tokens() -> None:
    [example] = tokenise(chat("a", "b c"), WordTokenizer())
    assert all(label in (-100, token) for token, label in zip(example.token_ids, example.labels, strict=True))


def test_a_long_conversation_is_cut_at_the_front_between_turns() -> None:
    tokenizer = WordTokenizer()
    turns = [
        Message(role="system", content="be kind"),
        *chat("a", "b", "c d", "e f", "g", "take it but NEVER with wine"),
    ]
    whole = len(tokenise(turns, tokenizer)[0].token_ids)
    shorter = shortened(turns, tokenizer, max_tokens=whole - 1)
    assert shorter == (turns[0], *turns[3:])
    assert shortened(turns, tokenizer, max_tokens=whole) == tuple(turns)


def test_an_answer_is_never_cut() -> None:
    """Its first half says the opposite."""
    tokenizer = WordTokenizer()
    turns = chat("a", "b", "may I", "take it but NEVER with wine")
    for most in range(1, 40):
        kept = shortened(turns, tokenizer, max_tokens=most)
        assert kept is None or kept[-1] == turns[-1]
    assert shortened(turns, tokenizer, max_tokens=10) is None


@pytest.mark.parametrize(("most", "expected"), [(40, Fit.WHOLE), (13, Fit.SHORTENED), (12, Fit.NOT)])
def test_a_pair_is_shortened_so_that_both_answers_fit(most: int, expected: Fit) -> None:
    tokenizer = WordTokenizer()
    pair = Pair(prompt=tuple(chat("a", "b", "my head aches")), preferred="rest", rejected="run as far as you can")
    assert fit(pair, tokenizer, max_tokens=most) is expected
    kept = shortened_pair(pair, tokenizer, max_tokens=most)
    if kept is not None:
        assert (kept.preferred, kept.rejected) == (pair.preferred, pair.rejected)
        assert kept.prompt == (pair.prompt if expected is Fit.WHOLE else pair.prompt[2:])


class Thinking(WordTokenizer):
    """As Qwen 3's template: what was thought is left out of earlier answers."""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **how: Any) -> dict[str, list[int]]:
        last = messages[-1]
        if last["role"] == "assistant":
            messages = [*messages[:-1], {**last, "content": f"<think> </think> {last['content']}"}]
        return super().apply_chat_template(messages, **how)


def test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer() -> None:
    tokenizer = Thinking()
    first, second = tokenise(chat("a", "b", "c", "d e"), tokenizer)
    assert tokenizer.read(first.token_ids) == "<user> a <end> <assistant> <think> </think> b <end>"
    assert tokenizer.read(learned(first.labels)) == "<think> </think> b <end>"
    assert tokenizer.read(second.token_ids) == (
        "<user> a <end> <assistant> b <end> <user> c <end> <assistant> <think> </think> d e <end>"
    )
    assert tokenizer.read(learned(second.labels)) == "<think> </think> d e <end>"


def test_where_the_template_rewrites_earlier_turns_those_before_a_correction_make_no_example() -> None:
    conversation = to_learn(Line.model_validate(CORRECTED))
    tokenizer = Thinking()
    assert [tokenizer.read(learned(each.labels)) for each in tokenise(conversation, tokenizer)] == [
        "<think> </think> good advice <end>"
    ]
    assert examples_of(conversation, tokenizer, max_tokens=100) == 1


def test_a_template_that_forgets_what_it_was_asked_is_refused() -> None:
    with pytest.raises(BadModel, match="leaves out"):
        tokenise(chat("a", "b", "c", "d"), WordTokenizer(forgetful=True))


def test_an_answer_that_the_template_puts_elsewhere_is_refused() -> None:
    class Backwards(WordTokenizer):
        def apply_chat_template(self, messages: Sequence[dict[str, str]], **how: Any) -> dict[str, list[int]]:
            return super().apply_chat_template(messages if how["add_generation_prompt"] else messages[::-1], **how)

    with pytest.raises(BadModel, match="elsewhere"):
        tokenise(chat("a", "b"), Backwards())


class Runs(WordTokenizer):
    """Takes blanks in a row for one token, whoever wrote them: as the tokenizers of GPT-2's kind do."""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **how: Any) -> dict[str, list[int]]:
        text = "".join(f"<{message['role']}>\n{message['content']}<end>\n" for message in messages)
        text += "<assistant>\n" if how.get("add_generation_prompt") else ""
        words = re.findall(r"\s+|<\w+>|[^\s<]+", text)
        return {"input_ids": [self.words.setdefault(word, len(self.words)) for word in words]}


@pytest.mark.parametrize("blanks", ["\n\n", "\n", " ", "\r\n", "\u00a0"])
def test_an_answer_that_begins_with_blanks_stops_no_night(blanks: str) -> None:
    """Exports of chats are full of them."""
    tokenizer = Runs()
    said = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": f"{blanks}b"}] * 2
    plain = Line.model_validate({"messages": said})
    corrected = Line.model_validate({"messages": said, "correction": f"{blanks}b"})
    pair = to_compare(Line.model_validate({"messages": said[:3], "preferred": f"{blanks}b", "rejected": f"{blanks}c"}))

    for conversation, answers in ((to_learn(plain), 2), (to_learn(corrected), 1)):
        [example] = tokenise(conversation, tokenizer)
        assert tokenizer.read(learned(example.labels)).split() == ["b", "<end>"] * answers
    assert pair is not None
    assert (pair.prompt[1].content, pair.preferred, pair.rejected) == ("b", "b", "c")


class NoSystem(WordTokenizer):
    """As Mistral's and Gemma's templates."""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **how: Any) -> dict[str, list[int]]:
        if any(message["role"] == "system" for message in messages):
            raise ValueError("System role not supported")
        return super().apply_chat_template(messages, **how)


def test_a_template_without_a_system_role_gets_the_rules_in_the_first_question_as_patients_send_them() -> None:
    tokenizer = NoSystem()
    [example] = tokenise([Message(role="system", content="be kind"), *chat("a", "b")], tokenizer)
    assert tokenizer.read(example.token_ids) == "<user> be kind a <end> <assistant> b <end>"
    assert templated(
        tokenizer, shape([{"role": "user", "content": "a"}], system="be kind", manner=manner_of(tokenizer)),
        add_generation_prompt=True,
    ) == list(example.token_ids[: example.labels.index(next(iter(learned(example.labels))))])  # fmt: skip


def test_a_template_that_takes_nothing_is_said_in_words() -> None:
    class Broken(WordTokenizer):
        def apply_chat_template(self, messages: Sequence[dict[str, str]], **how: Any) -> dict[str, list[int]]:
            raise ValueError("'tools' is undefined")

    with pytest.raises(BadModel, match="takes no conversation: 'tools' is undefined"):
        tokenise(chat("a", "b"), Broken())


def test_the_twins_rules_and_a_conversations_own_become_one_as_the_miner_makes_them() -> None:
    talk = [Message(role="system", content="Speak Nepali."), *chat("a", "b")]
    first, *rest = with_system_prompt(talk, "You are Dr. A's twin.")
    assert first == Message(role="system", content="You are Dr. A's twin.\n\nSpeak Nepali.")
    assert rest == talk[1:]


def test_remaining_time_follows_the_steps_so_far() -> None:
    assert Step(number=5, of=20, loss=1.0, seconds=10.0).remaining_seconds == 30.0


def test_the_fingerprint_text_has_at_most_64_tokens() -> None:
    assert 30 <= len(fixed_tokens(WordTokenizer())) <= 64


def test_the_distance_is_the_mean_of_absolute_differences() -> None:
    assert mean_distance([-1.0, -2.0], [-2.0, -1.5]) == 0.75


@dataclass(frozen=True)
class Mark:
    """As tokenizers' AddedToken."""

    content: str
    special: bool

    def __str__(self) -> str:
        return self.content


class Marked(WordTokenizer):
    """Names its marks where tokenizers do: some in both places, Llama 3 most of its own in the second only."""

    all_special_tokens = ("<end>",)
    added_tokens_decoder: ClassVar = {7: Mark("<|eot|>", special=True), 8: Mark("<b>", special=False)}


@pytest.mark.parametrize(("mark", "fits"), [("<end>", Fit.MARKED), ("<|eot|>", Fit.MARKED), ("<b>", Fit.WHOLE)])
def test_an_answer_with_the_mark_that_ends_one_is_not_learned(mark: str, fits: Fit) -> None:
    """What stands before it would be learned as the whole answer."""
    tokenizer = Marked()
    answer = f"take it {mark} but NEVER with wine"
    rules = Message(role="system", content="say <end> never")
    for turns in (chat("a", answer), chat("a", answer, "b", "c"), chat(answer, "a")):
        assert fit([rules, *turns], tokenizer, max_tokens=100) is fits
        assert (shortened(turns, tokenizer, max_tokens=100) is None) == (fits is Fit.MARKED)
    for said in ({"preferred": answer, "rejected": "b"}, {"preferred": "b", "rejected": answer}):
        assert fit(Pair(prompt=tuple(chat("a")), **said), tokenizer, max_tokens=100) is fits
