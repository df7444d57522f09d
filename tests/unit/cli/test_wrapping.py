"""Sentences on a terminal break between words, and a command that is to be copied does not break."""

from __future__ import annotations

import io
import sys

import pytest

from kubectl_twin import terminal
from kubectl_twin.wrapping import wrapped

SAID = (
    "You may not list doctortwins.bettertherapy.io in namespace clinic. Ask an administrator for it; "
    "`kubectl auth can-i list doctortwins.bettertherapy.io -n clinic` shows when you may."
)


def test_words_and_commands_are_kept_whole() -> None:
    lines = wrapped(SAID, 80).split("\n")
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines) == SAID
    assert any("`kubectl auth can-i list doctortwins.bettertherapy.io -n clinic`" in line for line in lines)


def test_a_command_longer_than_a_line_is_left_to_the_terminal_which_copies_it_whole() -> None:
    assert "`kubectl auth can-i list doctortwins.bettertherapy.io -n clinic`" in wrapped(SAID, 40).split("\n")


@pytest.mark.parametrize("said", ["", "short", "two\nlines  with   blanks\n", "\n- an item\n"])
def test_what_fits_stays_as_it_is(said: str) -> None:
    assert wrapped(said, 40) == said


def test_letters_that_take_no_room_or_two_places_are_counted_so() -> None:
    assert wrapped("गुरुङ " * 8 + "x", 40).count("\n") == 0
    assert wrapped("李医生 " * 6, 40).count("\n") == 1


def terminal_of(monkeypatch: pytest.MonkeyPatch, name: str, *, tty: bool) -> io.StringIO:
    out = io.StringIO()
    out.isatty = lambda: tty  # type: ignore[method-assign]
    monkeypatch.setattr(sys, name, out)
    monkeypatch.setenv("COLUMNS", "80")
    return out


def test_an_error_breaks_between_words_on_a_terminal_and_nowhere_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal_of(monkeypatch, "stderr", tty=True)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.complain(SAID)
    assert [line for line in out.getvalue().splitlines() if len(line) > 80] == []
    out = terminal_of(monkeypatch, "stderr", tty=False)
    terminal.complain(SAID)
    assert out.getvalue() == f"{SAID}\n"


def test_who_wants_no_colour_gets_none_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal_of(monkeypatch, "stderr", tty=True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal.complain("no")
    assert "\x1b[31m" in out.getvalue()
    out = terminal_of(monkeypatch, "stderr", tty=True)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.complain("no")
    assert out.getvalue() == "no\n"
