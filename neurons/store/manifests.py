"""Making a manifest for a PEFT folder, and reading one back with errors a person can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from bettertherapy_api.faults import first_fault
from bettertherapy_api.manifest import (
    MANIFEST_FILE,
    AdapterManifest,
    BaseModelEntry,
    FileEntry,
    Fingerprint,
    Lineage,
)
from neurons.store.checks import WEIGHTS_FILE, check_adapter
from neurons.store.errors import ManifestInvalid, translated
from neurons.store.hashing import file_digest
from neurons.store.lora_config import CONFIG_FILE
from neurons.store.lora_tensors import BaseModules

MAX_MANIFEST_BYTES: Final = 1024 * 1024
__all__ = [
    "CONFIG_FILE",
    "MAX_MANIFEST_BYTES",
    "TAKEN",
    "WEIGHTS_FILE",
    "build_manifest",
    "is_of_another_program",
    "left_behind",
    "parse_manifest",
]
TAKEN: Final = frozenset({
    CONFIG_FILE, WEIGHTS_FILE,
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json", "generation_config.json",
})  # fmt: skip
"""What PEFT and transformers write that is an adapter's own. Whatever else lies beside it may be anybody's."""


def build_manifest(
    folder: Path,
    *,
    base_model: BaseModelEntry,
    fingerprint: Fingerprint | None = None,
    lineage: Lineage | None = None,
    base: BaseModules | None = None,
) -> AdapterManifest:
    """Return the manifest of the PEFT adapter in `folder`; the rank is the highest in its adapter_config.json.

    Takes weights (safetensors only: a pickle may run code), configuration and tokenizer files by their names, and
    nothing else that lies there. Blocks while it reads. Raises AdapterInvalid or
    WeightsNotFinite for an adapter that vLLM refuses or would serve otherwise than it was meant; `base` are the base
    model's modules to compare it with, where they are known.
    """
    config = check_adapter(folder, base=base)
    entries = []
    with translated(doing="hashing the files", uri=str(folder)):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name in TAKEN:
                digest, size = file_digest(path)
                entries.append((path.name, digest, size))
    try:
        return AdapterManifest(
            base_model=base_model,
            rank=config.highest_rank,
            files=tuple(FileEntry(path=name, digest=digest, size=size) for name, digest, size in entries),
            fingerprint=fingerprint,
            lineage=lineage or Lineage(),
        )
    except ValidationError as error:
        raise ManifestInvalid(
            f"{folder}: no manifest can be made of it: {first_fault(error, whole='the document')}"
        ) from error


def is_of_another_program(data: bytes) -> bool:
    """Tell whether a file of the manifest's name is none: web pages and browser extensions have such a file too."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return True
    own = {field.alias or name for name, field in AdapterManifest.model_fields.items()}
    return not isinstance(document, dict) or len(own & document.keys()) < 2


def left_behind(folder: Path) -> tuple[str, ...]:
    """Return the names of what lies in the folder and is no part of the adapter; blocks."""
    with translated(doing="looking at the files", uri=str(folder)):
        return tuple(
            f"{path.name}/" if path.is_dir() else path.name
            for path in sorted(folder.iterdir())
            if path.is_dir() or path.name not in (*TAKEN, MANIFEST_FILE)
        )


def parse_manifest(data: bytes, *, uri: str) -> AdapterManifest:
    """Read manifest.json; raises ManifestInvalid with the first thing that is wrong."""
    try:
        manifest = AdapterManifest.model_validate_json(data)
    except ValidationError as error:
        raise ManifestInvalid(
            f"{uri}: {MANIFEST_FILE} is not valid: {first_fault(error, whole='the document')}. Push the adapter again."
        ) from error
    names = [entry.path for entry in manifest.files]
    if len(set(names)) != len(names):
        raise ManifestInvalid(f"{uri}: {MANIFEST_FILE} lists a file twice. Push the adapter again.")
    if MANIFEST_FILE in names:
        raise ManifestInvalid(f"{uri}: {MANIFEST_FILE} lists itself. Push the adapter again.")
    for needed in (CONFIG_FILE, WEIGHTS_FILE):
        if needed not in names:
            raise ManifestInvalid(f"{uri}: {MANIFEST_FILE} lists no {needed}. Push a whole PEFT folder.")
    return manifest
