"""Types of arguments for argparse: a text or a path that is blank is a shell's unset variable, and no value."""

from __future__ import annotations

import argparse
from pathlib import Path


def filled(value: str) -> str:
    """Return the text as it was given; raises ArgumentTypeError for a blank one."""
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty: give a value, or leave the option out where it may be")
    return value


def filled_path(value: str) -> Path:
    """Return the path; raises ArgumentTypeError for a blank one, which would be the folder that one is in."""
    return Path(filled(value))
