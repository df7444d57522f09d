"""Released volumes are emptied and offered again; nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from localcluster import volumes
from localcluster.apiclient import ApiClient


class Recorder:
    """Stands where the API client does and keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "") -> dict[str, Any]:
        self.sent.append((method, path, body))
        return {}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(volumes.os, "chown", lambda *_: None)
    folder = tmp_path / "standard-01"
    folder.mkdir()
    (folder / "left").write_text("x")
    return folder


def _recycle(folder: Path, phase: str, *, root: Path) -> tuple[bool, list[tuple[str, str, Any]]]:
    recorder = Recorder()
    volume = {
        "metadata": {"name": "standard-01"},
        "spec": {"hostPath": {"path": str(folder)}},
        "status": {"phase": phase},
    }
    return volumes.recycle(cast(ApiClient, recorder), volume, root=root), recorder.sent


def test_a_released_volume_is_emptied_and_offered_again(folder: Path) -> None:
    done, sent = _recycle(folder, "Released", root=folder.parent)

    assert done
    assert list(folder.iterdir()) == []
    assert sent == [("PATCH", "/api/v1/persistentvolumes/standard-01", {"spec": {"claimRef": None}})]


@pytest.mark.parametrize("phase", ["Available", "Bound", "Pending"])
def test_a_volume_in_use_is_left_alone(folder: Path, phase: str) -> None:
    done, sent = _recycle(folder, phase, root=folder.parent)

    assert not done
    assert not sent
    assert (folder / "left").exists()


def test_a_volume_that_is_not_ours_is_left_alone(folder: Path, tmp_path: Path) -> None:
    done, sent = _recycle(folder, "Released", root=tmp_path / "elsewhere")

    assert not done
    assert not sent
    assert (folder / "left").exists()
