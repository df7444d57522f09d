"""What a person is told when a subnet can't be looked at."""

from __future__ import annotations


class SubnetError(Exception):
    """One or two sentences: what is wrong, and what to do."""
