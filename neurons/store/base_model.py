"""The modules of a base model, from its files' headers: what an adapter's tensors are compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from neurons.store.errors import AdapterInvalid, ArtifactNotFound, translated
from neurons.store.finite import DTYPES
from neurons.store.hub import SCHEME, tensor_shapes
from neurons.store.locations import local_folder
from neurons.store.lora_tensors import BaseModules
from neurons.store.safetensors import NotSafetensors, read_header

_MAX_HEADER_BYTES: Final = 100_000_000
_PARTS: Final = ("vision_config", "audio_config", "text_config", "thinker_config")
_EMBEDDINGS: Final = ("embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings")


def base_modules(uri: str, *, pvc_dir: Path | None = None) -> BaseModules:
    """Return the modules of the model at hf://, file:// or pvc://, or in a folder; blocks. Raises StoreError.

    Only headers are read, from the hub too: some 100 KB of a large model.
    """
    if uri.startswith(SCHEME):
        return modules_of(tensor_shapes(uri))
    folder = Path(uri) if "://" not in uri else local_folder(uri, pvc_dir=pvc_dir)
    if folder is None:
        raise ArtifactNotFound(f"{uri}: a base model to compare with is read from a folder, file://, pvc:// or hf://.")
    with translated(doing="reading the base model's headers", uri=uri):
        return folder_modules(folder)


def folder_modules(folder: Path) -> BaseModules:
    """Return the modules of the model in a folder; blocks. Raises ArtifactNotFound, AdapterInvalid, OSError."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactNotFound(f"{folder}: it has no safetensors weights to compare with. Name a model's folder.")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in files:
        try:
            header = read_header(path, limit=_MAX_HEADER_BYTES, known_only=False)
        except NotSafetensors as error:
            raise AdapterInvalid(f"{path} is {error}.") from error
        found.update({tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors})
    return modules_of(found, config=_config(folder))


def modules_of(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], *, config: Mapping[str, Any] | None = None
) -> BaseModules:
    """Return the modules that tensors belong to. Sizes are known of plain weights; packed ones (int4) hide theirs."""
    shapes: dict[str, tuple[int, int] | None] = {}
    vocabulary = None
    for name, (dtype, shape) in tensors.items():
        module, _, kind = name.rpartition(".")
        plain = kind == "weight" and dtype in DTYPES and len(shape) == 2
        if plain or module not in shapes:
            shapes[module] = (shape[0], shape[1]) if plain else None
        if plain and module.rpartition(".")[2] in _EMBEDDINGS:
            vocabulary = max(vocabulary or 0, shape[0])
    parts = any(key in (config or {}) for key in _PARTS) or any("vision" in name or "visual" in name for name in shapes)
    return BaseModules(shapes, vocabulary=vocabulary, has_parts=parts)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
