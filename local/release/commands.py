"""Programs that a release drives."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from release.errors import ReleaseError


def run(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 900
) -> str:
    """Return what a program prints; raises ReleaseError with its words where it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(command[:4])} … failed:\n{done.stdout}{done.stderr}")
    return done.stdout
