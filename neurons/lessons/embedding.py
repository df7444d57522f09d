"""Sentences as vectors, by a small model on the CPU: two questions that mean the same lie close together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

MAX_TOKENS: Final = 128
"""Of a question; what comes after is not looked at."""
BATCH: Final = 4
"""Texts at once; more of them take more memory, and no less time a text."""


class EmbedderMissing(Exception):  # noqa: N818 - a state of the installation
    """The model or what runs it isn't installed; the message names it."""


class Embedder(Protocol):
    """Anything that embeds."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a row of length 1 a text. Blocks for milliseconds: call it in a thread."""


class OnnxEmbedder:
    """A sentence model of the BERT kind as ONNX, with the mean over its tokens."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        """Load it, which takes a second; raises EmbedderMissing."""
        try:
            # Only a miner that has lessons pays for these.
            import numpy  # noqa: PLC0415
            import onnxruntime  # noqa: PLC0415
            from tokenizers import Tokenizer  # noqa: PLC0415
        except ImportError as error:
            raise EmbedderMissing(f"{error.name} isn't installed") from None
        self._numpy: Any = numpy
        options = onnxruntime.SessionOptions()
        # One thread: beside a miner that answers others, a question may take twice as long rather than both cores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = frozenset(given.name for given in self._session.get_inputs())
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(max_length=MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a row of length 1 a text."""
        np = self._numpy
        rows = [self._batch(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        vectors: Vectors = np.concatenate(rows)
        return vectors

    def _batch(self, texts: Sequence[str]) -> Vectors:
        np = self._numpy
        encoded = self._tokenizer.encode_batch(list(texts))
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        feed = {
            "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        hidden = self._session.run(None, {name: value for name, value in feed.items() if name in self._inputs})[0]
        weights = mask[..., None].astype(np.float32)
        mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: Vectors = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
        return vectors
