"""The operator's exceptions; the type says whether and when to try again.

OperatorError
├── ApiError            the API server refused or could not be reached; retried with backoff
├── NotLeaderError      another replica leads; nothing was written, whoever leads does the work
├── ChildConflictError  an object that we would write belongs to somebody else; retried, shown in a condition
└── PrometheusError     Prometheus refused or could not be reached; what depends on it is held where it is
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors that the operator raises on purpose."""


class ApiError(OperatorError):
    """The API server answered with an error, or not at all (status 0)."""

    def __init__(self, *, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotLeaderError(OperatorError):
    """A write was about to happen without leadership."""


class ChildConflictError(OperatorError):
    """An object with the name of a child exists and is not ours."""

    def __init__(self, *, kind: str, namespace: str, name: str, owner: str) -> None:
        super().__init__(
            f"{kind} {name} exists in namespace {namespace} and belongs to {owner}: "
            f"delete or rename it, or give the object that needs it another name"
        )


class PrometheusError(OperatorError):
    """Prometheus answered with an error, or not at all."""


class ConflictError(OperatorError):
    """The object was changed meanwhile."""
