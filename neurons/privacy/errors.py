"""Why nothing may be written: de-identification fails closed.

    PrivacyError
    ├── DeidentifierUnavailable   a model or a library is missing, altered or broken
    └── TextRefused               this text can't be handled; another one may be
"""

from __future__ import annotations


class PrivacyError(Exception):
    """A text was not de-identified, and must not be written. Messages never hold any of it."""


class DeidentifierUnavailable(PrivacyError):  # noqa: N818 - says what is the matter
    """The recognisers can't be loaded, or one failed."""


class TextRefused(PrivacyError):  # noqa: N818
    """A text is too long, or holds what no recogniser reads."""
