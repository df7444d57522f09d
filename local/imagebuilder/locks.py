"""Locking what the images install: `requirements/<image>.in` into `<image>.txt`, every file with its hashes."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from imagebuilder.commands import run


@dataclass(frozen=True)
class Lock:
    """One lock. `overridden`: torch.override holds. `upon`: it holds just what comes on top of that lock.

    `python` is that of the image. Without `hashes` it is there to be locked upon, and nothing is installed from it.
    """

    name: str
    overridden: bool = False
    upon: str | None = None
    alone: bool = False
    python: str = "3.11"
    hashes: bool = True


LOCKS = (
    Lock("operator"),
    Lock("neuron"),
    Lock("chain", upon="neuron"),
    Lock("ledger", upon="neuron"),
    Lock("pages", upon="neuron"),
    Lock("rounds", upon="neuron"),
    Lock("engine-cpu", overridden=True),
    Lock("engine-gpu", python="3.12", hashes=False),
    Lock("trainer-cpu", overridden=True, upon="engine-cpu"),
    Lock("trainer-gpu", upon="engine-gpu", python="3.12"),
    Lock("model", alone=True),
    Lock("packaged-models", alone=True, python="3.12"),
)


def command(lock: Lock, requirements: Path) -> list[str]:
    """Return uv's command for one lock; it names no index, so the result fits every mirror."""
    return [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet",
        *(("--generate-hashes",) if lock.hashes else ()),
        "--python-version", lock.python, "--python-platform", "x86_64-manylinux_2_28",
        "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
        *(("--override", str(requirements / "torch.override")) if lock.overridden else ()),
        *(_upon(requirements / f"{lock.upon}.txt") if lock.upon else ()),
        *(("--no-deps",) if lock.alone else ()),
        str(requirements / f"{lock.name}.in"), "--output-file", str(requirements / f"{lock.name}.txt"),
    ]  # fmt: skip


def _upon(below: Path) -> list[str]:
    names = re.findall(r"^([A-Za-z0-9._-]+)==", below.read_text(encoding="utf-8"), re.MULTILINE)
    return ["--constraint", str(below), *(part for name in names for part in ("--no-emit-package", name))]


def lock_all(repository: Path, *, upgrade: bool = False) -> None:
    """Write all locks; versions that still fit stay unless `upgrade`.

    Raises:
        BuildError: the requirements contradict each other, or the index can't be reached.
    """
    for lock in LOCKS:
        run(
            [*command(lock, repository / "requirements"), *(("--upgrade",) if upgrade else ())],
            timeout_s=300,
            remedy=f"Look at requirements/{lock.name}.in.",
        )
