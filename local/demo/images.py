"""The project's images: built here, or pulled by the cluster from a registry."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

NAMES = ("operator", "neuron", "engine-cpu", "trainer-cpu")
"""What the demo runs; those for GPUs are not among it."""

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


def build_commands() -> list[list[str]]:
    """Return the commands that build the images and the base model; they take no time when all is there."""
    builder = [sys.executable, "-m", "imagebuilder"]
    # The model is made in one of the images: only then may their layers go.
    return [[*builder, "build", "--keep-layers", *NAMES], [*builder, "model"]]


def parse_built(text: str) -> Images:
    """Return the images that the build command says it built, in the order in which they must be loaded.

    Raises:
        DemoError: it said something else.
    """
    try:
        said = json.loads(text)
        pairs = zip(said["images"].items(), said["archives"], strict=True)
        images = {name: Image(reference=reference, archive=Path(archive)) for (name, reference), archive in pairs}
        return images | {name: images[name] for name in NAMES}  # a missing one is a KeyError
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DemoError(
            "The image builder did not say what it built",
            evidence=text.strip()[-2000:],
            remedy="run `.venv/bin/python -m imagebuilder build` and see",
        ) from error


def are_built() -> bool:
    """Tell whether there is nothing to build."""
    done = subprocess.run(
        [sys.executable, "-m", "imagebuilder", "refs"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_REFS_TIMEOUT_S,
    )
    try:
        refs = json.loads(done.stdout)
        return all(Path(refs[name]["archive"]).is_file() for name in NAMES)
    except (ValueError, LookupError, TypeError):
        return False


def pulled(registry: str, tag: str) -> Images:
    """Return the images as a registry holds them, for clusters that were not made here."""
    prefix = registry.rstrip("/")
    return {name: Image(reference=f"{prefix}/{name}:{tag}") for name in NAMES}
