"""FineTuneRun task-<id>: what a validator's task makes of the twin that it is for."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api.report import TaskClaim
from twin_operator.domain.objects import Pool, Twin
from twin_operator.domain.versions import anchor_version
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import moment
from twin_operator.kinds.twin_run import run_of

LONGEST: Final = 21600
SHORTEST: Final = 600
"""Seconds that a trainer is given, and the examiner after it."""


def task_run_name(task: str) -> str:
    """Return the name of a task's run."""
    return f"task-{task}"


def build_task_run(claim: TaskClaim, twin: Twin, pool: Pool, trains: Pool, *, now: datetime) -> Manifest:
    """Return the run: `pool` is whose miner was offered the task, `trains` the one that trains the twin."""
    fine_tune, ways, anchor = twin.spec.fine_tune, trains.fine_tune, anchor_version(twin)
    hyperparameters = fine_tune.hyperparameters if fine_tune else None
    left: timedelta = moment(claim.deadline) - now
    compared = {"digest": anchor.digest} if anchor.digest else {}
    return run_of(
        twin,
        task_run_name(claim.id),
        {
            "task": {
                "id": claim.id, "validator": claim.validator, "pool": pool.name, "deadline": claim.deadline,
            },
            **({"parentDigest": claim.parent_digest} if claim.parent_digest else {}),
            **({"anchor": compared} if anchor.digest != claim.parent_digest else {}),
            "dataset": {
                "uri": claim.dataset, "digest": claim.dataset_digest, "interactions": claim.interactions,
            },
            **(
                {"hyperparameters": hyperparameters.model_dump(mode="json", by_alias=True, exclude_none=True)}
                if hyperparameters
                else {}
            ),
            "seed": int.from_bytes(hashlib.sha256(claim.id.encode()).digest()[:4], "big"),
            # Trainer and examiner after it have so long each, and both are to be done in the task's time.
            "deadlineSeconds": max(SHORTEST, min(LONGEST, int(left.total_seconds()) // 2)),
            **({"queueName": ways.queue_name} if ways.queue_name else {}),
            **({"priorityClassName": ways.priority_class_name} if ways.priority_class_name else {}),
        },
    )  # fmt: skip
