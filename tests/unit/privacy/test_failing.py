"""Why texts can't be freed of identifiers is said with what to do, and without a word of any text."""

from __future__ import annotations

import logging

import pytest

from neurons.privacy import DeidentifierUnavailable, TextRefused, log_failing

TEXT = "Jorvanna Quell called from Ward 7."


@pytest.mark.parametrize(
    ("error", "why", "remedy"),
    [
        (DeidentifierUnavailable("The model package x is not installed."), "package x", "neuron image of this release"),
        (TextRefused("The text has 9 characters, at most 8 are read."), "9 characters", "nothing, if"),
        (KeyError(TEXT), "(KeyError)", "restart this process"),
        (UnicodeDecodeError("utf-8", TEXT.encode(), 0, 1, "no"), "(UnicodeDecodeError)", "restart this process"),
    ],
)
def test_what_to_do_is_said_and_nothing_of_a_text(
    error: Exception, why: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    log_failing(logging.getLogger("neurons.test"), error, effect="none is written")
    [record] = caplog.records
    said = record.getMessage()
    assert said.startswith("texts can't be freed of identifiers, so none is written. ")
    assert why in said
    assert remedy in said.partition("What to do: ")[2]
    assert "Jorvanna" not in repr(record.__dict__)
    assert record.__dict__["why"] == type(error).__name__
