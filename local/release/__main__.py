"""`python -m release VERSION`: make a release into a folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from imagebuilder import builder
from imagebuilder.catalog import Catalog, Image
from imagebuilder.errors import BuildError
from imagebuilder.paths import REPOSITORY, Paths
from localcluster import Cluster
from release import bom, charts, plugin, seals
from release.errors import ReleaseError

_APP = typer.Typer(add_completion=False)
_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")


def check_version(version: str, repository: Path) -> None:
    """Raise ReleaseError unless both projects of the checkout are of this version, and it is one."""
    if not _SEMVER.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version such as 1.2.3 or 1.2.3-rc.1")
    for path in ("pyproject.toml", "cli/pyproject.toml"):
        found = tomllib.loads((repository / path).read_text())["project"]["version"]
        if found != version:
            raise ReleaseError(
                f"{path} says version {found}, and the release shall be {version}: change it there first"
            )


def clear(out: Path) -> None:
    """Make the folder, or empty it where a release made it; raises ReleaseError where something else is in it."""
    if out.exists() and any(out.iterdir()) and not (out / "images.json").exists():
        raise ReleaseError(f"{out} holds what no release made: name another folder, or remove it yourself")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _say(words: str) -> None:
    print(f"  {words}", flush=True)


def _archives(image: Image, catalog: Catalog, folder: Path) -> list[Path]:
    """Return the archives that together hold the image, or none where it wasn't built here."""
    members = [catalog.image(image.parent), image] if image.parent else [image]
    found = [builder.archive_path(each, catalog=catalog, folder=folder) for each in members]
    return found if all(path.exists() for path in found) else []


def _locks(image: Image, repository: Path) -> str:
    pins = [name for name in image.installs if name.startswith("requirements/") and not name.endswith("bootstrap.txt")]
    return "\n".join((repository / name).read_text() for name in pins)


def _bills(out: Path, version: str, catalog: Catalog, folder: Path) -> None:
    """Write each image's bill of materials: of its archive, or of its lock where it wasn't built here."""
    out.mkdir(parents=True, exist_ok=True)
    for image in catalog.images:
        if archives := _archives(image, catalog, folder):
            packages, source = list(bom.contained(archives)), "the image's archive"
        elif pins := _locks(image, catalog.repository):
            packages, source = list(bom.pinned(pins)), "the locked requirements; the image was not built here"
        else:
            _say(f"no bill of {image.name}: it was not built here, and locks nothing of its own")
            continue
        (out / f"{image.name}.cdx.json").write_text(bom.document(image.name, version, packages, source=source))
        _say(f"sbom/{image.name}.cdx.json: {len(packages)} packages, of {source}")


@_APP.command()
def release(  # noqa: PLR0917 - a command's options
    version: Annotated[str, typer.Argument(help="Such as 1.2.3; pyproject.toml must say the same.")],
    out: Annotated[Path, typer.Option(help="The folder; what is in it is replaced.")] = REPOSITORY / "dist",
    images: Annotated[bool, typer.Option(help="Build the images that need no registry.")] = True,
    registry: Annotated[str, typer.Option(help="Where images and charts will be.")] = "registry.example.org/team",
    downloads: Annotated[str, typer.Option(help="Where the files will be.")] = "https://downloads.example.org",
    homepage: Annotated[str, typer.Option(help="Of the project, for krew.")] = "https://example.org/bettertherapy",
) -> None:
    """Make a release into a folder, and print how it is published. Nothing leaves this machine."""
    catalog, cache = Catalog(), Paths.from_environment()
    check_version(version, REPOSITORY)
    clear(out)
    references: dict[str, dict[str, str]] = {}
    if images:
        built = builder.build([], catalog=catalog, paths=cache, report=lambda title, _: _say(title))
        references = {name: {"built": reference} for name, reference in built.references.items()}
    for image in catalog.images:
        references.setdefault(image.name, {})["release"] = f"{registry}/{image.name}:{version}"
    (out / "images.json").write_text(json.dumps(references, indent=1) + "\n")
    packed = charts.package(
        REPOSITORY / "charts", out / "charts", version=version, helm=str(Cluster("test").bin("helm"))
    )
    _say(f"charts/: {', '.join(path.name for path in packed)}")
    uv = str(Path(sys.executable).with_name("uv"))
    pins = plugin.lock(REPOSITORY, uv=uv)
    content = plugin.archive(
        plugin.build(REPOSITORY, pins, python=sys.executable, uv=uv), (REPOSITORY / "LICENSE").read_bytes()
    )
    name = f"kubectl-twin-{version}.tar.gz"
    (out / name).write_bytes(content)
    template = (REPOSITORY / "cli" / "krew.yaml.in").read_text()
    uri = f"{downloads}/v{version}/{name}"
    (out / "twin.yaml").write_text(
        plugin.manifest(template, version=version, homepage=homepage, uri=uri, content=content)
    )
    _say(f"{name}, twin.yaml (krew): {len(content) / 1e6:.0f} MB")
    _bills(out / "sbom", version, catalog, cache.archives)
    (out / "sbom" / "kubectl-twin.cdx.json").write_text(
        bom.document("kubectl-twin", version, bom.pinned(pins), source="the locked requirements")
    )
    seals.sums(out)
    _say(f"{seals.SUMS}: {len((out / seals.SUMS).read_text().splitlines())} files")
    _say(seals.sign(out))
    _say("To publish it: docs/releasing.md")


def main() -> int:
    """Run the command line; what is not as it should be is said in words, and exits with 1."""
    try:
        _APP()
    except (ReleaseError, BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
