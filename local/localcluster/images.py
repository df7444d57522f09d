"""Image archives: reading their names, importing them, and writing the one image that every pod needs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.errors import ImageError

_CTR_TIMEOUT_S = 60
_IMPORT_TIMEOUT_S = 30 * 60
_BLOBS = "io.containerd.content.v1.content/blobs"
_THIN_FROM = 4 * 1024 * 1024
_COPY_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Layer:
    """One layer within an archive."""

    member: str
    """Its file in the archive."""
    chain_id: str
    """The digest of its uncompressed content and that of all layers below: the name of its snapshot."""


@dataclass(frozen=True)
class Archive:
    """A ``docker save`` archive: its images' full names, each with the digest of its configuration."""

    path: Path
    images: tuple[tuple[str, str], ...]
    layers: tuple[Layer, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The images' full names."""
        return tuple(name for name, _ in self.images)


def full_name(name: str) -> str:
    """The name under which containerd knows an image, such as ``docker.io/library/x:1`` for ``x:1``."""
    registry, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in registry or ":" in registry or registry == "localhost"):
        name = f"docker.io/{registry}/{rest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def release_name(name: str) -> str | None:
    """The name that charts give an image of ours, without what tells its builds apart; None where there is nothing.

    ``docker.io/bettertherapy/neuron:0.1.0`` for ``docker.io/bettertherapy/neuron:0.1.0-4a521000``.
    """
    match = re.fullmatch(r"(.+:\d+(?:\.\d+)*)-[0-9a-f]{8}", name)
    return match[1] if match else None


def read_archive(path: Path) -> Archive:
    """The names and configuration digests of the images in ``path``.

    Raises:
        ImageError: it is no ``docker save`` archive, or its images have no names.
    """
    remedy = "write it with `docker save -o FILE NAME:TAG` or `buildah push NAME docker-archive:FILE:NAME:TAG`"
    try:
        with tarfile.open(path) as tar:
            entry = tar.extractfile("manifest.json")
            listed: list[dict[str, Any]] = json.load(entry) if entry else []
            images: list[tuple[str, str]] = []
            layers: list[Layer] = []
            for image in listed:
                content = _read(tar, image["Config"])
                digest = hashlib.sha256(content).hexdigest()
                images += [(full_name(name), digest) for name in image.get("RepoTags") or []]
                layers += chain(image["Layers"], json.loads(content)["rootfs"]["diff_ids"])
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ImageError(f"{path} can't be read as an image archive: {error}", remedy=remedy) from error
    if not images:
        raise ImageError(f"no image in {path} has a name", remedy=remedy)
    return Archive(path=path, images=tuple(images), layers=tuple(layers))


def _read(tar: tarfile.TarFile, member: str) -> bytes:
    content = tar.extractfile(member)
    if content is None:
        raise KeyError(member)
    return content.read()


def chain(members: Sequence[str], diff_ids: Sequence[str]) -> list[Layer]:
    """The layers with their chain IDs (OCI image specification, "Layer ChainID")."""
    layers: list[Layer] = []
    for member, diff_id in zip(members, diff_ids, strict=True):
        below = layers[-1].chain_id if layers else None
        chain_id = f"sha256:{hashlib.sha256(f'{below} {diff_id}'.encode()).hexdigest()}" if below else diff_id
        layers.append(Layer(member=member, chain_id=chain_id))
    return layers


def write_pause_archive(binary: Path, target: Path, *, name: str) -> None:
    """Write an image of one static program, the one that holds a pod's namespaces."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        content = binary.read_bytes()
        entry.size, entry.mode = len(content), 0o755
        tar.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, mode="w") as tar:
        for member, data in (("layer.tar", layer.getvalue()), (config_name, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


@dataclass(frozen=True)
class ImageStore:
    """The images of one cluster's containerd."""

    socket: Path
    root: Path
    """containerd's folder."""

    def _ctr(self, *arguments: str, timeout_s: float = _CTR_TIMEOUT_S) -> str:
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CONTAINERD_")}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise ImageError(
                f"`{' '.join(command)}` took longer than {timeout_s:.0f} s", remedy="look at containerd.log"
            ) from None
        if done.returncode != 0:
            raise ImageError(
                f"`{' '.join(command)}` failed: {done.stderr.strip()[-800:]}",
                remedy="check that the cluster is up and that the disk is not full",
            )
        return done.stdout

    def _blob(self, digest: str) -> Path:
        kind, _, value = digest.partition(":")
        return self.root / _BLOBS / kind / value

    def _manifest(self, digest: str) -> dict[str, Any]:
        """The manifest at ``digest``; where that is an index, its first manifest."""
        manifest: dict[str, Any] = json.loads(self._blob(digest).read_text(encoding="utf-8"))
        if "manifests" in manifest:
            return self._manifest(manifest["manifests"][0]["digest"])
        return manifest

    def images(self) -> dict[str, str]:
        """The configuration digest of each image, by full name."""
        found: dict[str, str] = {}
        for line in self._ctr("images", "list").splitlines()[1:]:
            name, _, digest = line.split()[:3]
            with suppress(OSError, ValueError, KeyError):
                found[name] = self._manifest(digest)["config"]["digest"].removeprefix("sha256:")
        return found

    def load(self, archive: Archive) -> bool:
        """Import ``archive`` unless all its images are there already; True if it was imported.

        Each is known by its release's name, too, so that charts find it without being told of builds.
        """
        present = self.images()
        if all(present.get(name) == config for name, config in archive.images):
            self._name_releases(archive, present)
            return False
        self._restore(archive)
        self._ctr("images", "import", str(archive.path), timeout_s=_IMPORT_TIMEOUT_S)
        present = self.images()
        missing = [name for name, config in archive.images if present.get(name) != config]
        if missing:
            raise ImageError(
                f"{archive.path} was imported, but {', '.join(missing)} is not among the images",
                remedy="look at containerd.log",
            )
        self.thin(archive.names)
        self._name_releases(archive, present)
        return True

    def _name_releases(self, archive: Archive, present: Mapping[str, str]) -> None:
        for name, config in archive.images:
            release = release_name(name)
            if release is not None and present.get(release) != config:
                self._ctr("images", "tag", "--force", name, release)

    def thin(self, names: Sequence[str]) -> None:
        """Give back the disk that unpacked layers take a second time.

        containerd wants a layer's blob to exist at its size, but reads it only to unpack it. So the blob becomes a hole
        of the same size.
        """
        digests = {line.split()[0]: line.split()[2] for line in self._ctr("images", "list").splitlines()[1:]}
        for name in names:
            for layer in self._manifest(digests[name])["layers"]:
                blob = self._blob(layer["digest"])
                if layer["size"] >= _THIN_FROM and not _is_hole(blob):
                    os.truncate(blob, 0)
                    os.truncate(blob, layer["size"])

    def _restore(self, archive: Archive) -> None:
        """Fill the holes that the import will read: layers of ``archive`` that lie on other layers than before."""
        folder = self.root / _BLOBS / "sha256"
        holes = {path.name: path.stat().st_size for path in folder.glob("*") if _is_hole(path)}
        if not holes:
            return
        snapshots = {line.split()[0] for line in self._ctr("snapshots", "list").splitlines()[1:]}
        with tarfile.open(archive.path) as tar:
            for layer in archive.layers:
                if layer.chain_id in snapshots:
                    continue
                try:
                    entry = tar.getmember(layer.member)
                except KeyError as error:
                    raise ImageError(
                        f"{archive.path} leaves out the layer {layer.member}, and the cluster does not have it",
                        remedy="load the image that it is built on first: its archive has the layer",
                    ) from error
                if entry.size not in holes.values():
                    continue
                digest = _digest(tar, entry)
                if digest not in holes:
                    continue
                content = tar.extractfile(entry)
                if content is not None:
                    partial = folder / f".{digest}"
                    with partial.open("wb") as file:
                        shutil.copyfileobj(content, file, _COPY_CHUNK)
                    partial.rename(folder / digest)


def _digest(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> str | None:
    content = tar.extractfile(entry)
    if content is None:
        return None
    digest = hashlib.sha256()
    while chunk := content.read(_COPY_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _is_hole(blob: Path) -> bool:
    try:
        stat = blob.stat()
    except FileNotFoundError:
        return False
    return stat.st_size >= _THIN_FROM and stat.st_blocks * 512 < stat.st_size // 2
