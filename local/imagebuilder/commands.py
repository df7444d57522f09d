"""Running programs, with their output kept for when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagebuilder.errors import BuildError

_TAIL = 25


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    remedy: str,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run `command` and return its standard output; with `log`, its whole output goes to the end of that file instead.

    Raises:
        BuildError: it is not installed, failed (with the end of what it said) or took longer than `timeout_s`.
    """
    environment = {**os.environ, **(env or {})}
    try:
        if log is None:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
            said = done.stdout + done.stderr
        else:
            with log.open("a", encoding="utf-8") as file:
                begin = file.tell()
                done = subprocess.run(
                    command, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
                    check=False,
                )  # fmt: skip
            with log.open("rb") as written:
                written.seek(begin)
                said = written.read().decode(errors="replace")
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed.", remedy=remedy) from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"`{' '.join(command[:4])} …` took longer than {timeout_s:.0f} s.", remedy=remedy) from error
    if done.returncode:
        end = "\n".join(said.splitlines()[-_TAIL:])
        where = f" (all of it: {log})" if log else ""
        raise BuildError(f"`{' '.join(command[:4])} …` failed{where}:\n{end}", remedy=remedy)
    return done.stdout or ""


def succeeds(command: Sequence[str], *, timeout_s: float) -> bool:
    """Tell whether `command` is installed and exits with 0 in time."""
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
