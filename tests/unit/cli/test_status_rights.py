"""`kubectl twin status` for who may read the twin and little else: it says what it could not read, and goes on."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_twin.api import refusal
from kubectl_twin.commands import twins

from .fake_api import MemoryApi
from .objects import Json, serving_twin


class TwinAlone(MemoryApi):
    """Gives the twin, and refuses all else."""

    def __enter__(self) -> TwinAlone:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing is open."""

    def get(self, path: str, query: Any = None) -> Json:
        if "/doctortwins" in path:
            return super().get(path, query)
        raise refusal(403, b"{}", verb="list", path=path)


def test_what_may_not_be_read_is_said_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(twins, "connect", lambda _: TwinAlone(serving_twin()))
    twins.status_command("dr-gurung")
    said = " ".join(capsys.readouterr().out.split())
    assert "Dr. Indra Gurung" in said
    for resource in ("events", "finetuneruns", "pods"):
        assert f"You may not list {resource}" in said
    assert "none in the last hour" not in said
