"""The project's images: built here, or pulled by the cluster from a registry."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

NAMES = ("operator", "neuron", "engine-cpu", "trainer")
"""What the demo runs; engine-gpu is not among it."""

_REFS_TIMEOUT_S = 120


@dataclass(frozen=True)
class Image:
    """One image."""

    reference: str
    """repository:tag, as pods name it."""
    archive: Path | None = None
    """A `docker save` archive to load into the cluster; None when the cluster pulls it."""

    @property
    def values(self) -> dict[str, str]:
        """The image as the charts' values name it."""
        repository, _, tag = self.reference.rpartition(":")
        return {"repository": repository, "tag": tag}


Images = dict[str, Image]
"""Keyed by the names of `NAMES`."""


def build_command() -> list[str]:
    """Return the command that builds what is not built yet; it takes no time when everything is."""
    return [sys.executable, "-m", "imagebuilder", "build", *NAMES]


def built() -> Images:
    """Return the images that were built here.

    Raises:
        DemoError: the builder doesn't know them.
    """
    done = subprocess.run(
        [sys.executable, "-m", "imagebuilder", "refs"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_REFS_TIMEOUT_S,
    )
    try:
        refs = json.loads(done.stdout)
        return {name: Image(reference=refs[name]["reference"], archive=Path(refs[name]["archive"])) for name in NAMES}
    except (ValueError, LookupError, TypeError) as error:
        raise DemoError(
            "The image builder did not say what it built",
            evidence=(done.stderr or done.stdout).strip()[-2000:],
            remedy="run `.venv/bin/python -m imagebuilder refs` and see",
        ) from error


def pulled(registry: str, tag: str) -> Images:
    """Return the images as a registry holds them, for clusters that were not made here."""
    prefix = registry.rstrip("/")
    return {name: Image(reference=f"{prefix}/{name}:{tag}") for name in NAMES}
