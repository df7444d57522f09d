"""What every Dockerfile keeps to."""

from __future__ import annotations

import re

import pytest

from imagebuilder.catalog import IMAGES, Catalog, Image

REPOSITORY = Catalog().repository
LOCKED = [image for image in IMAGES if image.installs]


def instructions(image: Image) -> list[str]:
    text = (REPOSITORY / image.dockerfile).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_the_last_user_is_unprivileged_and_numeric(image: Image) -> None:
    users = [line for line in instructions(image) if line.startswith("USER ")]

    assert users[-1] == "USER 65532:65532"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_nothing_is_added_from_the_network(image: Image) -> None:
    assert not [line for line in instructions(image) if line.startswith("ADD ") or re.search(r"\b(curl|wget)\b", line)]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_the_home_is_writable_on_a_read_only_root(image: Image) -> None:
    if image.parent:
        pytest.skip("its parent sets it")
    assert "HOME=/tmp" in " ".join(instructions(image))


@pytest.mark.parametrize("image", LOCKED, ids=lambda image: image.name)
def test_packages_come_through_the_hashed_lock_only(image: Image) -> None:
    installing = [line for line in instructions(image) if re.search(r"\b(pip|uv)\b +(install|add)", line)]

    assert installing == []
    assert f"source=requirements/{image.name}.txt" in " ".join(instructions(image))


@pytest.mark.parametrize("image", LOCKED, ids=lambda image: image.name)
def test_the_installing_step_sees_a_change_of_what_it_mounts(image: Image) -> None:
    lines = instructions(image)
    argument = lines.index("ARG INSTALLED=")

    assert lines[argument + 1].startswith("RUN --mount=type=bind,source=images/install")


@pytest.mark.parametrize("image", [i for i in LOCKED if i.code], ids=lambda image: image.name)
def test_code_is_copied_after_everything_is_installed(image: Image) -> None:
    lines = instructions(image)
    first_copy = min(index for index, line in enumerate(lines) if line.startswith("COPY "))

    assert "requirements/" not in " ".join(lines[first_copy:])


def test_the_installer_takes_nothing_without_a_hash() -> None:
    text = (REPOSITORY / "images/install").read_text()
    installs = re.findall(r'pip"? install .*?(?:\n|$)(?:  --.*\n)*', text)

    assert len(installs) == 2
    assert all("--require-hashes" in command for command in installs)


@pytest.mark.parametrize("name", [*(image.name for image in LOCKED), "model", "bootstrap"])
def test_every_locked_requirement_has_a_version_and_hashes(name: str) -> None:
    text = (REPOSITORY / f"requirements/{name}.txt").read_text().replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("name", [image.name for image in LOCKED])
def test_a_lock_names_no_index(name: str) -> None:
    text = (REPOSITORY / f"requirements/{name}.txt").read_text()

    assert "://" not in text


def test_the_trainer_installs_nothing_that_the_engine_has() -> None:
    def pinned(name: str) -> set[str]:
        text = (REPOSITORY / f"requirements/{name}.txt").read_text()
        return set(re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE))

    assert "peft" in pinned("trainer")
    assert pinned("trainer") & pinned("engine-cpu") == set()
