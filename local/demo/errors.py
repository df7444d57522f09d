"""What can go wrong in the demo."""

from __future__ import annotations


class DemoError(Exception):
    """A step failed: what, the evidence (events, the end of a log), and what to do about it."""

    def __init__(self, what: str, *, remedy: str, evidence: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.evidence = evidence
