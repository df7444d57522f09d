"""How a trainer or an examiner ends: its last word, its exit status, and where its progress goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from bettertherapy_api.run_progress import FailureReport, RunStage
from neurons.trainer.errors import TrainerError
from neurons.trainer.progress import FIELD_MANAGER, Progress, Target, say

TERMINATION_LOG: Final = Path("/dev/termination-log")
TRY_AGAIN: Final = 75  # EX_TEMPFAIL of sysexits.h


def progress_of_environment(*, first: RunStage = RunStage.DATA, field_manager: str = FIELD_MANAGER) -> Progress:
    """Return the progress that is told where the environment says; on standard output only without it."""
    configmap, namespace = os.environ.get("PROGRESS_CONFIGMAP"), os.environ.get("POD_NAMESPACE")
    target = Target(namespace=namespace, configmap=configmap) if namespace and configmap else None
    return Progress(attempt=os.environ.get("POD_UID", ""), target=target, first=first, field_manager=field_manager)


def failure_report(error: TrainerError) -> FailureReport:
    """Return the failure as it is reported."""
    return FailureReport(failure_class=error.failure_class, retryable=error.retryable, message=str(error))


def finish(result: dict[str, object], termination_log: Path) -> None:
    """Say the last word, and leave it with the kubelet where there is one."""
    say(**result)
    if termination_log.exists():
        termination_log.write_text(json.dumps(result)[:4096])
