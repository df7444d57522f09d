"""Why a training run failed, in the classes that a run's status shows.

    TrainerError
    ├── BadData        the dataset is empty, malformed, too large, or nothing in it may be trained on   final
    ├── BadModel       the base model can't be read or lacks a chat template                            final
    ├── Diverged       the loss is no number                                                            final
    ├── OutOfMemory    it takes more memory than there is                                               final
    └── PublishFailed  the store refused or did not answer                                              as the store
    says

"Final" means that the same run would fail again; anything else (a lost node, a preemption) kills the process and is
told by Kubernetes.
"""

from __future__ import annotations

from typing import ClassVar


class TrainerError(Exception):
    """The run failed; `failure_class` and `retryable` go into its status, the message says what to do."""

    failure_class: ClassVar[str]
    retryable: bool = False


class BadData(TrainerError):  # noqa: N818 - named like its class in the status
    """The dataset can't be trained on."""

    failure_class = "BadData"


class BadModel(TrainerError):  # noqa: N818
    """The base model can't be used."""

    failure_class = "BadModel"


class Diverged(TrainerError):  # noqa: N818
    """The loss became NaN or infinite."""

    failure_class = "Diverged"


class OutOfMemory(TrainerError):  # noqa: N818
    """Memory of the host or the GPU ran out."""

    failure_class = "OutOfMemory"


class PublishFailed(TrainerError):  # noqa: N818
    """The adapter was trained but is not in the store."""

    failure_class = "PublishFailed"

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
