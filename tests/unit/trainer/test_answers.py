"""Answers in batches are those that the model gives one by one; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

from typing import Any

import pytest

from neurons.trainer import answers
from neurons.trainer.template import templated

torch = pytest.importorskip("torch", reason="answers need torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="answers need peft, which is only in the trainer's image")

QUESTIONS = ["my knee hurts", "when is your clinic open", "a cough", "my back hurts badly and my head aches", "rest"]
TOKENS = 12
LIMITS = [TOKENS] * len(QUESTIONS)


def conversations(system: str | None = None) -> list[list[dict[str, str]]]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [[*before, {"role": "user", "content": question}] for question in QUESTIONS]


def generated(model: Any, tokenizer: Any, conversation: list[dict[str, str]], *, tokens: int) -> list[int]:
    prompt = templated(tokenizer, conversation, add_generation_prompt=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    told: list[int] = output[0][len(prompt) :].tolist()
    return told


def ends(model: Any, tokenizer: Any, conversation: list[dict[str, str]], *, tokens: int) -> bool:
    """Whether transformers' own generation comes to the end of its answer within so many tokens."""
    return generated(model, tokenizer, conversation, tokens=tokens)[-1] in answers._ends(model, tokenizer)


def one_by_one(model: Any, tokenizer: Any, asked: list[list[dict[str, str]]]) -> list[str]:
    said = []
    for conversation in asked:
        told = generated(model, tokenizer, conversation, tokens=TOKENS)
        if told[-1] in answers._ends(model, tokenizer):
            told.pop()  # the end is not said
        said.append(tokenizer.decode(told, skip_special_tokens=True).strip())
    return said


@pytest.mark.parametrize("system", [None, "see me on Tuesday and Friday"])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_batch_answers_as_each_question_alone(twin: tuple[Any, Any], system: str | None, batch_size: int) -> None:
    model, tokenizer = twin
    asked = conversations(system)
    told: list[int] = []
    batched = answers.answer(model, tokenizer, asked, max_new_tokens=LIMITS, report=told.append, batch_size=batch_size)
    assert batched == one_by_one(model, tokenizer, asked)
    assert len(set(batched)) > 1
    assert told[-1] == len(asked)


def test_answers_that_end_early_leave_the_others_going(twin: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = twin
    ids = tokenizer(" ".join(one_by_one(model, tokenizer, conversations())))["input_ids"]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [ids[len(ids) // 2], tokenizer.eos_token_id])
    places: list[int] = []
    batched = answers.answer(model, tokenizer, conversations(), max_new_tokens=LIMITS, cut=places.append)
    assert batched == one_by_one(model, tokenizer, conversations())
    assert len({len(each.split()) for each in batched}) > 1
    whole = {place for place, each in enumerate(conversations()) if ends(model, tokenizer, each, tokens=TOKENS)}
    assert whole == set(range(len(batched))) - set(places)


def test_each_answer_has_a_length_of_its_own(twin: tuple[Any, Any]) -> None:
    model, tokenizer = twin
    limits = [1, TOKENS, 3, TOKENS, 2]
    whole = answers.answer(model, tokenizer, conversations(), max_new_tokens=LIMITS)
    places: list[int] = []
    cut = answers.answer(model, tokenizer, conversations(), max_new_tokens=limits, cut=places.append)
    ended = [
        ends(model, tokenizer, asked, tokens=limit) for asked, limit in zip(conversations(), limits, strict=True)
    ]  # fmt: skip
    assert sorted(places) == [place for place, is_whole in enumerate(ended) if not is_whole]
    assert set(ended) == {True, False}
    assert cut == [" ".join(text.split()[:limit]) for text, limit in zip(whole, limits, strict=True)]


def test_the_models_own_repetition_penalty_counts(twin: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = twin
    plain = answers.answer(model, tokenizer, conversations(), max_new_tokens=LIMITS)
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 1.8)
    batched = answers.answer(model, tokenizer, conversations(), max_new_tokens=LIMITS)
    assert batched == one_by_one(model, tokenizer, conversations())
    assert batched != plain


@pytest.mark.parametrize("penalty", [1.0, 1.8])
@pytest.mark.parametrize("system", [None, "see me on Tuesday and Friday"])
def test_a_cache_of_fixed_size_gives_the_same_answers(
    twin: tuple[Any, Any], system: str | None, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = twin
    ids = tokenizer(" ".join(one_by_one(model, tokenizer, conversations(system))))["input_ids"]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [ids[len(ids) // 2], tokenizer.eos_token_id])
    monkeypatch.setattr(model.generation_config, "repetition_penalty", penalty)
    limits = [1, TOKENS, 3, TOKENS, 2]
    plain = answers.answer(model, tokenizer, conversations(system), max_new_tokens=limits)
    monkeypatch.setattr(answers, "suits_graph", lambda _: True)
    assert answers.answer(model, tokenizer, conversations(system), max_new_tokens=limits) == plain
    assert len({len(each.split()) for each in plain}) > 1
