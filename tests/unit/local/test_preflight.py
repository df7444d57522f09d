"""What the machine lacks is said at once, with what to do."""

from __future__ import annotations

import pytest

from localcluster.errors import PreflightError
from localcluster.preflight import Finding, disk_needed_gb, go_version, require
from localcluster.tools import Tool


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.19 linux/amd64", (1, 19)),
        ("command failed", None),
    ],
)
def test_the_version_of_go_is_read(said: str, version: tuple[int, int] | None) -> None:
    assert go_version(said) == version


def test_all_that_is_missing_is_said_together() -> None:
    findings = [
        Finding("go", "none", "install Go"),
        Finding("overlayfs", "yes"),
        Finding("disk", "1 GB free", "free some"),
    ]

    with pytest.raises(PreflightError) as raised:
        require(findings)

    assert "install Go" in str(raised.value)
    assert "free some" in str(raised.value)
    assert "overlayfs" not in str(raised.value)


def test_what_is_only_unwise_stops_nothing() -> None:
    require([Finding("memory", "8.0 GB available", "12 GB are wanted", fatal=False)])


def test_what_is_built_needs_no_more_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Tool(name="x", packages=(("x", "."),), disk_gb=5.0)
    monkeypatch.setattr(Tool, "built", property(lambda self: True))
    built = disk_needed_gb((tool,))
    monkeypatch.setattr(Tool, "built", property(lambda self: False))

    assert disk_needed_gb((tool,)) == built + 5.0
