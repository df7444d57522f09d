"""Text is freed of identifiers by `neurons.privacy`, or not written at all."""

from __future__ import annotations

import logging

import pytest

from neurons.ledger import Scrubbed
from neurons.privacy import Deidentifier, DeidentifierUnavailable
from neurons.validator.gateway.scrubbing import Clean, load_scrubber


def test_without_its_models_nothing_scrubs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing(*_: object, **__: object) -> None:
        raise DeidentifierUnavailable("The library presidio_analyzer is not installed.")

    monkeypatch.setattr(Deidentifier, "load", missing)
    with caplog.at_level(logging.ERROR):
        assert load_scrubber() is None
    assert "none is written" in caplog.text


def test_what_it_makes_is_what_the_ledger_takes() -> None:
    made = Clean("Rest.")
    assert isinstance(made, Scrubbed)
    assert "Rest" not in repr(made)


def test_a_name_and_a_number_are_taken_out() -> None:
    pytest.importorskip("presidio_analyzer")
    scrub = load_scrubber()
    assert scrub is not None
    made = scrub("I am Margaret Holloway, medical record number 8841-3307, and my head aches.")
    assert "Holloway" not in made.text
    assert "8841" not in made.text
    assert "head aches" in made.text
