"""sha256 of files and the digest form that the whole project uses."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 1024 * 1024


def file_digest(path: Path) -> tuple[str, int]:
    """Return a file's digest (`sha256:…`) and its size in bytes; blocks, so call it in a thread. Raises OSError."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            size += len(block)
    return f"sha256:{hasher.hexdigest()}", size
