"""Log-probabilities in batches are those of each text alone; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

from typing import Any

import pytest

from neurons.trainer import likelihoods
from neurons.trainer.errors import BadModel, OutOfMemory
from neurons.trainer.likelihoods import Compared, logprobs
from neurons.trainer.template import templated

torch = pytest.importorskip("torch", reason="likelihoods need torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="likelihoods need peft, which is only in the trainer's image")

ASKED = [
    ("my knee hurts", ("rest it and cool it", "keep moving", "drink")),
    ("when is your clinic open", ("on Tuesday and Friday", "closed")),
    ("a cough", ("drink and rest", "see me on Monday", "call emergency services now .", "rest")),
    ("my back hurts badly and my head aches", ("rest", "drink")),
    ("rest", ("open", "call emergency services now and rest it")),
]


def compared(system: str | None = None) -> list[Compared]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [
        Compared([*before, {"role": "user", "content": question}], continuations) for question, continuations in ASKED
    ]


def one_by_one(model: Any, tokenizer: Any, asked: list[Compared]) -> list[list[float]]:
    """Each text in a forward pass of its own, without a cache."""
    found = []
    for each in asked:
        prompt = templated(tokenizer, each.conversation, add_generation_prompt=True)
        values = []
        for text in each.continuations:
            said = tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + said])).logits[0].log_softmax(dim=-1)
            values.append(sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(said)))
        found.append(values)
    return found


def equal(one: Any, other: Any) -> bool:
    return all(list(a) == pytest.approx(list(b), abs=1e-3) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("system", [None, "see me on Tuesday and Friday"])
@pytest.mark.parametrize("most_cached", [1, 120, 10_000])
def test_a_batch_measures_as_each_text_alone(twin: tuple[Any, Any], system: str | None, most_cached: int) -> None:
    model, tokenizer = twin
    asked, told = compared(system), list[int]()
    measured = logprobs(model, tokenizer, asked, report=told.append, most_cached=most_cached)
    assert equal(measured, one_by_one(model, tokenizer, asked))
    assert told[-1] == len(asked)
    assert (len(told) == len(asked)) == (most_cached == 1)
    assert (len(told) == 1) == (most_cached == 10_000)


def test_the_output_layer_makes_no_more_numbers_than_it_may(twin: tuple[Any, Any]) -> None:
    model, tokenizer = twin
    told: list[int] = []
    words = model.config.vocab_size
    # One predicted token at a time is less than any two questions take: each goes by itself.
    measured = logprobs(model, tokenizer, compared(), report=told.append, most_logits=words)
    assert len(told) == len(ASKED)
    assert equal(measured, one_by_one(model, tokenizer, compared()))


def test_texts_of_one_token_need_no_second_pass(twin: tuple[Any, Any]) -> None:
    model, tokenizer = twin
    asked = [Compared([{"role": "user", "content": "a cough"}], ("rest", "drink"))]
    assert equal(logprobs(model, tokenizer, asked), one_by_one(model, tokenizer, asked))


def test_memory_that_runs_out_makes_smaller_batches_and_then_an_error(
    twin: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = twin
    really, most = likelihoods._measured, 2

    def scarce(model: Any, asked: Any) -> Any:
        if len(asked) > most:
            raise MemoryError
        return really(model, asked)

    monkeypatch.setattr(likelihoods, "_measured", scarce)
    measured = logprobs(model, tokenizer, compared(), most_cached=10_000)
    assert equal(measured, one_by_one(model, tokenizer, compared()))
    most = 0
    with pytest.raises(OutOfMemory, match="comparing the safety items"):
        logprobs(model, tokenizer, compared())


def test_a_text_without_a_token_is_an_error(twin: tuple[Any, Any]) -> None:
    model, tokenizer = twin
    with pytest.raises(BadModel, match="no tokens"):
        logprobs(model, tokenizer, [Compared([{"role": "user", "content": "rest"}], (" ", "rest"))])
