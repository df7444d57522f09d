"""`neurons.privacy` as the recording uses it: a text without identifiers, and what took them out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from neurons.privacy import Deidentifier, DeidentifierUnavailable
from neurons.validator.gateway.recording import Scrubber

log = logging.getLogger(__name__)

VERSION = "privacy/2"


@dataclass(frozen=True, slots=True)
class Clean:
    """A text that may be written; implements the ledger's `Scrubbed`."""

    text: str = field(repr=False)
    scrubbed_by: str = VERSION


def load_scrubber() -> Scrubber | None:
    """Load the models, which takes seconds; None where that can't be done, so that no text is written."""
    try:
        deidentifier = Deidentifier.load()
    except DeidentifierUnavailable as error:
        log.error("texts can't be freed of identifiers, so none is written: %s", error)  # noqa: TRY400
        return None
    return lambda text: Clean(deidentifier.scrub(text).text)
