"""Tags follow what goes into an image, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from imagebuilder.catalog import IMAGES, Catalog, Image
from imagebuilder.errors import BuildError

LOCAL = [image for image in IMAGES if not image.needs_registry]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    repository = tmp_path / "repository"
    for path in ("images", "requirements", "crds/bettertherapy_api", "neurons", "operator/twin_operator"):
        shutil.copytree(Catalog().repository / path, repository / path, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Catalog().repository / "pyproject.toml", repository)
    return Catalog(repository)


def test_equal_checkouts_have_equal_references(catalog: Catalog, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(catalog.repository, clone)

    assert Catalog(clone).references() == catalog.references()


def test_a_reference_names_registry_image_version_and_hash(catalog: Catalog) -> None:
    assert catalog.references()["neuron"].startswith("docker.io/bettertherapy/neuron:0.1.0-")
    assert len(catalog.references()["neuron"].rpartition("-")[2]) == 8


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ("neurons/__init__.py", {"neuron", "trainer-cpu", "trainer-gpu"}),
        ("crds/bettertherapy_api/names.py", {"neuron", "operator", "trainer-cpu", "trainer-gpu"}),
        ("requirements/operator.txt", {"operator"}),
        ("requirements/ledger.txt", {"neuron"}),
        ("requirements/pages.txt", {"neuron"}),
        ("requirements/rounds.txt", {"neuron"}),
        ("requirements/engine-cpu.txt", {"engine-cpu", "trainer-cpu"}),
        ("images/engine-cpu/prune.py", {"engine-cpu", "trainer-cpu"}),
        ("images/engine-cpu/mend_lora.py", {"engine-cpu", "trainer-cpu"}),
        ("images/engine-cpu/mend_wait.py", {"engine-cpu", "trainer-cpu"}),
        ("images/install", {"neuron", "operator", "engine-cpu", "trainer-cpu", "trainer-gpu"}),
        ("images/base/packages.txt", {"neuron", "operator", "engine-cpu", "trainer-cpu"}),
        ("images/engine-gpu/Dockerfile", {"engine-gpu", "trainer-gpu"}),
        ("requirements/trainer-gpu.txt", {"trainer-gpu"}),
    ],
)
def test_a_changed_input_changes_just_the_images_that_it_goes_into(
    catalog: Catalog, changed: str, names: set[str]
) -> None:
    before = catalog.references()
    with (catalog.repository / changed).open("a") as file:
        file.write("\n# changed\n")
    after = catalog.references()

    assert {name for name in before if before[name] != after[name]} == names


def test_compiled_files_change_nothing(catalog: Catalog) -> None:
    before = catalog.references()
    cache = catalog.repository / "neurons/__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"x")

    assert catalog.references() == before


def test_a_new_file_changes_the_tag(catalog: Catalog) -> None:
    before = catalog.reference(catalog.image("operator"))
    (catalog.repository / "operator/twin_operator/new.py").write_text("")

    assert catalog.reference(catalog.image("operator")) != before


def test_a_renamed_file_changes_the_tag(catalog: Catalog) -> None:
    before = catalog.reference(catalog.image("neuron"))
    (catalog.repository / "neurons/py.typed").touch()
    added = catalog.reference(catalog.image("neuron"))
    (catalog.repository / "neurons/py.typed").rename(catalog.repository / "neurons/py.moved")

    assert catalog.reference(catalog.image("neuron")) not in {before, added}


def test_code_leaves_the_installing_step_cached(catalog: Catalog) -> None:
    image = catalog.image("neuron")
    before = catalog.installed(image)
    (catalog.repository / "neurons/__init__.py").write_text("# changed\n")

    assert catalog.installed(image) == before


def test_a_lock_runs_the_installing_step_again(catalog: Catalog) -> None:
    image = catalog.image("neuron")
    before = catalog.installed(image)
    (catalog.repository / "requirements/neuron.txt").write_text("# changed\n")

    assert catalog.installed(image) != before


def test_what_an_image_is_built_on_comes_before_it(catalog: Catalog) -> None:
    assert [image.name for image in catalog.wanted(["trainer-cpu", "neuron"])] == [
        "engine-cpu",
        "trainer-cpu",
        "neuron",
    ]


def test_a_trainer_is_built_on_the_engine_of_its_device(catalog: Catalog) -> None:
    assert [image.name for image in catalog.wanted(["trainer-gpu"])] == ["engine-gpu", "trainer-gpu"]


def test_without_names_all_images_that_need_no_registry_are_wanted(catalog: Catalog) -> None:
    assert {image.name for image in catalog.wanted([])} == {"neuron", "operator", "engine-cpu", "trainer-cpu"}


def test_an_unknown_image_is_refused_with_the_names_there_are(catalog: Catalog) -> None:
    with pytest.raises(BuildError) as caught:
        catalog.wanted(["nueron"])

    assert "neuron" in caught.value.remedy


def test_a_missing_input_is_named(catalog: Catalog) -> None:
    broken = replace(catalog, images=(Image("neuron", code=("not-there",)),))

    with pytest.raises(BuildError, match="not-there is missing"):
        broken.references()


@pytest.mark.parametrize("image", LOCAL, ids=lambda image: image.name)
def test_the_build_context_holds_just_the_inputs(catalog: Catalog, image: Image, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    catalog.stage(image, context)

    staged = {path.relative_to(context) for path in context.rglob("*") if path.is_file()}
    assert staged == set(catalog.files(image))


@pytest.mark.parametrize("image", LOCAL, ids=lambda image: image.name)
def test_all_that_the_dockerfile_takes_is_in_the_build_context(catalog: Catalog, image: Image, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    catalog.stage(image, context)
    text = (context / image.dockerfile).read_text()
    taken = [line.split()[1] for line in text.splitlines() if line.startswith("COPY ")]
    taken += [part.partition(",")[0] for part in text.split("source=")[1:]]

    assert taken
    assert [path for path in taken if not (context / path).exists()] == []
