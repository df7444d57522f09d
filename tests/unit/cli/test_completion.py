"""What a <TAB> offers: words of the place where it is pressed, and files only where a file is meant."""

from __future__ import annotations

import pytest

from kubectl_twin import completion

from .fake_api import MemoryApi
from .objects import serving_twin
from .test_rounds import made


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    api = MemoryApi(serving_twin("dr-gurung"))
    api.objects["/apis/bettertherapy.io/v1alpha1/namespaces/clinic/validatorrounds/clinic-1"] = made("clinic-1")
    monkeypatch.setattr("kubectl_twin.api.Api.connect", lambda **_: api)
    monkeypatch.setattr(MemoryApi, "__enter__", lambda self: self, raising=False)
    monkeypatch.setattr(MemoryApi, "__exit__", lambda *_: None, raising=False)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("status ", ["dr-gurung", ":4"]),
        ("round ", ["clinic-1", ":4"]),
        ("list -o ", ["table", "json", "yaml", "name", ":4"]),
        ("list -n clinic --output j", ["json", ":4"]),
        ("miners -o w", ["wide", ":4"]),
        ("list -n ", [":4"]),
        ("status dr-gurung ", [":4"]),
        ("list --kubeconfig ", [":0"]),
        ("miners --metagraph ", [":0"]),
        ("metagraph ", [":0"]),
    ],
)
def test_a_tab_offers(
    words: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["kubectl_complete-twin", *words.split(" ")])
    completion.main()
    assert capsys.readouterr().out.splitlines() == offered
