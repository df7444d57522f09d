"""Bills of materials in CycloneDX: of what a lock pins, and of what an image's archive really holds."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import IO

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from release.errors import ReleaseError

_PIN = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9._]*)(?:\[[^]]*\])?==([^\s;\\]+)")
_METADATA = re.compile(r"(?:^|/)([^/]+\.dist-info)/METADATA$")
_WHITEOUT = re.compile(r"(?:^|/)\.wh\.([^/]+\.dist-info)$")
_DPKG = "var/lib/dpkg/status"


@dataclass(frozen=True, order=True, kw_only=True)
class Package:
    """One thing that is in a release."""

    kind: str
    """The type of its package URL: `pypi` or `deb`."""
    name: str
    version: str
    licence: str = ""
    """An SPDX expression, or words; empty where it isn't told."""
    architecture: str = ""
    hashes: tuple[str, ...] = ()
    """`sha256:…` of each file that the lock permits."""


def pinned(lock: str) -> Iterator[Package]:
    """Yield what a lock with hashes pins; raises ReleaseError where a pin has no hash."""
    for block in re.split(
        r"\n(?=\S)", "\n".join(line for line in lock.splitlines() if not line.lstrip().startswith("#"))
    ):
        if found := _PIN.match(block.strip()):
            hashes = tuple(sorted(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)))
            if not hashes:
                raise ReleaseError(f"{found[1]}=={found[2]} has no hash in its lock: run `make lock`")
            yield Package(kind="pypi", name=_normal(found[1]), version=found[2], hashes=hashes)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def contained(archives: Iterable[Path]) -> set[Package]:
    """Return the Debian and Python packages in an image: its archive, after those of the images it is built on.

    Layers are read in the order in which they lie on each other, so that what a later one replaced or removed is gone.
    """
    debian: set[Package] = set()
    python: dict[str, Package] = {}
    for archive in archives:
        with tarfile.open(archive) as image:
            [described] = json.loads(_read(image, "manifest.json"))
            present = set(image.getnames())
            for layer in described["Layers"]:
                if layer not in present:  # in the archive of an image below
                    continue
                stream = image.extractfile(layer)
                assert stream is not None
                debian, python = _layer(stream, debian, python)
    if not python and not debian:
        raise ReleaseError("the image's archive holds no package: is it one of `docker save`?")
    return debian | set(python.values())


def _read(image: tarfile.TarFile, name: str) -> bytes:
    member = image.extractfile(name)
    if member is None:
        raise ReleaseError(f"{name} is missing in the image's archive")
    return member.read()


def _layer(
    stream: IO[bytes], debian: set[Package], python: dict[str, Package]
) -> tuple[set[Package], dict[str, Package]]:
    python = dict(python)
    with tarfile.open(fileobj=stream, mode="r|*") as layer:
        for member in layer:
            name = member.name.removeprefix("./")
            if gone := _WHITEOUT.search(name):
                python = {path: each for path, each in python.items() if gone[1] not in path.split("/")}
            elif member.isfile() and name == _DPKG and (file := layer.extractfile(member)):
                debian = set(_debian(file.read().decode(errors="replace")))
            elif member.isfile() and _METADATA.search(name) and (file := layer.extractfile(member)):
                python[name] = _python(file.read().decode(errors="replace"))
    return debian, python


def _debian(status: str) -> Iterator[Package]:
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Package"] and "installed" in (fields["Status"] or "").split():
            yield Package(
                kind="deb", name=fields["Package"], version=fields["Version"] or "",
                architecture=fields["Architecture"] or "",
            )  # fmt: skip


def _python(metadata: str) -> Package:
    fields = HeaderParser().parsestr(metadata)
    licence = fields["License-Expression"] or fields["License"] or ""
    return Package(
        kind="pypi", name=_normal(fields["Name"] or ""), version=fields["Version"] or "",
        licence=licence if len(licence) <= 100 and "\n" not in licence else "",
    )  # fmt: skip


def document(name: str, version: str, packages: Iterable[Package], *, source: str) -> str:
    """Return the bill of one image or archive as CycloneDX 1.6 in JSON; `source` says what it was read from."""
    licences = LicenseFactory()
    bom = Bom()
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER, name=name, version=version, bom_ref=f"{name}@{version}",
        properties=[Property(name="bettertherapy:source", value=source)],
    )  # fmt: skip
    for each in sorted(set(packages)):
        qualifiers = {"arch": each.architecture} if each.architecture else None
        url = PackageURL(each.kind, "debian" if each.kind == "deb" else None, each.name, each.version, qualifiers)
        component = Component(
            type=ComponentType.LIBRARY, name=each.name, version=each.version, purl=url, bom_ref=url.to_string(),
            licenses=[licences.make_from_string(each.licence)] if each.licence else (),
            # One package has a file for each platform, and a component the hashes of one file alone.
            hashes=[HashType.from_composite_str(each.hashes[0])] if len(each.hashes) == 1 else (),
            properties=[
                Property(name="bettertherapy:file", value=digest) for digest in each.hashes if len(each.hashes) > 1
            ],
        )  # fmt: skip
        bom.components.add(component)
        bom.register_dependency(bom.metadata.component, [component])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"
