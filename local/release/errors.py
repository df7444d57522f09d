"""Why a release can't be made."""

from __future__ import annotations


class ReleaseError(Exception):
    """Something is not as a release wants it; the text says what to do."""
