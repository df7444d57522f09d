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
_NEEDED_BYTES = {"engine-cpu": 13 * _GIB, "trainer-cpu": 2 * _GIB}
_NEEDED_ELSE = _GIB
_LOCK_WAIT_S = 40 * 60
_STAGE_TRIES = 5
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
    keep_layers: bool = False,
) -> Built:
    """Make the archives of the named images (of all that need no registry, if none is named).

    Args:
        names: short names; what an image is built on comes along.
        out: the folder of the archives; the cache's, if not given.
        catalog: the checkout to build; this one, if not given.
        paths: the cache; the environment's, if not given.
        report: told of each step when it ends.
        engine: what builds; found, if not given.
        keep_layers: the images are used at once, so leave their layers where they are; then call `make_room`.

    Raises:
        BuildError: something failed; run it again once the cause is gone, finished images are kept.
    """
    catalog, paths = catalog or Catalog(), paths or Paths.from_environment()
    folder = out or paths.archives
    images = catalog.wanted(names)
    goals = {image.name: _goal(image, catalog=catalog, folder=folder) for image in images}
    if _missing(images, goals):
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(paths, report):
            # What another build has made while this one waited is not made again.
            missing = _missing(images, goals)
            if missing:
                _check_disk(missing, folder)
                builder = engine or engines.choose(catalog, paths)
                with _timed(report, f"prepare {builder.name}"):
                    builder.prepare()
                for image in missing:
                    parent = goals[image.parent] if image.parent else None
                    goals[image.name] = _build_one(
                        image,
                        parent=parent,
                        catalog=catalog,
                        builder=builder,
                        folder=folder,
                        paths=paths,
                        report=report,
                    )
                    _clear(image, goals[image.name].archive)
                builder.tidy([goals[image.name].reference for image in missing])
                if not keep_layers:
                    make_room(builder, paths, report)
    return Built(
        references={image.name: goals[image.name].reference for image in images},
        archives=tuple(goals[image.name].archive for image in images),
    )


def is_tight(paths: Paths) -> bool:
    """Tell whether little disk is left."""
    return paths.images.is_dir() and shutil.disk_usage(paths.images).free < _ROOMY_BYTES


def make_room(engine: Engine, paths: Paths, report: Report) -> None:
    """Drop the layers that only speed up the next build, if little disk is left; the archives stay."""
    if is_tight(paths):
        with _timed(report, "drop the layers that only speed up the next build (little disk is left)"):
            engine.trim()


def have(
    image: str, *, catalog: Catalog, paths: Paths, report: Report = lambda _title, _seconds: None, engine: Engine
) -> str:
    """Return the image's full name; its layers are in the builder's storage, to be run from there."""
    reference = build([image], catalog=catalog, paths=paths, report=report, engine=engine, keep_layers=True).references[
        image
    ]
    if not engine.has(reference):
        _forget(catalog, image, paths)
        build([image], catalog=catalog, paths=paths, report=report, engine=engine, keep_layers=True)
    return reference


def _forget(catalog: Catalog, image: str, paths: Paths) -> None:
    # An archive may leave out its parent's layers, so what was trimmed is built again rather than taken back.
    goal = _goal(
        next(each for each in catalog.wanted([image]) if each.name == image), catalog=catalog, folder=paths.archives
    )
    record_path(goal.archive).unlink(missing_ok=True)


def push(
    registry: str,
    names: Sequence[str] = (),
    *,
    tag: str | None = None,
    catalog: Catalog | None = None,
    paths: Paths | None = None,
    report: Report = lambda _title, _seconds: None,
    engine: Engine | None = None,
) -> dict[str, str]:
    """Build the named images unless they are there, push them, and return their names in the registry by short name.

    Args:
        registry: where to, such as `registry.example.org/team`.
        names: short names; all that need no registry, if none is named.
        tag: their tag; the project's version, which the charts use, if not given.
        catalog: the checkout; this one, if not given.
        paths: the cache; the environment's, if not given.
        report: told of each step when it ends.
        engine: what builds and pushes; found, if not given.

    Raises:
        BuildError: an image could not be built, or the registry refused it.
    """
    catalog, paths = catalog or Catalog(), paths or Paths.from_environment()
    builder = engine or engines.choose(catalog, paths)
    builder.prepare()
    for image in catalog.wanted(names):
        goal = _goal(image, catalog=catalog, folder=paths.archives)
        if not builder.has(goal.reference):
            _forget(catalog, image.name, paths)
    built = build(names, catalog=catalog, paths=paths, report=report, engine=builder, keep_layers=True)
    pushed: dict[str, str] = {}
    with only_one(paths, report):
        for name, reference in built.references.items():
            target = f"{registry.rstrip('/')}/{name}:{tag or catalog.version}"
            with _timed(report, f"{name}: push {target}"):
                builder.push(reference, target)
            pushed[name] = target
        make_room(builder, paths, report)
    return pushed


def archive_path(image: Image, *, catalog: Catalog, folder: Path) -> Path:
    """Return where the image's archive is, or would be once it is built."""
    return _goal(image, catalog=catalog, folder=folder).archive


@dataclass(frozen=True)
class _Goal:
    reference: str
    archive: Path


def _goal(image: Image, *, catalog: Catalog, folder: Path) -> _Goal:
    reference = catalog.reference(image)
    return _Goal(reference, folder / f"{image.name}-{reference.rpartition(':')[2]}.tar")


def _build_one(
    image: Image,
    *,
    parent: _Goal | None,
    catalog: Catalog,
    builder: Engine,
    folder: Path,
    paths: Paths,
    report: Report,
) -> _Goal:
    if parent and not builder.has(parent.reference):
        with _timed(report, f"{image.name}: take back what it is built on from {parent.archive.name}"):
            builder.load(parent.archive, parent.reference)
    scratch = tempfile.TemporaryDirectory(dir=paths.images, prefix=".context-")
    with _timed(report, f"{image.name}: build"), scratch as name:
        context = Path(name) / "context"
        goal = _stage(image, context, catalog=catalog, folder=folder)
        builder.build(image, reference=goal.reference, context=context, parent=parent.reference if parent else None)
    with _timed(report, f"{image.name}: write {goal.archive.name}"):
        held = Record.read(record_path(parent.archive)) if parent else None
        builder.export(goal.reference, target=goal.archive, parent=held)
    return goal


def _stage(image: Image, context: Path, *, catalog: Catalog, folder: Path) -> _Goal:
    """Copy the inputs and name the image after just that content, even while somebody edits them."""
    for _ in range(_STAGE_TRIES):
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        goal = _goal(image, catalog=catalog, folder=folder)
        catalog.stage(image, context)
        if _goal(image, catalog=catalog, folder=folder) == goal:
            return goal
    raise BuildError(f"The sources of {image.name} keep changing.", remedy="Run it again when they are written.")


def _missing(images: Sequence[Image], goals: dict[str, _Goal]) -> list[Image]:
    """Return the images without a whole archive; one that leaves layers out needs them in its parent's."""
    missing: list[Image] = []
    for image in images:
        archive = goals[image.name].archive
        record = Record.read(record_path(archive)) if archive.is_file() else None
        fits = record is not None
        if record and record.left_out:
            parent = Record.read(record_path(goals[image.parent].archive)) if image.parent else None
            fits = {digest for digest, _ in parent.layers}.issuperset(record.left_out) if parent else False
        if not fits or (image.parent and any(other.name == image.parent for other in missing)):
            missing.append(image)
    return missing


def _clear(image: Image, current: Path) -> None:
    """Delete the archives of the image's earlier versions: each is as large as the new one."""
    for old in current.parent.glob(f"{image.name}-*.tar"):
        if old != current and old.stem.removeprefix(f"{image.name}-")[:1].isdigit():
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
