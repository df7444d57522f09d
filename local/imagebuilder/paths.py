"""Where the builder reads and keeps things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Paths:
    """The builder's folders, all of them under one cache that clones of the repository share."""

    cache: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """Read BETTERTHERAPY_CACHE; without it the cache is `~/.cache/bettertherapy`."""
        named = os.environ.get("BETTERTHERAPY_CACHE")
        return cls(cache=(Path(named) if named else Path.home() / ".cache" / "bettertherapy").resolve())

    @property
    def images(self) -> Path:
        """Everything that has to do with images."""
        return self.cache / "images"

    @property
    def archives(self) -> Path:
        """One `docker save` archive per image and tag."""
        return self.images / "archives"

    @property
    def storage(self) -> Path:
        """Buildah's layers."""
        return self.images / "storage"

    @property
    def scratch(self) -> Path:
        """Buildah's temporary files and its cache mounts (the installer and its downloads)."""
        return self.images / "tmp"

    @property
    def models(self) -> Path:
        """Base models as folders."""
        return self.cache / "models"
