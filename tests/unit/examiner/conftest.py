"""The trainer's tests' model of a few thousand weights."""

from __future__ import annotations

from tests.unit.trainer.conftest import base_model

__all__ = ["base_model"]
