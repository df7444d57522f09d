"""Which versions of validators' tasks a twin takes up: those that its doctor chose, and no others. Pure."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Twin


def is_chosen(twin: Twin, digest: str) -> bool:
    """Tell whether the twin's doctor approved this very version."""
    return twin.annotations.get(names.APPROVE_ANNOTATION) == digest
