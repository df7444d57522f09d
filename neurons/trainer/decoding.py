"""Greedy answers on a GPU by one CUDA graph: a step is thousands of small kernels, which it hands out at once.

The cache of keys and values has its full size from the beginning, and no answer leaves the batch before all have ended:
a graph is of one shape. Nothing here depends on what other batches or other versions say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from neurons.trainer.attention import attending, on_one_device

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_NAME: Final = "decoding"
_ALIGNMENT: Final = 64
_STEPS_BETWEEN_LOOKS: Final = 8
"""Whether all have ended: to look is to wait for the GPU."""


def suits_graph(model: Any) -> bool:
    """Tell whether a model's answers can be made so: on a GPU, all of its layers attending to all earlier tokens."""
    import torch  # noqa: PLC0415

    if model.device.type != "cuda" or model.dtype != torch.bfloat16 or not on_one_device(model):
        return False
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "attn_logit_softcapping", None)
        and type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
        in ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
    )


class FixedCache:
    """Keys and values of rows of one length; what comes next is written where `place` says, shape [1]."""

    def __init__(self, read: Any, *, length: int, place: torch.Tensor) -> None:
        """Go on from a transformers cache that has read the prompts."""
        import torch  # noqa: PLC0415

        def widened(states: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2])).contiguous()

        self.place = place
        self.keys = [widened(layer.keys) for layer in read.layers]
        self.values = [widened(layer.values) for layer in read.layers]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token's keys and values, shape [rows, heads, 1, head]; return all of the layer's."""
        self.keys[layer].index_copy_(2, self.place, keys)
        self.values[layer].index_copy_(2, self.place, values)
        return self.keys[layer], self.values[layer]

    def get_seq_length(self, *_: Any) -> int:
        """Only who is not told positions asks for it."""
        raise NotImplementedError


class Decoder:
    """The answers to a batch of prompts that a cache has read. `tokens` makes them."""

    def __init__(
        self, model: Any, cache: Any, *, first: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor,
        ends: frozenset[int], limits: Sequence[int], penalty: float, used: torch.Tensor | None,
    ) -> None:  # fmt: skip
        """`first` is each answer's first token, shape [rows]; `positions` its position; `mask` which tokens before it
        are some, shape [rows, width]; `used` which ones the penalty holds for, shape [rows, words]."""
        import torch  # noqa: PLC0415

        self._model, self._limits, self._ends, self._penalty, self._used = model, limits, ends, penalty, used
        rows, width = mask.shape
        device = mask.device
        most = max(limits)
        length = -(-(width + most) // _ALIGNMENT) * _ALIGNMENT
        self._seen = torch.zeros((rows, 1, 1, length), dtype=torch.bool, device=device)
        self._seen[:, 0, 0, :width] = mask.bool()
        self._place = torch.tensor([width], device=device)
        self._number = torch.ones(1, dtype=torch.long, device=device)
        self._ids, self._positions = first[:, None].clone(), positions.clone()
        self._said = torch.full((rows, most), -1, device=device)
        self._said[:, 0] = first
        self._cache = FixedCache(cache, length=length, place=self._place)
        self._last = torch.zeros(1, dtype=torch.long, device=device)
        self._marks = torch.tensor(sorted(ends) or [-1], device=device)

    def tokens(self) -> list[list[int]]:
        """Return each answer's tokens, without the one that ends it."""
        step = self._step
        with _own_stream(self._seen.device) as stream, attending(self._model, _NAME, _attend):
            for number in range(1, max(self._limits)):
                if number == 2 and stream is not None:  # the first step warmed up what is recorded now
                    step = self._recorded(stream)
                step()
                if number % _STEPS_BETWEEN_LOOKS == 0 and self._all_ended(number + 1):
                    break
        return [self._answer(row, limit) for row, limit in zip(self._said.tolist(), self._limits, strict=True)]

    def _recorded(self, stream: torch.cuda.Stream) -> Callable[[], None]:
        import torch  # noqa: PLC0415

        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # nothing of the step was done
            _log.warning("no CUDA graph of this model's answers: %s", str(error).partition("\n")[0][:300])
            return self._step
        replay: Callable[[], None] = graph.replay
        return replay

    def _step(self) -> None:
        import torch  # noqa: PLC0415

        self._seen.index_fill_(3, self._place, value=True)
        if self._used is not None:
            self._used.scatter_(1, self._ids, value=True)
        logits = self._model(
            input_ids=self._ids, attention_mask=self._seen, position_ids=self._positions,
            past_key_values=self._cache, use_cache=True, logits_to_keep=self._last,
        ).logits[:, -1]  # fmt: skip
        if self._used is not None:
            held = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(self._used, held, logits)
        self._ids.copy_(logits.argmax(dim=-1, keepdim=True))
        self._said.index_copy_(1, self._number, self._ids)
        self._positions += 1
        self._place += 1
        self._number += 1

    def _all_ended(self, said: int) -> bool:
        import torch  # noqa: PLC0415

        ended = torch.isin(self._said, self._marks).any(dim=1).tolist()
        return all(has or limit <= said for has, limit in zip(ended, self._limits, strict=True))

    def _answer(self, said: Sequence[int], limit: int) -> list[int]:
        kept: list[int] = []
        for token in said[:limit]:
            if token in self._ends or token < 0:
                break
            kept.append(token)
        return kept


@contextmanager
def _own_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """Work on a stream of its own, as what is recorded must; None on a CPU, which has none."""
    import torch  # noqa: PLC0415

    if device.type != "cuda":
        yield None
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield stream
    torch.cuda.current_stream().wait_stream(stream)


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor, *,
    scaling: float, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Take and return what transformers' attention functions do, of one token for each row; each key for all of its
    heads, without a copy for each. The mask has the shape [rows, 1, 1, length]."""
    import torch  # noqa: PLC0415

    rows, heads, tokens, size = query.shape
    if tokens != 1:
        raise ValueError("one token at a time")
    shared = query.view(rows, key.shape[1], heads // key.shape[1], size)
    scores = (shared @ key.transpose(2, 3)).float() * scaling
    shares = torch.softmax(scores.masked_fill(~attention_mask, -torch.inf), dim=-1).to(value.dtype)
    return (shares @ value).view(rows, 1, heads, size), None
