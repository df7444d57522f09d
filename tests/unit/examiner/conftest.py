"""The trainer's tests' model of a few thousand weights, and the stand-in for a judge's endpoint."""

from __future__ import annotations

from tests.unit.scoring.conftest import standin
from tests.unit.trainer.conftest import base_model

__all__ = ["base_model", "standin"]
