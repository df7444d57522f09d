"""Bills of materials: of locks, and of what an image's archive holds; valid by CycloneDX' own schema."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from imagebuilder.catalog import Catalog
from release.__main__ import _locks
from release.bom import Package, contained, document, pinned
from release.errors import ReleaseError

ROOT = Path(__file__).resolve().parents[3]
STATUS = """Package: libnuma1
Status: install ok installed
Architecture: amd64
Version: 2.0.16-1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def tarred(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def image(path: Path, layers: dict[str, dict[str, str] | None]) -> Path:
    """Write an archive of `docker save`; a layer that is None lies in the archive of the image below."""
    members = {"manifest.json": json.dumps([{"Layers": list(layers)}]).encode()}
    members |= {name: tarred(files) for name, files in layers.items() if files is not None}
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def metadata(name: str, version: str, licence: str = "License-Expression: MIT") -> str:
    return f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n\nA long description: yes\n"


SITE = "opt/venv/lib/python3.11/site-packages"


def test_an_archive_is_read_layer_by_layer(tmp_path: Path) -> None:
    archive = image(
        tmp_path / "x.tar",
        {
            "one": {
                "./var/lib/dpkg/status": STATUS,
                f"{SITE}/Big_Thing-1.dist-info/METADATA": metadata("Big_Thing", "1"),
            },
            "two": {
                f"{SITE}/.wh.Big_Thing-1.dist-info": "",
                f"{SITE}/big_thing-2.dist-info/METADATA": metadata("Big_Thing", "2", "License: " + "x" * 200),
            },
        },
    )
    assert contained([archive]) == {
        Package(kind="deb", name="libnuma1", version="2.0.16-1", architecture="amd64"),
        Package(kind="pypi", name="big-thing", version="2"),
    }


def test_layers_of_the_image_below_are_in_its_own_archive(tmp_path: Path) -> None:
    below = image(tmp_path / "a.tar", {"one": {f"{SITE}/a-1.dist-info/METADATA": metadata("a", "1")}})
    above = image(tmp_path / "b.tar", {"one": None, "two": {f"{SITE}/b-1.dist-info/METADATA": metadata("b", "1")}})
    assert {each.name for each in contained([below, above])} == {"a", "b"}


def test_an_archive_without_packages_is_no_image_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="holds no package"):
        contained([image(tmp_path / "x.tar", {"one": {"etc/passwd": ""}})])


def test_a_lock_without_hashes_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"aiohttp==3\.0 has no hash"):
        list(pinned("aiohttp==3.0\n"))


@pytest.mark.parametrize("each", [each for each in Catalog().images if each.installs], ids=lambda each: each.name)
def test_bills_of_locks_are_valid_and_name_every_pin(each: object) -> None:
    text = _locks(each, ROOT)  # type: ignore[arg-type]
    pins = list(pinned(text))
    names = re.findall(r"^([A-Za-z0-9][-._A-Za-z0-9]*)(?:\[.*\])?==", text, re.MULTILINE)
    assert {pin.name for pin in pins} == {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    made = document("neuron", "1.2.3", pins, source="a lock")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made) is None
    bill = json.loads(made)
    assert {c["purl"] for c in bill["components"]} == {
        f"pkg:pypi/{p.name}@{p.version}".replace("+", "%2B") for p in pins
    }
    assert bill["metadata"]["component"]["version"] == "1.2.3"


def test_a_bill_of_an_image_is_valid(tmp_path: Path) -> None:
    files = {"var/lib/dpkg/status": STATUS, f"{SITE}/a-1.dist-info/METADATA": metadata("a", "1", "License: BSD, or so")}
    made = document("x", "1.0.0", contained([image(tmp_path / "x.tar", {"one": files})]), source="the image's archive")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made) is None
    found = {c["purl"]: c.get("licenses") for c in json.loads(made)["components"]}
    assert found.keys() == {"pkg:deb/debian/libnuma1@2.0.16-1?arch=amd64", "pkg:pypi/a@1"}
    assert found["pkg:pypi/a@1"] == [{"license": {"name": "BSD, or so"}}]
