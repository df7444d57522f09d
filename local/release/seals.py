"""Checksums of a release's files, and their signature by cosign."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from release.commands import run

SUMS = "SHA256SUMS"
BUNDLE = "SHA256SUMS.sigstore.json"


def sums(folder: Path) -> Path:
    """Write the SHA-256 of every file in `folder` to its SHA256SUMS, as `sha256sum -c` reads it."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (SUMS, BUNDLE):
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder)}\n")
    (folder / SUMS).write_text("".join(lines))
    return folder / SUMS


def sign(folder: Path, *, environment: Mapping[str, str] = os.environ) -> str:
    """Sign SHA256SUMS, and by it all files, where cosign and a key are at hand; return what was done, or is to do."""
    cosign, key = shutil.which("cosign", path=environment.get("PATH")), environment.get("COSIGN_KEY")
    told = ["sign-blob", "--yes", "--bundle", str(folder / BUNDLE), str(folder / SUMS)]
    if cosign and key:
        run([cosign, *told[:1], "--key", key, *told[1:]], env=dict(environment))
        return f"signed by {key}: {BUNDLE}"
    missing = "cosign is not on PATH" if not cosign else "COSIGN_KEY names no key"
    return f"NOT SIGNED: {missing}. Run: cosign {' '.join(told)}"
