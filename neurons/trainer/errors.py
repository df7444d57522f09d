"""Why a run failed, in training or in examination, in the classes that a run's status shows.

    TrainerError
    ├── BadData        the dataset is empty, malformed, too large, or nothing in it may be trained on   final
    ├── BadParent      the adapter to go on from is damaged, or of another rank or base model, or       final
    │                  what it was trained on is lost
    ├── BadModel       the base model can't be read or lacks a chat template                            final
    ├── BadArtifact    the version to be examined is damaged, is another's, or fits no base model here  final
    ├── Diverged       the loss rises beyond measure, or a weight or gradient does                       final
    ├── OutOfMemory    it takes more memory than there is                                               final
    ├── StoreFailed    the store did not give what is to be read                                        as it says
    ├── PublishFailed  the store did not take the adapter, however often it was asked                   as it says
    ├── ProcessDied    one of several training processes was killed, or answers the others no more      retryable
    ├── Preempted      the pod was told to end; a checkpoint is kept                                    retryable
    └── Unexpected     a fault that nobody expected, of one among several runs of a process             retryable

"Final" means that the same run would fail again. A lost node or a kill leaves no word; Kubernetes tells of it, and the
next attempt goes on from the last checkpoint.
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


class BadParent(TrainerError):  # noqa: N818
    """The parent adapter can't be gone on from."""

    failure_class = "BadParent"


class BadModel(TrainerError):  # noqa: N818
    """The base model can't be used."""

    failure_class = "BadModel"


class BadArtifact(TrainerError):  # noqa: N818
    """What a trainer published can't be examined."""

    failure_class = "BadArtifact"


class NearCopy(TrainerError):  # noqa: N818
    """What a miner delivered is nearly what was delivered before."""

    failure_class = "NearCopy"


class Diverged(TrainerError):  # noqa: N818
    """The training came apart (neurons.trainer.divergence)."""

    failure_class = "Diverged"


class OutOfMemory(TrainerError):  # noqa: N818
    """Memory of the host or the GPU ran out."""

    failure_class = "OutOfMemory"


class StoreFailed(TrainerError):  # noqa: N818
    """The store did not give what a run needs to begin."""

    failure_class = "StoreFailed"

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class PublishFailed(TrainerError):  # noqa: N818
    """The adapter was trained but is not in the store."""

    failure_class = "PublishFailed"

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class Preempted(TrainerError):  # noqa: N818
    """The pod has to go; another attempt goes on where this one ended."""

    failure_class = "Preempted"
    retryable = True


class ProcessDied(TrainerError):  # noqa: N818
    """One of the processes of a training is gone, so the others can't go on; another attempt goes on from the last
    checkpoint."""

    failure_class = "ProcessDied"
    retryable = True


class Unexpected(TrainerError):  # noqa: N818
    """A fault that nobody expected. Of the only run of a process it is raised instead."""

    failure_class = "Unexpected"
    retryable = True


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory of the host or of a GPU ran out, as Python and torch say it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's allocator on a CPU
