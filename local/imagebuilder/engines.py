"""The two programs that build a Dockerfile: Docker, and buildah where no Docker runs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imagebuilder import archive, trust
from imagebuilder.archive import Record
from imagebuilder.catalog import Catalog, Image
from imagebuilder.commands import run, succeeds
from imagebuilder.errors import BuildError
from imagebuilder.paths import Paths

_MINUTE_S = 60.0
_LOOK = "The end of the log above says which step failed; run the same command again once its cause is gone."
_LOGIN = "Check the address {1}, and sign in to its registry first: `{0} login`."
_APT = ("-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")


class Engine(Protocol):
    """Builds images and writes their archives."""

    name: str

    def prepare(self) -> None:
        """Make sure that the engine can build; may install it."""

    def build(self, image: Image, *, reference: str, context: Path, parent: str | None) -> None:
        """Build the image from `context` on `parent` and call it `reference`."""

    def export(self, reference: str, *, target: Path, parent: Record | None) -> Record:
        """Write the image's archive to `target`, without the layers of `parent`."""

    def has(self, reference: str) -> bool:
        """Tell whether the engine still has the image's layers."""

    def load(self, target: Path, reference: str) -> None:
        """Take an image back from its archive."""

    def run(self, reference: str, command: Sequence[str], *, volumes: Sequence[tuple[Path, str]]) -> None:
        """Run a command in the image as root; `volumes` are pairs of a folder here and a path there."""

    def push(self, reference: str, target: str) -> None:
        """Send the image to a registry under the name `target`."""

    def tidy(self, references: Collection[str]) -> None:
        """Forget the earlier versions of the images named by `references`."""

    def trim(self) -> None:
        """Give back the disk that is needed only to build again quickly."""


@dataclass
class Docker:
    """A Docker engine with BuildKit."""

    catalog: Catalog
    paths: Paths
    name: str = "Docker"

    @staticmethod
    def answers() -> bool:
        """Tell whether a Docker engine runs here."""
        return succeeds(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=15)

    def prepare(self) -> None:
        """Do nothing: it answers."""

    def build(self, image: Image, *, reference: str, context: Path, parent: str | None) -> None:
        """Build with `docker build`; the base comes from its registry."""
        run(
            [
                "docker", "build", "--file", str(context / image.dockerfile), "--tag", reference,
                *(("--build-arg", f"BASE={parent}") if parent else ()), *_installed(context, image), *_secret(),
                str(context),
            ],
            timeout_s=40 * _MINUTE_S,
            remedy=_LOOK,
            env={"DOCKER_BUILDKIT": "1"},
            log=self.paths.images / "build.log",
        )  # fmt: skip

    def export(self, reference: str, *, target: Path, parent: Record | None) -> Record:
        """Write a whole archive with `docker save`."""
        partial = target.with_name(f".{target.name}.partial")
        run(["docker", "save", "--output", str(partial), reference], timeout_s=15 * _MINUTE_S, remedy=_LOOK)
        config = run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", reference], timeout_s=_MINUTE_S, remedy=_LOOK
        )
        os.replace(partial, target)
        record = Record(reference=reference, config=config.strip(), layers=())
        record.write(archive.record_path(target))
        return record

    def has(self, reference: str) -> bool:
        """Ask Docker for the image."""
        return succeeds(["docker", "image", "inspect", reference], timeout_s=_MINUTE_S)

    def load(self, target: Path, reference: str) -> None:
        """Load with `docker load`."""
        run(["docker", "load", "--input", str(target)], timeout_s=15 * _MINUTE_S, remedy=_LOOK)

    def run(self, reference: str, command: Sequence[str], *, volumes: Sequence[tuple[Path, str]]) -> None:
        """Run with `docker run`."""
        mounts = [part for here, there in volumes for part in ("--volume", f"{here}:{there}")]
        run(
            ["docker", "run", "--rm", "--network=none", "--user=0:0", *mounts, reference, *command],
            timeout_s=15 * _MINUTE_S,
            remedy=_LOOK,
        )

    def push(self, reference: str, target: str) -> None:
        """Push with `docker push`, with the credentials of `docker login`."""
        run(["docker", "tag", reference, target], timeout_s=_MINUTE_S, remedy=_LOOK)
        run(["docker", "push", "--quiet", target], timeout_s=60 * _MINUTE_S, remedy=_LOGIN.format("docker", target))

    def tidy(self, references: Collection[str]) -> None:
        """Remove the tags of earlier versions; Docker's cache keeps its own bounds."""
        for reference in references:
            name = reference.rpartition(":")[0].removeprefix("docker.io/")
            listing = run(
                ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name],
                timeout_s=_MINUTE_S,
                remedy=_LOOK,
            )
            for old in set(listing.split()) - {reference.removeprefix("docker.io/")}:
                succeeds(["docker", "image", "rm", old], timeout_s=_MINUTE_S)

    def trim(self) -> None:
        """Leave Docker's own cache to its owner."""


@dataclass
class Buildah:
    """Debian's buildah in a mount namespace of its own, with its storage in the builder's cache."""

    catalog: Catalog
    paths: Paths
    name: str = "buildah"
    _driver: str = field(default="", init=False)

    def prepare(self) -> None:
        """Install what is missing and clear what an interrupted build left.

        Raises:
            BuildError: this is no Debian, or not root, or the packages can't be had.
        """
        missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
        if missing:
            self._install(missing)
        for folder in (self.paths.storage, self.paths.scratch, self.paths.images / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.paths.scratch.iterdir():
            if leftover.name != "buildah-cache":
                shutil.rmtree(leftover, ignore_errors=True)
        self._driver = next((d for d in ("overlay", "vfs") if succeeds(self._command(d, "images"), timeout_s=60)), "")
        if not self._driver:
            raise BuildError(
                "buildah can't use its storage here.",
                remedy=f"It needs root and mount namespaces; see `{' '.join(self._command('vfs', 'images'))}`.",
            )
        self._buildah("rm", "--all", timeout_s=5 * _MINUTE_S)

    @staticmethod
    def _install(packages: Sequence[str]) -> None:
        remedy = f"Install them yourself (apt-get install {' '.join(packages)}), or start Docker."
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise BuildError(f"This machine lacks {' and '.join(packages)}, and no Docker answers.", remedy=remedy)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", *_APT, *packages]
        if not succeeds(install, timeout_s=10 * _MINUTE_S):
            run(["apt-get", "update", *_APT], timeout_s=5 * _MINUTE_S, remedy=remedy, env=env)
            run(install, timeout_s=10 * _MINUTE_S, remedy=remedy, env=env)

    def build(self, image: Image, *, reference: str, context: Path, parent: str | None) -> None:
        """Build with `buildah bud`, on the base made here."""
        self._bud(reference, context=context, dockerfile=image.dockerfile, base=parent or self._base())

    def _base(self) -> str:
        """Return the base image, made by mmdebstrap if it isn't there."""
        reference = f"localhost/bettertherapy/base:{self.catalog.base_tag()}"
        if self.has(reference):
            return reference
        folder = self.catalog.repository / "images" / "base"
        lines = (folder / "packages.txt").read_text(encoding="utf-8").splitlines()
        packages = [line for line in lines if line and not line.startswith("#")]
        with tempfile.TemporaryDirectory(dir=self.paths.scratch) as scratch:
            context = Path(scratch)
            shutil.copy(folder / "Dockerfile", context / "Dockerfile")
            run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", "bookworm",
                 str(context / "rootfs.tar")],
                timeout_s=10 * _MINUTE_S,
                remedy="It needs Debian's package server; try `apt-get update` to see whether it can be reached.",
                env={"TMPDIR": str(self.paths.scratch)},
                log=self.paths.images / "build.log",
            )  # fmt: skip
            self._bud(reference, context=context, dockerfile="Dockerfile", base=None)
        return reference

    def _bud(self, reference: str, *more: str, context: Path, dockerfile: str, base: str | None) -> None:
        self._buildah(
            "bud", "--isolation", "chroot", "--layers", "--format", "oci", "--file", str(context / dockerfile),
            *(("--build-arg", f"BASE={base}") if base else ()), *_secret(), *more, "--tag", reference,
            str(context),
            timeout_s=40 * _MINUTE_S,
            log=self.paths.images / "build.log",
        )  # fmt: skip

    def export(self, reference: str, *, target: Path, parent: Record | None) -> Record:
        """Write the archive from a folder that is gone afterwards; layers of the parent's archive stay out."""
        known = parent.layers if parent else ()
        with tempfile.TemporaryDirectory(dir=self.paths.scratch) as scratch:
            pushed = Path(scratch)
            # To a folder, because a push to an OCI layout compresses whatever it is told, for minutes. A layer is read
            # once, on this machine, and uncompressed its digest stays that of its content.
            self._buildah(
                "push", "--disable-compression", "--format", "oci", reference, f"dir:{pushed}",
                timeout_s=15 * _MINUTE_S,
            )  # fmt: skip
            return archive.write_archive(pushed, target, reference=reference, leave_out={digest for digest, _ in known})

    def has(self, reference: str) -> bool:
        """Ask buildah's storage."""
        return succeeds(self._command(self._driver, "inspect", "--type", "image", reference), timeout_s=_MINUTE_S)

    def load(self, target: Path, reference: str) -> None:
        """Pull from the archive."""
        self._buildah("pull", f"docker-archive:{target}:{reference}", timeout_s=15 * _MINUTE_S)

    def run(self, reference: str, command: Sequence[str], *, volumes: Sequence[tuple[Path, str]]) -> None:
        """Run in a working container that is removed afterwards."""
        container = self._buildah("from", "--pull-never", reference, timeout_s=5 * _MINUTE_S).split()[-1]
        try:
            mounts = [part for here, there in volumes for part in ("--volume", f"{here}:{there}")]
            self._buildah(
                "run", "--isolation", "chroot", "--user", "0:0", *mounts, container, "--", *command,
                timeout_s=15 * _MINUTE_S,
                log=self.paths.images / "build.log",
            )  # fmt: skip
        finally:
            self._buildah("rm", container, timeout_s=5 * _MINUTE_S)

    def push(self, reference: str, target: str) -> None:
        """Push with `buildah push`, as whom `buildah login` said; a registry on this machine may lack TLS."""
        local = target.startswith(("localhost:", "127.0.0.1:"))
        run(
            self._command(
                self._driver, "push", *(("--tls-verify=false",) if local else ()), reference, f"docker://{target}"
            ),
            timeout_s=60 * _MINUTE_S,
            remedy=_LOGIN.format("buildah", target),
            env={"TMPDIR": str(self.paths.scratch)},
        )

    def tidy(self, references: Collection[str]) -> None:
        """Remove the images of earlier versions, and the layers that only they had."""
        listed = json.loads(self._buildah("images", "--json", timeout_s=_MINUTE_S) or "[]") or []
        stored = {name for image in listed for name in image.get("names") or []}
        for reference in references:
            name = reference.rpartition(":")[0]
            for old in sorted(stored - {reference}):
                if old.rpartition(":")[0] == name:
                    self._buildah("rmi", old, timeout_s=5 * _MINUTE_S)
        self._buildah("rmi", "--prune", timeout_s=5 * _MINUTE_S)

    def trim(self) -> None:
        """Drop all layers; the next build takes what it is built on from the archives."""
        self._buildah("rmi", "--all", "--force", timeout_s=5 * _MINUTE_S)
        shutil.rmtree(self.paths.scratch, ignore_errors=True)

    def _command(self, driver: str, *arguments: str) -> list[str]:
        # In a mount namespace of its own, so that nothing stays mounted here however the build ends.
        return [
            "unshare", "--mount", "--propagation", "private",
            "buildah", "--root", str(self.paths.storage), "--runroot", str(self.paths.images / "run"),
            "--storage-driver", driver, *arguments,
        ]  # fmt: skip

    def _buildah(self, *arguments: str, timeout_s: float, log: Path | None = None) -> str:
        return run(
            self._command(self._driver, *arguments),
            timeout_s=timeout_s,
            remedy=_LOOK,
            env={"TMPDIR": str(self.paths.scratch)},
            log=log,
        )


def choose(catalog: Catalog, paths: Paths) -> Engine:
    """Return Docker where it answers, else buildah.

    Raises:
        BuildError: there is neither, and buildah can't run on this machine.
    """
    if Docker.answers():
        return Docker(catalog, paths)
    if platform.system() != "Linux":
        raise BuildError("No Docker answers.", remedy="Start Docker; without it images are built on Linux only.")
    return Buildah(catalog, paths)


def _installed(context: Path, image: Image) -> list[str]:
    return ["--build-arg", f"INSTALLED={Catalog(context).installed(image)}"] if image.installs else []


def _secret() -> list[str]:
    bundle = trust.own_authority()
    return ["--secret", f"id=ca,src={bundle}"] if bundle else []
