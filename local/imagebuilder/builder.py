"""Building: what is there already is left alone, what is missing is built and written as an archive."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagebuilder import engines
from imagebuilder.archive import Record, record_path
from imagebuilder.catalog import Catalog, Image
from imagebuilder.engines import Engine
from imagebuilder.errors import BuildError
from imagebuilder.paths import Paths

Report = Callable[[str, float], None]
"""Told of each step when it ends: what was done, and for how many seconds."""

_GIB = 1024**3
# Bytes that a build takes at its highest: layers, their blobs and the archive.
_NEEDED_BYTES = {"engine-cpu": 13 * _GIB, "trainer": 2 * _GIB}
_NEEDED_ELSE = _GIB
_LOCK_WAIT_S = 40 * 60
# With less than this free, layers that only speed up the next build are dropped.
_ROOMY_BYTES = 30 * _GIB


@dataclass(frozen=True)
class Built:
    """The images by short name, and their archives in the order in which they must be loaded."""

    references: dict[str, str]
    archives: tuple[Path, ...]


def build(
    names: Sequence[str] = (),
    *,
    out: Path | None = None,
    catalog: Catalog | None = None,
    paths: Paths | None = None,
    report: Report = lambda _title, _seconds: None,
    engine: Engine | None = None,
) -> Built:
    """Make the archives of the named images (of all that need no registry, if none is named).

    Args:
        names: short names; what an image is built on comes along.
        out: the folder of the archives; the cache's, if not given.
        catalog: the checkout to build; this one, if not given.
        paths: the cache; the environment's, if not given.
        report: told of each step when it ends.
        engine: what builds; found, if not given.

    Raises:
        BuildError: something failed; run it again once the cause is gone, finished images are kept.
    """
    catalog, paths = catalog or Catalog(), paths or Paths.from_environment()
    folder = out or paths.archives
    images = catalog.wanted(names)
    targets = {image.name: folder / f"{image.name}-{catalog.tag(image)}.tar" for image in images}
    if not _missing(images, targets):
        return _built(catalog, images, targets)
    folder.mkdir(parents=True, exist_ok=True)
    paths.images.mkdir(parents=True, exist_ok=True)
    with only_one(paths, report):
        missing = _missing(images, targets)
        if missing:
            _check_disk(missing, folder)
            builder = engine or engines.choose(catalog, paths)
            with _timed(report, f"prepare {builder.name}"):
                builder.prepare()
            for image in missing:
                _build_one(image, catalog=catalog, builder=builder, targets=targets, paths=paths, report=report)
            _clear(missing, targets)
            if shutil.disk_usage(paths.images).free < _ROOMY_BYTES:
                with _timed(report, "drop the layers that only speed up the next build (little disk is left)"):
                    builder.trim()
    return _built(catalog, images, targets)


def _build_one(
    image: Image,
    *,
    catalog: Catalog,
    builder: Engine,
    targets: dict[str, Path],
    paths: Paths,
    report: Report,
) -> None:
    parent = catalog.image(image.parent) if image.parent else None
    reference = catalog.reference(parent) if parent else None
    record = Record.read(record_path(targets[parent.name])) if parent else None
    if parent and reference and not builder.has(reference):
        with _timed(report, f"{image.name}: take {parent.name} back from its archive"):
            builder.load(targets[parent.name], reference)
    with (
        _timed(report, f"{image.name}: build"),
        tempfile.TemporaryDirectory(dir=paths.images, prefix=".context-") as folder,
    ):
        context = Path(folder)
        context.chmod(0o755)
        catalog.stage(image, context)
        builder.build(image, context=context, parent=reference)
    with _timed(report, f"{image.name}: write {targets[image.name].name}"):
        builder.export(image, target=targets[image.name], parent=record)


def _missing(images: Sequence[Image], targets: dict[str, Path]) -> list[Image]:
    """Return the images without a whole archive; one that leaves layers out needs them in its parent's."""
    missing: list[Image] = []
    for image in images:
        record = Record.read(record_path(targets[image.name])) if targets[image.name].is_file() else None
        fits = record is not None
        if record and record.left_out:
            parent = Record.read(record_path(targets[image.parent])) if image.parent else None
            held = {digest for digest, _ in parent.layers} if parent else set()
            fits = held.issuperset(record.left_out)
        if not fits or (image.parent and any(other.name == image.parent for other in missing)):
            missing.append(image)
    return missing


def _clear(images: Sequence[Image], targets: dict[str, Path]) -> None:
    """Delete the archives of earlier versions: each is as large as the new one."""
    for image in images:
        current = targets[image.name]
        for old in current.parent.glob(f"{image.name}-*.tar"):
            tag = old.stem.removeprefix(f"{image.name}-")
            if old != current and tag[:1].isdigit():
                record_path(old).unlink(missing_ok=True)
                old.unlink()


def _check_disk(images: Sequence[Image], folder: Path) -> None:
    needed = sum(_NEEDED_BYTES.get(image.name, _NEEDED_ELSE) for image in images)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BuildError(
            f"{folder} has {free / _GIB:.1f} GiB free; building {', '.join(image.name for image in images)} "
            f"takes {needed / _GIB:.0f}.",
            remedy="Free some disk, or name a roomier folder in BETTERTHERAPY_CACHE.",
        )


def _built(catalog: Catalog, images: Sequence[Image], targets: dict[str, Path]) -> Built:
    return Built(
        references={image.name: catalog.reference(image) for image in images},
        archives=tuple(targets[image.name] for image in images),
    )


@contextmanager
def only_one(paths: Paths, report: Report) -> Iterator[None]:
    """Hold the cache's lock: clones share the cache, and two builds at once would build the same thing twice.

    Raises:
        BuildError: another build held it for too long.
    """
    paths.images.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (paths.images / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - begun > _LOCK_WAIT_S:
                    raise BuildError(
                        "Another build of images has been running for too long.",
                        remedy=f"End it; `fuser -v {paths.images / 'lock'}` names it.",
                    ) from None
                time.sleep(0.5)
        waited = time.monotonic() - begun
        if waited > 1:
            report("wait for another build of images", waited)
        yield


@contextmanager
def _timed(report: Report, title: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    report(title, time.monotonic() - begun)
