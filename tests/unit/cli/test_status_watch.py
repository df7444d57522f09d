"""`kubectl twin status`: as programs read it, and watched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from kubectl_twin.commands import twins
from kubectl_twin.errors import TwinCliError
from kubectl_twin.options import Output

from .fake_api import MemoryApi
from .objects import Json, serving_twin, twin


class Changing(MemoryApi):
    """A twin that changes once, after which something ends the watch."""

    then: str | type[BaseException] = KeyboardInterrupt

    def __enter__(self) -> Changing:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing is open."""

    def get(self, path: str, query: Any = None) -> Json:
        found = super().get(path, query)
        return {**found, "metadata": {**found.get("metadata", {}), "resourceVersion": "7"}}

    def watch(self, path: str, *, since: str, fields: str | None = None) -> Iterator[tuple[str, Json]]:
        assert (since, fields) == ("7", "metadata.name=dr-gurung")
        changed = twin()
        changed["metadata"]["resourceVersion"] = "8"
        yield "MODIFIED", changed
        if isinstance(self.then, str):
            yield self.then, changed
        else:
            raise self.then


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Changing:
    made = Changing(serving_twin())
    monkeypatch.setattr(twins, "connect", lambda _: made)
    return made


def test_a_status_is_the_object_to_a_program(api: Changing, capsys: pytest.CaptureFixture[str]) -> None:
    twins.status_command("dr-gurung", output=Output.JSON)
    assert json.loads(capsys.readouterr().out)["kind"] == "DoctorTwin"
    twins.status_command("dr-gurung", output=Output.NAME)
    assert capsys.readouterr().out == "doctortwin.bettertherapy.io/dr-gurung\n"


def test_watching_goes_on_until_interrupted(api: Changing, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        twins.status_command("dr-gurung", output=Output.NAME, watch=True)
    assert ended.value.exit_code == 130
    assert capsys.readouterr().out.count("doctortwin.bettertherapy.io/dr-gurung\n") == 2


def test_a_twin_that_is_deleted_ends_the_watch(api: Changing) -> None:
    api.then = "DELETED"
    with pytest.raises(TwinCliError, match="dr-gurung was deleted"):
        twins.status_command("dr-gurung", output=Output.NAME, watch=True)
