"""How likely a version holds what it might say next: log-probabilities of continuations after the twin's own prompt.

What all prompts begin with is read once, and each question once for all its continuations, from one cache of keys and
values. Only the text itself counts, not the mark that ends a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from neurons.trainer.answers import shared_tokens
from neurons.trainer.errors import BadModel, OutOfMemory
from neurons.trainer.template import templated

_MOST_CACHED: Final = {"cpu": 8192, "cuda": 16384}
"""Tokens of a batch whose keys and values are kept at a time; 2 GiB of a model of 8 billion weights."""
_MOST_LOGITS: Final = {"cpu": 2**26, "cuda": 2**28}
"""Numbers that the output layer may make at a time: 256 MiB of single precision, 512 MiB of half."""


_MOST_SINGLE: Final = 2**27
"""Of them, so many are in single precision at a time: 512 MiB."""
_NONE: Final = -100


@dataclass(frozen=True, slots=True)
class Compared:
    """A question as a patient of the twin would ask it, and what may be said next."""

    conversation: list[dict[str, str]]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tokens:
    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """The longest continuation."""
        return max(map(len, self.continuations))


def logprobs(
    model: Any,
    tokenizer: Any,
    compared: Sequence[Compared],
    *,
    report: Callable[[int], None] = lambda _: None,
    most_cached: int | None = None,
    most_logits: int | None = None,
) -> list[tuple[float, ...]]:
    """Return the log-probability in nats of each continuation, summed over its tokens, by the model as it is.

    `report` is told after every batch how many questions are done. Versions that are given the same are measured in the
    same batches. Raises BadModel for a tokenizer that makes nothing of a text, and OutOfMemory.
    """
    import torch  # noqa: PLC0415

    most_cached = most_cached or _MOST_CACHED[model.device.type]
    most_logits = most_logits or _MOST_LOGITS[model.device.type]
    asked = [_tokens(tokenizer, each) for each in compared]
    # Longest first, as for answers.
    order = sorted(range(len(asked)), key=lambda index: -(len(asked[index].prompt) + asked[index].longest))
    found: list[tuple[float, ...]] = [()] * len(asked)
    words = model.config.get_text_config().vocab_size
    done = 0
    while done < len(order):
        count = _batch([asked[index] for index in order[done:]], most_cached, most_logits // words)
        batch = order[done : done + count]
        try:
            values = _measured(model, [asked[index] for index in batch])
        except (MemoryError, torch.OutOfMemoryError) as error:
            if count == 1:
                raise OutOfMemory("memory ran out while comparing the safety items. Give the run more.") from error
            most_cached, most_logits = most_cached // 2, most_logits // 2
            continue
        for index, value in zip(batch, values, strict=True):
            found[index] = value
        done += count
        report(done)
    return found


def _tokens(tokenizer: Any, compared: Compared) -> _Tokens:
    prompt = templated(tokenizer, compared.conversation, add_generation_prompt=True)
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in compared.continuations]
    if not all(said):
        raise BadModel("the tokenizer makes no tokens of a safety item's text: the model can't be examined.")
    return _Tokens(prompt=tuple(prompt), continuations=tuple(map(tuple, said)))


def _batch(asked: Sequence[_Tokens], most_cached: int, most_predicted: int) -> int:
    """Return how many of the questions go together; one does, whatever it takes."""
    rows = width = longest = 0
    for count, each in enumerate(asked):
        rows, longest = rows + len(each.continuations), max(longest, each.longest)
        width = max(width, len(each.prompt))
        if count and (rows * (width + longest) > most_cached or rows * longest > most_predicted):
            return count
    return len(asked)


def _measured(model: Any, asked: Sequence[_Tokens]) -> list[tuple[float, ...]]:
    import torch  # noqa: PLC0415
    from transformers import DynamicCache  # noqa: PLC0415

    device = model.device
    prompts = [each.prompt for each in asked]
    shared = shared_tokens(prompts)
    rests = [prompt[shared:] for prompt in prompts]
    width = max(map(len, rests))
    ids = torch.tensor([[0] * (width - len(rest)) + list(rest) for rest in rests], device=device)
    mask = torch.tensor([[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests], device=device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    # An index, as in answers: the logits of a slice copy the output layer's weights.
    last = torch.zeros(1, dtype=torch.long, device=device)
    cache = DynamicCache(config=model.config)
    rows = [(place, said) for place, each in enumerate(asked) for said in each.continuations]
    with torch.inference_mode():
        if shared:
            beginning = torch.tensor([list(prompts[0][:shared])], device=device)
            model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions[:, shared:], past_key_values=cache,
            use_cache=True, logits_to_keep=last - 1 + width,
        )  # fmt: skip
        first = output.logits[:, -1].float().log_softmax(dim=-1)
        of_row = torch.tensor([place for place, _ in rows], device=device)
        begin = torch.tensor([said[0] for _, said in rows], device=device)
        sums = first[of_row, begin].double()
        if any(len(said) > 1 for _, said in rows):
            cache.batch_select_indices(of_row)
            sums = sums + _after_the_first(model, cache, [said for _, said in rows], mask[of_row])
    told = iter(sums.tolist())
    return [tuple(next(told) for _ in each.continuations) for each in asked]


def _after_the_first(model: Any, cache: Any, rows: Sequence[tuple[int, ...]], mask: Any) -> Any:
    """Return for each row the sum over all its tokens but the first, in nats: shape [rows].

    `cache` holds each row's prompt, `mask` which of its tokens are some: shape [rows, width].
    """
    import torch  # noqa: PLC0415

    device = mask.device
    # The last token is predicted and predicts nothing, so it isn't read.
    width = max(map(len, rows)) - 1
    ids = torch.tensor([[*said[:-1], *[0] * (width + 1 - len(said))] for said in rows], device=device)
    seen = torch.tensor([[1] * (len(said) - 1) + [0] * (width + 1 - len(said)) for said in rows], device=device)
    whole = torch.cat([mask, seen], dim=1)
    positions = (whole.cumsum(dim=1) - 1)[:, mask.shape[1] :]
    logits = model(
        input_ids=ids, attention_mask=whole, position_ids=positions, past_key_values=cache, use_cache=True
    ).logits
    targets = torch.tensor([[*said[1:], *[_NONE] * (width + 1 - len(said))] for said in rows], device=device)
    return torch.cat([_sums(logits[part], targets[part]) for part in _parts(*logits.shape)])


def _parts(rows: int, width: int, words: int) -> Iterator[slice]:
    """Yield rows few enough that single precision of them is little: of all it is twice the logits again."""
    count = max(1, _MOST_SINGLE // (width * words))
    for start in range(0, rows, count):
        yield slice(start, start + count)


def _sums(logits: Any, targets: Any) -> Any:
    """Return the sums of the targets' log-probabilities, in nats: shape [rows]; of [rows, width, words]."""
    import torch  # noqa: PLC0415

    lost = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=_NONE, reduction="none"
    )
    return -lost.view(targets.shape).double().sum(dim=1)
