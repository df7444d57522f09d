"""The kubectl plugin as one file that runs with any Python 3.11 to 3.13, and krew's manifest for it.

The file is a zip with a head, as Python's zipapp makes it. What is the same for all platforms and Pythons lies in
`any/`, what is compiled in a folder for each; at its first start both are unpacked into the user's cache.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from release.commands import run

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_START: Final = '''\
"""Unpacks the plugin for this Python and platform once, and runs it."""
import os, platform, shutil, sys, tempfile, zipfile

DIGEST = "@DIGEST@"
tag = "cp%d%d-%s-%s" % (*sys.version_info[:2], sys.platform, {"aarch64": "arm64", "x86_64": "amd64"}.get(
    platform.machine(), platform.machine()))
with zipfile.ZipFile(sys.argv[0]) as own:
    names = own.namelist()
    if not any(name.startswith(tag + "/") for name in names):
        there = sorted({name.split("/")[0] for name in names if name.startswith("cp")})
        sys.exit("kubectl twin has nothing for %s; it runs on: %s" % (tag, ", ".join(there)))
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "kubectl-twin", DIGEST + "-" + tag)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        partial = tempfile.mkdtemp(dir=os.path.dirname(folder))
        for name in names:
            head, _, rest = name.partition("/")
            if head in ("any", tag) and rest and not rest.endswith("/"):
                target = os.path.join(partial, rest)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with own.open(name) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
        try:
            os.rename(partial, folder)
        except OSError:  # another one was quicker
            shutil.rmtree(partial, ignore_errors=True)
sys.path.insert(0, folder)
from kubectl_twin.main import main
sys.exit(main())
'''


@dataclass(frozen=True)
class Target:
    """A Python on a platform."""

    python: str
    platform: str
    """As uv names it."""
    tag: str
    """As the plugin finds it: `cp311-linux-amd64`."""


PLATFORMS: Final = {
    "linux-amd64": "x86_64-manylinux_2_28", "linux-arm64": "aarch64-manylinux_2_28",
    "darwin-amd64": "x86_64-apple-darwin", "darwin-arm64": "aarch64-apple-darwin",
}  # fmt: skip
TARGETS: Final = tuple(
    Target(python=python, platform=platform, tag=f"cp{python.replace('.', '')}-{name}")
    for python in ("3.11", "3.12", "3.13")
    for name, platform in PLATFORMS.items()
)


def lock(repository: Path, *, uv: str) -> str:
    """Return the plugin's dependencies with hashes, in the versions of requirements/dev.txt."""
    project = tomllib.loads((repository / "cli" / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "plugin.in"
        asked.write_text("\n".join(project["dependencies"]))
        return run(
            [
                uv, "pip", "compile", str(asked), "-q", "--no-header", "--no-annotate", "--generate-hashes",
                "--universal", "--python-version", "3.11", "-c", str(repository / "requirements" / "dev.txt"),
            ]
        )  # fmt: skip


def build(repository: Path, pins: str, *, python: str, uv: str, targets: Sequence[Target] = TARGETS) -> bytes:
    """Return the plugin's one file: `python` has hatchling, `pins` are what `lock` returned."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        run([python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=repository / "cli")
        [wheel] = stage.glob("*.whl")
        (stage / "lock.txt").write_text(pins)
        found: dict[str, dict[str, bytes]] = {}
        for target in targets:
            place = stage / target.tag
            told = [
                "--python-version",
                target.python,
                "--python-platform",
                target.platform,
                "--target",
                str(place),
                "-q",
            ]
            install = [uv, "pip", "install", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy", *told]
            run([*install, "--require-hashes", "-r", str(stage / "lock.txt")])
            run([*install, str(wheel)])
            found[target.tag] = {
                str(path.relative_to(place)): path.read_bytes()
                for path in sorted(place.rglob("*"))
                if path.is_file() and path.relative_to(place).parts[0] not in ("bin", ".lock")
                and "__pycache__" not in path.parts
            }  # fmt: skip
    return _zipped(found)


def _zipped(found: dict[str, dict[str, bytes]]) -> bytes:
    first = next(iter(found.values()))
    same = {path for path, data in first.items() if all(files.get(path) == data for files in found.values())}
    entries = {f"any/{path}": first[path] for path in same}
    for tag, files in found.items():
        entries[f"{tag}/.target"] = f"{tag}\n".encode()  # it is there, though nothing in it may be compiled
        entries |= {f"{tag}/{path}": data for path, data in files.items() if path not in same}
    digest = hashlib.sha256()
    for path, data in sorted(entries.items()):
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    entries["__main__.py"] = _START.replace("@DIGEST@", digest.hexdigest()[:16]).encode()
    file = io.BytesIO(b"")
    file.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(entries.items()):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def archive(plugin: bytes, licence: bytes) -> bytes:
    """Return the archive that krew downloads: the plugin and the licence, the same bytes each time."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data, mode in (("kubectl-twin", plugin, 0o755), ("LICENSE", licence, 0o644)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(file.getvalue(), mtime=0)


def manifest(template: str, *, version: str, homepage: str, uri: str, content: bytes) -> str:
    """Return krew's manifest for the archive that will lie at `uri`."""
    values = {
        "VERSION": version, "HOMEPAGE": homepage, "URI": uri, "SHA256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    # Its head speaks of the places that are filled in.
    text = "".join(line for line in template.splitlines(keepends=True) if not line.startswith("#"))
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
