"""`neurons.privacy` as the recording uses it: a text without identifiers, and what took them out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from neurons.privacy import Deidentifier, DeidentifierUnavailable, Scrubbed, log_failing
from neurons.validator.gateway.recording import Scrubber

log = logging.getLogger(__name__)

VERSION = "privacy/3"


@dataclass(frozen=True, slots=True)
class Clean:
    """A text that may be written; implements the ledger's `Scrubbed`."""

    text: str = field(repr=False)
    scrubbed_by: str = VERSION


class PrivacyScrubber:
    """A `Scrubber`; and for whoever wrote the text, what was removed."""

    def __init__(self, deidentifier: Deidentifier) -> None:
        self._deidentifier = deidentifier

    def __call__(self, text: str, /) -> Clean:
        """Return the text without identifiers; raises PrivacyError."""
        return Clean(self._deidentifier.scrub(text).text)

    def preview(self, text: str) -> Scrubbed:
        """Return the text without identifiers, and what was removed; raises PrivacyError."""
        return self._deidentifier.scrub(text)


class ScrubbedOnDemand:
    """A `Scrubber` that loads its models, of 370 MB, with the first text: who may never get one needs none of them."""

    def __init__(self, load: Callable[[], Deidentifier] = Deidentifier.load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._scrubber: PrivacyScrubber | None = None
        self._unavailable: str | None = None

    def __call__(self, text: str, /) -> Clean:
        """Return the text without identifiers; raises PrivacyError, also where the models can't be loaded."""
        with self._lock:
            if self._unavailable is not None:
                raise DeidentifierUnavailable(self._unavailable)
            if self._scrubber is None:
                try:
                    self._scrubber = PrivacyScrubber(self._load())
                except DeidentifierUnavailable as error:
                    log_failing(log, error, effect="none is written")
                    self._unavailable = str(error)
                    raise
        return self._scrubber(text)


def load_scrubber() -> Scrubber | None:
    """Load the models, which takes seconds; None where that can't be done, so that no text is written."""
    try:
        return PrivacyScrubber(Deidentifier.load())
    except DeidentifierUnavailable as error:
        log_failing(log, error, effect="none is written")
        return None
