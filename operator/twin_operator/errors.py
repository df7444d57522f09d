"""The operator's exceptions; the type says whether and when to try again.

OperatorError
├── ApiError            the API server refused or could not be reached; retried with backoff
├── ConflictError       what was read is not what is any more; the newer version was taken: reconciled again at once
├── ApplyError          some children could not be brought to what was planned; retried with backoff
├── NotLeaderError      another replica leads; nothing was written, whoever leads does the work
├── ChildConflictError  an object that we would write belongs to somebody else; retried, shown in a condition
├── TypesChangedError   a watched type came or went while this process ran: it ends, for another to begin anew
└── PrometheusError     Prometheus refused or could not be reached; what depends on it is held where it is
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
_REFUSALS: Final = frozenset({400, 403, 405, 413, 415, 422})


class OperatorError(Exception):
    """Base of all errors that the operator raises on purpose."""


class ApiError(OperatorError):
    """The API server answered with an error, or not at all (status 0)."""

    def __init__(self, *, status: int, reason: str, message: str, causes: Sequence[str] = ()) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = tuple(causes)
        """Reasons of the details, as the API server names them."""

    @property
    def refused(self) -> bool:
        """Whether the API server understood and said no (a rule, a right, a quota): a person must do something."""
        return self.status in _REFUSALS and not self.namespace_ends

    @property
    def namespace_ends(self) -> bool:
        """Whether the namespace is being deleted or gone: nothing can be made in it any more, nor needs to be."""
        return _NAMESPACE_TERMINATING in self.causes or (
            self.status == 404 and self.message.startswith("namespaces ")
        )  # fmt: skip


class ConflictError(OperatorError):
    """The object changed since it was read; its newer version is in the store. Not a failure: look again at once."""


class NotLeaderError(OperatorError):
    """A write was about to happen without leadership."""


class ChildConflictError(OperatorError):
    """An object with the name of a child exists and is not ours."""

    def __init__(self, *, kind: str, namespace: str, name: str, owner: str) -> None:
        super().__init__(
            f"{kind} {name} exists in namespace {namespace} and belongs to {owner}: "
            f"delete or rename it, or give the object that needs it another name"
        )


class ApplyError(OperatorError):
    """Some children could not be written; all others were."""


class TypesChangedError(OperatorError):
    """A CustomResourceDefinition came or went: what is watched is settled when a process begins."""


class PrometheusError(OperatorError):
    """Prometheus answered with an error, or not at all."""
