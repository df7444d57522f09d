"""Text is freed of identifiers by `neurons.privacy`, or not written at all."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from neurons.ledger import Scrubbed
from neurons.privacy import Deidentifier, DeidentifierUnavailable
from neurons.validator.gateway.scrubbing import Clean, ScrubbedOnDemand, load_scrubber


def test_without_its_models_nothing_scrubs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing(*_: object, **__: object) -> None:
        raise DeidentifierUnavailable("The library presidio_analyzer is not installed.")

    monkeypatch.setattr(Deidentifier, "load", missing)
    with caplog.at_level(logging.ERROR):
        assert load_scrubber() is None
    assert "none is written" in caplog.text
    assert "What to do: run the neuron image of this release" in caplog.text


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


def test_on_demand_the_models_are_loaded_once_and_with_the_first_text() -> None:
    class Played:
        loads = 0

        def scrub(self, text: str) -> Any:
            return SimpleNamespace(text=text.replace("Jane", "[NAME]"))

        def load(self) -> Any:
            self.loads += 1
            return self

    played = Played()
    scrub = ScrubbedOnDemand(played.load)
    assert played.loads == 0
    with ThreadPoolExecutor(4) as several:
        assert {each.text for each in several.map(scrub, ["I am Jane"] * 8)} == {"I am [NAME]"}
    assert played.loads == 1


def test_on_demand_nothing_comes_through_where_the_models_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def load() -> Any:
        tries.append(1)
        raise DeidentifierUnavailable("no model")

    scrub = ScrubbedOnDemand(load)
    for _ in range(3):
        with pytest.raises(DeidentifierUnavailable):
            scrub("I am Jane")
    assert len(tries) == 1
    assert caplog.text.count("none is written") == 1
    assert "Jane" not in caplog.text
