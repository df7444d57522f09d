"""The charts as archives, which `helm push` brings to an OCI registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from release.commands import run

CHARTS = ("twin-operator", "twin-miner", "twin-validator")
"""Those for use; local-subnet is for demos and tests."""


def package(folder: Path, out: Path, *, version: str, helm: str, names: Sequence[str] = CHARTS) -> list[Path]:
    """Pack the charts of `folder` into `out` with this version, which is their images' tag too; return the archives."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        run(
            [
                helm,
                "package",
                str(folder / name),
                "--version",
                version,
                "--app-version",
                version,
                "--destination",
                str(out),
            ]
        )
    return [out / f"{name}-{version}.tgz" for name in names]
