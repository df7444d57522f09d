"""De-identification: finds and replaces what HIPAA's Safe Harbor says must not be left in a text, failing closed.

`Deidentifier.load().scrub(text)` is for whatever is written; `find_identifiers` is its rules alone, without a model.
"""

from neurons.privacy.deidentifier import MAX_CHARACTERS, Deidentifier, Removed, Scrubbed
from neurons.privacy.errors import DeidentifierUnavailable, PrivacyError, TextRefused
from neurons.privacy.failing import log_failing
from neurons.privacy.identifiers import Finding, Identifier, find_identifiers

__all__ = [
    "MAX_CHARACTERS", "Deidentifier", "DeidentifierUnavailable", "Finding", "Identifier", "PrivacyError", "Removed", "Scrubbed",
    "TextRefused", "find_identifiers", "log_failing",
]  # fmt: skip
