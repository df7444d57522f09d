"""`approve` as typed: it shows the digest and asks, a script names it, and what came later is never approved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bettertherapy_api import names
from kubectl_twin import terminal
from kubectl_twin.commands.decisions import approve_command
from kubectl_twin.errors import TwinCliError

from .fake_api import MemoryApi
from .objects import digest, tuned_twin, version

Approve = Callable[..., None]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> MemoryApi:
    """A cluster in which version d waits."""
    made = MemoryApi(tuned_twin(pendingVersion=version("d", runName="dr-gurung-3", scorePercent=71)))
    monkeypatch.setattr("kubectl_twin.api.Api.connect", lambda **_: made)
    monkeypatch.setattr(MemoryApi, "__enter__", lambda self: self, raising=False)
    monkeypatch.setattr(MemoryApi, "__exit__", lambda *_: None, raising=False)
    return made


def person(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], bool]) -> list[str]:
    """Sit at a terminal; returns what is asked."""
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return answer(question)

    monkeypatch.setattr(terminal, "is_interactive", lambda: True)
    monkeypatch.setattr(terminal, "confirm", confirm)
    return asked


def test_it_shows_the_whole_digest_and_asks(
    api: MemoryApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = person(monkeypatch, lambda _question: True)
    approve_command("dr-gurung", wait=False)
    assert asked == [f"Approve {digest('d')}?"]
    assert {digest("d"), "dr-gurung-3", "71%"} <= set(capsys.readouterr().err.split())
    assert api.asked == {names.APPROVE_ANNOTATION: digest("d")}


def test_no_is_no(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    person(monkeypatch, lambda _question: False)
    with pytest.raises(TwinCliError, match="Nothing was done: dr-gurung-dddddddd waits on"):
        approve_command("dr-gurung")
    assert api.patches == []


def test_what_came_while_it_asked_is_not_approved(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(_question: str) -> bool:
        api.twin["status"]["pendingVersion"] = version("f")
        return True

    person(monkeypatch, newer)
    with pytest.raises(TwinCliError, match=f"What waits is dr-gurung-ffffffff, not {digest('d')}"):
        approve_command("dr-gurung")
    assert api.patches == []


def test_without_a_terminal_the_digest_must_be_said(api: MemoryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "is_interactive", lambda: False)
    with pytest.raises(TwinCliError, match="say which version you reviewed, by `--digest`"):
        approve_command("dr-gurung")
    assert api.patches == []


@pytest.mark.parametrize("said", ["d" * 8, digest("d"), "dr-gurung-dddddddd", "D" * 12])
def test_a_script_names_it(api: MemoryApi, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(terminal, "confirm", lambda _question: pytest.fail("it asked"))
    approve_command("dr-gurung", digest=said, wait=False)
    assert api.asked == {names.APPROVE_ANNOTATION: digest("d")}


@pytest.mark.parametrize(
    ("said", "why"),
    [("d" * 7, "too short to be sure of"), (digest("f"), "What waits is dr-gurung-dddddddd"), ("dd", "What waits is")],
)
def test_another_or_an_unsure_one_is_refused(api: MemoryApi, said: str, why: str) -> None:
    with pytest.raises(TwinCliError, match=why):
        approve_command("dr-gurung", digest=said)
    assert api.patches == []


@pytest.mark.parametrize(("typed", "meant"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_answers_y_or_n(monkeypatch: pytest.MonkeyPatch, typed: str, meant: bool) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr("typer._click.termui.visible_prompt_func", lambda *_args: typed.strip(), raising=False)
    monkeypatch.setattr("builtins.input", lambda *_args: typed.strip())
    said["yes"] = terminal.confirm("Approve it?")
    assert said == {"yes": meant}
