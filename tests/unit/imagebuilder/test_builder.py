"""Building only what is missing, with an engine that writes small files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagebuilder import BuildError, Catalog, build
from imagebuilder.archive import Record, record_path
from imagebuilder.builder import have, push
from imagebuilder.catalog import Image
from imagebuilder.paths import Paths


@dataclass
class FakeEngine:
    """Remembers what it was asked; an export is a file and its record."""

    name: str = "fake"
    built: list[str] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    pushed: list[tuple[str, str]] = field(default_factory=list)
    fails: str | None = None
    layer: str = "sha256:engine"

    def prepare(self) -> None:
        pass

    def build(self, image: Image, *, reference: str, context: Path, parent: str | None) -> None:
        assert (context / image.dockerfile).is_file()
        assert parent is None or parent in self.stored
        if image.name == self.fails:
            raise BuildError("no network", remedy="try again")
        self.built.append(image.name)
        self.stored.add(reference)

    def export(self, reference: str, *, target: Path, parent: Record | None) -> Record:
        target.write_text(reference)
        layers = (*(parent.layers if parent else ()), (self.layer if parent is None else "sha256:own", 1))
        left_out = tuple(digest for digest, _ in parent.layers) if parent else ()
        record = Record(reference=reference, config="sha256:c", layers=layers, left_out=left_out)
        record.write(record_path(target))
        return record

    def has(self, reference: str) -> bool:
        return reference in self.stored

    def load(self, target: Path, reference: str) -> None:
        assert target.is_file()
        self.loaded.append(reference)
        self.stored.add(reference)

    def run(self, reference: str, command: Sequence[str], *, volumes: Sequence[tuple[Path, str]]) -> None:
        raise NotImplementedError

    def push(self, reference: str, target: str) -> None:
        assert reference in self.stored
        self.pushed.append((reference, target))

    def tidy(self, references: Collection[str]) -> None:
        names = {reference.rpartition(":")[0] for reference in references}
        self.stored = {r for r in self.stored if r in references or r.rpartition(":")[0] not in names}

    def trim(self) -> None:
        self.stored.clear()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    repository = tmp_path / "repository"
    for path in ("images", "requirements", "crds/bettertherapy_api", "neurons", "operator/twin_operator"):
        shutil.copytree(Catalog().repository / path, repository / path, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Catalog().repository / "pyproject.toml", repository)
    return Catalog(repository)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    roomy = shutil.disk_usage("/")._replace(free=1 << 40)
    monkeypatch.setattr("imagebuilder.builder.shutil.disk_usage", lambda _path: roomy)
    return Paths(cache=tmp_path / "cache")


def test_the_archives_come_in_the_order_in_which_they_must_be_loaded(catalog: Catalog, paths: Paths) -> None:
    built = build(["trainer-cpu"], catalog=catalog, paths=paths, engine=FakeEngine())

    assert [path.name.partition("-0")[0] for path in built.archives] == ["engine-cpu", "trainer-cpu"]
    assert all(path.is_file() for path in built.archives)


def test_what_is_there_is_not_built_again(catalog: Catalog, paths: Paths) -> None:
    build(catalog=catalog, paths=paths, engine=FakeEngine())
    again = FakeEngine()
    build(catalog=catalog, paths=paths, engine=again)

    assert again.built == []


def test_a_change_of_code_leaves_the_engines_image_alone(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    build(catalog=catalog, paths=paths, engine=engine)
    engine.built.clear()
    (catalog.repository / "neurons/__init__.py").write_text("# changed\n")
    build(catalog=catalog, paths=paths, engine=engine)

    assert engine.built == ["neuron", "trainer-cpu"]


def test_the_archives_of_earlier_versions_are_deleted(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    build(catalog=catalog, paths=paths, engine=engine)
    (catalog.repository / "neurons/__init__.py").write_text("# changed\n")
    built = build(catalog=catalog, paths=paths, engine=engine)

    assert sorted(paths.archives.glob("*.tar")) == sorted(built.archives)


def test_the_layers_of_earlier_versions_are_forgotten(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    build(catalog=catalog, paths=paths, engine=engine)
    (catalog.repository / "neurons/__init__.py").write_text("# changed\n")
    build(catalog=catalog, paths=paths, engine=engine)

    assert engine.stored == {catalog.reference(image) for image in catalog.wanted([])}


def test_finished_images_survive_a_failure(catalog: Catalog, paths: Paths) -> None:
    with pytest.raises(BuildError):
        build(["neuron", "operator"], catalog=catalog, paths=paths, engine=FakeEngine(fails="operator"))
    engine = FakeEngine()
    build(["neuron", "operator"], catalog=catalog, paths=paths, engine=engine)

    assert engine.built == ["operator"]


def test_an_archive_without_its_record_is_built_again(catalog: Catalog, paths: Paths) -> None:
    [archive] = build(["neuron"], catalog=catalog, paths=paths, engine=FakeEngine()).archives
    record_path(archive).unlink()
    engine = FakeEngine()
    build(["neuron"], catalog=catalog, paths=paths, engine=engine)

    assert engine.built == ["neuron"]


def test_what_leaves_layers_out_is_rebuilt_when_the_parent_was(catalog: Catalog, paths: Paths) -> None:
    engine_archive, _ = build(["trainer-cpu"], catalog=catalog, paths=paths, engine=FakeEngine()).archives
    record_path(engine_archive).unlink()
    engine = FakeEngine(layer="sha256:other")
    build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)

    assert engine.built == ["engine-cpu", "trainer-cpu"]


def test_a_trimmed_parent_is_taken_back_from_its_archive(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)
    engine.trim()
    (catalog.repository / "neurons/__init__.py").write_text("# changed\n")
    build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)

    assert engine.loaded == [catalog.reference(catalog.image("engine-cpu"))]
    assert engine.built == ["engine-cpu", "trainer-cpu", "trainer-cpu"]


def test_too_little_disk_is_said_before_anything_is_built(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage("/")._replace(free=1 << 30)
    monkeypatch.setattr("imagebuilder.builder.shutil.disk_usage", lambda _path: full)
    engine = FakeEngine()

    with pytest.raises(BuildError, match="GiB free"):
        build(["engine-cpu"], catalog=catalog, paths=Paths(cache=tmp_path), engine=engine)
    assert engine.built == []


def test_little_disk_left_drops_what_only_speeds_up_the_next_build(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = shutil.disk_usage("/")._replace(free=20 << 30)
    monkeypatch.setattr("imagebuilder.builder.shutil.disk_usage", lambda _path: tight)
    engine = FakeEngine()
    build(["neuron"], catalog=catalog, paths=Paths(cache=tmp_path), engine=engine)

    assert engine.stored == set()


def test_a_push_names_images_as_the_charts_do(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    names = push("registry.example.org/team/", ["neuron"], catalog=catalog, paths=paths, engine=engine)

    assert names == {"neuron": f"registry.example.org/team/neuron:{catalog.version}"}
    assert engine.pushed == [(catalog.reference(catalog.image("neuron")), names["neuron"])]


def test_with_little_disk_the_layers_go_once_nothing_needs_them(
    catalog: Catalog, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = shutil.disk_usage("/")._replace(free=20 << 30)
    monkeypatch.setattr("imagebuilder.builder.shutil.disk_usage", lambda _path: little)
    engine = FakeEngine()
    build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)
    assert not engine.stored
    push("registry.example.org/team", ["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)
    assert len(engine.pushed) == 2
    assert not engine.stored
    reference = have("trainer-cpu", catalog=catalog, paths=paths, engine=engine)
    assert engine.has(reference)


def test_a_push_builds_what_was_trimmed_again(catalog: Catalog, paths: Paths) -> None:
    engine = FakeEngine()
    build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)
    engine.trim()
    push("registry.example.org/team", ["trainer-cpu"], tag="t", catalog=catalog, paths=paths, engine=engine)

    assert [target for _, target in engine.pushed] == [
        f"registry.example.org/team/{name}:t" for name in ("engine-cpu", "trainer-cpu")
    ]
