"""Making a manifest for a PEFT folder, and reading one back with errors a person can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bettertherapy_api.manifest import (
    MANIFEST_FILE,
    AdapterManifest,
    BaseModelEntry,
    FileEntry,
    Fingerprint,
    Lineage,
)
from neurons.store.errors import ManifestInvalid, translated
from neurons.store.hashing import file_digest

MAX_MANIFEST_BYTES: Final = 1024 * 1024
CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_KEPT_SUFFIXES: Final = (".json", ".safetensors", ".txt", ".model", ".jinja")
_LEFT_OUT: Final = (MANIFEST_FILE, "trainer_state.json")


def build_manifest(
    folder: Path,
    *,
    base_model: BaseModelEntry,
    fingerprint: Fingerprint | None = None,
    lineage: Lineage | None = None,
) -> AdapterManifest:
    """Return the manifest of the PEFT adapter in `folder`; the rank is `r` in its adapter_config.json.

    Takes weights (safetensors only: a pickle may run code), configuration and tokenizer files; leaves out read-me
    files, checkpoints and a manifest that is there already. Blocks while it hashes. Raises ManifestInvalid for a
    folder that vLLM couldn't serve.
    """
    config = _read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise ManifestInvalid(
            f"{folder}: {WEIGHTS_FILE} is missing. Save the adapter with PEFT's save_pretrained (safetensors, not "
            ".bin)."
        )
    entries = []
    with translated(doing="hashing the files", uri=str(folder)):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in _KEPT_SUFFIXES and path.name not in _LEFT_OUT and path.name[0] != ".":
                digest, size = file_digest(path)
                entries.append((path.name, digest, size))
    try:
        return AdapterManifest(
            base_model=base_model,
            rank=_rank(config, folder),
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


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ManifestInvalid(f"{folder}: {CONFIG_FILE} is missing. Name a folder that PEFT's save_pretrained wrote.")
    with translated(doing=f"reading {CONFIG_FILE}", uri=str(folder)):
        data = path.read_bytes()
    try:
        config = json.loads(data)
    except ValueError as error:
        raise ManifestInvalid(f"{path}: not JSON: {error}. Save the adapter again.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ManifestInvalid(f"{path}: peft_type is not LORA. Only LoRA adapters can be served.")
    for unserved in ("use_dora", "modules_to_save"):
        if config.get(unserved):
            raise ManifestInvalid(f"{path}: {unserved} is set, which vLLM can't serve. Train without it.")
    return config


def _rank(config: dict[str, Any], folder: Path) -> int:
    pattern = config.get("rank_pattern") or {}
    given = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    ranks = [rank for rank in given if isinstance(rank, int) and not isinstance(rank, bool)]
    if len(ranks) != len(given):
        raise ManifestInvalid(f"{folder / CONFIG_FILE}: r is not a whole number. Save the adapter again.")
    return max(ranks)


def _summary(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg']}"
