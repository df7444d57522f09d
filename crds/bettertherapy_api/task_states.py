"""What becomes of the fine-tune tasks of a pool: one JSON document in ConfigMap `<pool>-tasks`, by the operator.

A miner that is offered a task puts it into its PodReport (`report.TaskClaim`). The operator makes a FineTuneRun of it
and says so here, and only then the miner tells the validator that it is accepted: so what was accepted outlives the
miner. Later the miner finds here what came of it, and reports that.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from bettertherapy_api.document import Document
from bettertherapy_api.schema import Digest, Time

KEY: Final = "tasks.json"
MOST: Final = 200
"""Tasks that are told of at once; of more, those that end first."""


class TaskState(StrEnum):
    """Where a task stands."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FINISHED = "finished"
    FAILED = "failed"


class PublishedTask(Document):
    """One task."""

    id: Annotated[str, Field(min_length=36, max_length=36)]
    validator: Annotated[str, Field(max_length=64)]
    """Hotkey of who offered it."""
    dataset: Annotated[str, Field(max_length=1024)]
    """Where its dataset is; its reports go to the same gateway."""
    deadline: Time
    """What is reported later counts for nothing."""
    state: TaskState
    adapter: Digest | None = None
    """Of a finished one."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, as a sentence."""


class PublishedTasks(Document):
    """All of them."""

    tasks: Annotated[tuple[PublishedTask, ...], Field(max_length=MOST)] = ()


def tasks_name(pool: str) -> str:
    """Return the name of the pool's ConfigMap of tasks."""
    return f"{pool}-tasks"
