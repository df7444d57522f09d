"""`python -m neurons.store`: push a PEFT folder to a store, verify an adapter that lies there, or say where it is from.

Prints one line of JSON. Exit status: 0 done, 1 refused (the reason is on standard error), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, BaseModelEntry, manifest_digest
from neurons.arguments import filled
from neurons.store.adapters import fetch_adapter, publish_adapter, read_manifest
from neurons.store.base_model import base_modules
from neurons.store.checks import WEIGHTS_FILE, check_adapter
from neurons.store.errors import ArtifactNotFound, DigestMismatch, ManifestInvalid, StoreError
from neurons.store.hub import SCHEME, download
from neurons.store.lora_config import CONFIG_FILE
from neurons.store.lora_tensors import BaseModules
from neurons.store.manifests import TAKEN, build_manifest, is_of_another_program, left_behind, parse_manifest

PROGRAM_VARIABLE: Final = "TWIN_PROGRAM"
"""What this program calls itself, where another one runs it for somebody."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        line = asyncio.run(_COMMANDS[options.command](options))
    except StoreError as error:
        sys.stderr.write(f"{error.reason}: {error}\n")
        return 1
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=os.environ.get(PROGRAM_VARIABLE) or "python -m neurons.store", description="Push and verify adapters."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="check a PEFT adapter, publish it under its digest, print uri and digest")
    push.add_argument(
        "folder", type=filled, metavar="FOLDER", help="what save_pretrained wrote, or hf://owner/name[@revision]"
    )
    push.add_argument(
        "--store", required=True, type=filled, metavar="URI", help="root of the store, e.g. s3://bucket/adapters"
    )
    push.add_argument("--twin", required=True, type=_twin)
    push.add_argument("--base-model", required=True, type=filled, metavar="NAME", help="the pool's baseModel.name")
    push.add_argument("--base-model-revision", type=filled, metavar="REVISION")
    push.add_argument("--base-model-digest", type=_digest, metavar="sha256:…")
    push.add_argument(
        "--base-model-uri",
        type=filled,
        metavar="URI",
        help="the base model, to compare modules and sizes with: a folder, or hf://owner/name (only headers are read)",
    )
    verify = commands.add_parser("verify", help="read every byte of an adapter and check it")
    verify.add_argument("uri", type=filled)
    verify.add_argument("--digest", required=True, type=_digest)
    lineage = commands.add_parser("lineage", help="print dataset, parent and run of an adapter, from its manifest")
    lineage.add_argument("uri", type=filled)
    lineage.add_argument("--digest", required=True, type=_digest)
    return parser


async def _push(options: argparse.Namespace) -> dict[str, object]:
    base = BaseModelEntry(
        name=options.base_model, revision=options.base_model_revision, digest=options.base_model_digest
    )
    modules = await asyncio.to_thread(base_modules, options.base_model_uri) if options.base_model_uri else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder)
        if options.folder.startswith(SCHEME):
            folder = Path(temporary)
            await asyncio.to_thread(download, options.folder, folder, names=_ADAPTER_FILES)
            beside: tuple[str, ...] = ()  # nothing else was fetched
        else:
            await asyncio.to_thread(_check_is_folder, options.folder)
            beside = await asyncio.to_thread(left_behind, folder)
        manifest = await asyncio.to_thread(_manifest_of, folder, base, modules)
        uri = await publish_adapter(folder, options.store, options.twin, manifest)
    pushed = {"uri": uri, "digest": manifest_digest(manifest.to_bytes()), **_facts(manifest)}
    if beside:
        more = f" and {len(beside) - _NAMED} more" if len(beside) > _NAMED else ""
        sys.stderr.write(f"Not pushed, since it is no part of an adapter: {', '.join(beside[:_NAMED])}{more}.\n")
        pushed["leftBehind"] = beside[:_NAMED]
    return pushed


async def _verify(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        manifest = await fetch_adapter(options.uri, options.digest, Path(folder, names.digest_hex(options.digest)))
    return {"uri": options.uri, "digest": options.digest, "verified": True, **_facts(manifest)}


async def _lineage(options: argparse.Namespace) -> dict[str, object]:
    manifest, data = await read_manifest(options.uri)
    if (found := manifest_digest(data)) != options.digest:
        raise DigestMismatch(f"{options.uri}: {MANIFEST_FILE} is {found}, not {options.digest}. Check the URI.")
    lineage = manifest.lineage.model_dump(mode="json", by_alias=True)
    return {"uri": options.uri, "digest": options.digest, **_facts(manifest), **lineage}


def _check_is_folder(named: str) -> None:
    """Raise ArtifactNotFound, with what to name instead, for what is no folder of this machine."""
    path = Path(named)
    if page := re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", named):
        raise ArtifactNotFound(f"{named}: a page of the hub. Name the repository: {SCHEME}{page[1]}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", named):
        raise ArtifactNotFound(
            f"{named}: an adapter is pushed from a folder of this machine or from {SCHEME}owner/name."
        )
    if path.is_file():
        raise ArtifactNotFound(f"{named}: a file. Name the folder that it lies in: {path.parent}")
    if not path.is_dir():
        raise ArtifactNotFound(f"{named}: there is no such folder. Name one that PEFT's save_pretrained wrote.")


def _manifest_of(folder: Path, base: BaseModelEntry, modules: BaseModules | None) -> AdapterManifest:
    """Use the manifest that the trainer left in the folder (it carries fingerprint and lineage), else make one."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return build_manifest(folder, base_model=base, base=modules)
    if is_of_another_program(data := path.read_bytes()):
        raise ManifestInvalid(
            f"{folder}: {MANIFEST_FILE} is no adapter's but another program's. Remove it from the folder: a push makes "
            "one."
        )
    manifest = parse_manifest(data, uri=str(folder))
    if strangers := sorted({entry.path for entry in manifest.files} - TAKEN):
        raise ManifestInvalid(
            f"{folder}: {MANIFEST_FILE} lists what is no part of an adapter: {', '.join(strangers[:_NAMED])}. Remove "
            f"{MANIFEST_FILE} to make a new one."
        )
    if manifest.base_model.name != base.name:
        raise ManifestInvalid(
            f"{folder}: {MANIFEST_FILE} says it was trained on {manifest.base_model.name!r}, not {base.name!r}. Pass "
            f"that name, or remove {MANIFEST_FILE} to make a new one."
        )
    for what, said, given in (
        ("revision", manifest.base_model.revision, base.revision),
        ("digest", manifest.base_model.digest, base.digest),
    ):
        if given is not None and given != said:
            raise ManifestInvalid(
                f"{folder}: {MANIFEST_FILE} says {said or 'nothing'} of the base model's {what}, --base-model-{what} "
                f"says {given}. Leave that out, or remove {MANIFEST_FILE} to make a new one."
            )
    if (config := check_adapter(folder, base=modules)).highest_rank != manifest.rank:
        raise ManifestInvalid(
            f"{folder}: {MANIFEST_FILE} says rank {manifest.rank}, the adapter has rank {config.highest_rank}. Remove "
            f"{MANIFEST_FILE} to make a new one."
        )
    return manifest


_ADAPTER_FILES: Final = (CONFIG_FILE, WEIGHTS_FILE)
"""What is taken of a repository on the hub: its tokenizer and manifest say nothing about our base model."""
_NAMED: Final = 20
"""Of the files that are left behind, so many are named."""
_COMMANDS: Final = {"push": _push, "verify": _verify, "lineage": _lineage}


def _facts(manifest: AdapterManifest) -> dict[str, object]:
    return {
        "rank": manifest.rank,
        "bytes": sum(entry.size for entry in manifest.files),
        "baseModel": manifest.base_model.name,
        "fingerprint": manifest.fingerprint is not None,
    }


def _twin(value: str) -> str:

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no twin name: lower-case letters, digits and '-', at most 63")
    return value


def _digest(value: str) -> str:
    if not names.is_digest(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no digest: expected sha256: and 64 lower-case hex digits")
    return value


if __name__ == "__main__":
    sys.exit(main())
