"""Locking what the images install: `requirements/<image>.in` into `<image>.txt`, every file with its hashes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from imagebuilder.commands import run


@dataclass(frozen=True)
class Lock:
    """One lock. `overridden`: torch.override holds. `within`: no version may differ from that lock's."""

    name: str
    overridden: bool = False
    within: str | None = None
    alone: bool = False


LOCKS = (
    Lock("operator"),
    Lock("neuron"),
    Lock("engine-cpu", overridden=True),
    Lock("trainer", overridden=True, within="engine-cpu"),
    Lock("model", alone=True),
)


def command(lock: Lock, requirements: Path) -> list[str]:
    """Return uv's command for one lock; it names no index, so the result fits every mirror."""
    return [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes",
        "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
        "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
        *(("--override", str(requirements / "torch.override")) if lock.overridden else ()),
        *(("--constraint", str(requirements / f"{lock.within}.txt")) if lock.within else ()),
        *(("--no-deps",) if lock.alone else ()),
        str(requirements / f"{lock.name}.in"), "--output-file", str(requirements / f"{lock.name}.txt"),
    ]  # fmt: skip


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
