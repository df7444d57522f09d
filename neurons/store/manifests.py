"""Making a manifest for a PEFT folder, and reading one back with errors a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

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
__all__ = ["CONFIG_FILE", "MAX_MANIFEST_BYTES", "WEIGHTS_FILE", "build_manifest", "parse_manifest"]
_KEPT_SUFFIXES: Final = (".json", ".safetensors", ".txt", ".model", ".jinja")
_LEFT_OUT: Final = (MANIFEST_FILE, "trainer_state.json")


def build_manifest(
    folder: Path,
    *,
    base_model: BaseModelEntry,
    fingerprint: Fingerprint | None = None,
    lineage: Lineage | None = None,
    base: BaseModules | None = None,
) -> AdapterManifest:
    """Return the manifest of the PEFT adapter in `folder`; the rank is the highest in its adapter_config.json.

    Takes weights (safetensors only: a pickle may run code), configuration and tokenizer files; leaves out read-me
    files, checkpoints and a manifest that is there already. Blocks while it reads. Raises AdapterInvalid or
    WeightsNotFinite for an adapter that vLLM refuses or would serve otherwise than it was meant; `base` are the base
    model's modules to compare it with, where they are known.
    """
    config = check_adapter(folder, base=base)
    entries = []
    with translated(doing="hashing the files", uri=str(folder)):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in _KEPT_SUFFIXES and path.name not in _LEFT_OUT and path.name[0] != ".":
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
        raise ManifestInvalid(f"{folder}: no manifest can be made of it: {_summary(error)}") from error


def parse_manifest(data: bytes, *, uri: str) -> AdapterManifest:
    """Read manifest.json; raises ManifestInvalid with the first thing that is wrong."""
    try:
        manifest = AdapterManifest.model_validate_json(data)
    except ValidationError as error:
        raise ManifestInvalid(
            f"{uri}: {MANIFEST_FILE} is not valid: {_summary(error)}. Push the adapter again."
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


def _summary(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg']}"
