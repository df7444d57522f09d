"""How a trainer or an examiner ends: its last word, its exit status, and where its progress goes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bettertherapy_api.run_progress import FailureReport, RunStage
from neurons.groups import PROGRESS_CONFIGMAP
from neurons.trainer.errors import TrainerError
from neurons.trainer.progress import FIELD_MANAGER, Progress, Target, say

TERMINATION_LOG: Final = Path("/dev/termination-log")
TRY_AGAIN: Final = 75  # EX_TEMPFAIL of sysexits.h
_MOST: Final = 4096
"""Bytes that a kubelet keeps of a last word."""
_MESSAGE: Final = 800


def progress_of_environment(
    *, first: RunStage = RunStage.DATA, field_manager: str = FIELD_MANAGER, configmap: str | None = None,
    elsewhere: bool = False,
) -> Progress:  # fmt: skip
    """Return the progress that is told where the environment says; on standard output only without it.

    `configmap` is the one that the run's own arguments name; `elsewhere` tells that the run is not begun yet.
    """
    configmap, namespace = configmap or os.environ.get(PROGRESS_CONFIGMAP), os.environ.get("POD_NAMESPACE")
    target = Target(namespace=namespace, configmap=configmap) if namespace and configmap else None
    return Progress(
        attempt=os.environ.get("POD_UID", ""), target=target, first=first, field_manager=field_manager,
        elsewhere=elsewhere,
    )  # fmt: skip


def failure_report(error: TrainerError) -> FailureReport:
    """Return the failure as it is reported."""
    return FailureReport(failure_class=error.failure_class, retryable=error.retryable, message=str(error))


def finish(result: Mapping[str, object], termination_log: Path) -> None:
    """Say the last word, and leave it with the kubelet where there is one."""
    say(**result)
    if termination_log.exists():
        termination_log.write_text(json.dumps(result)[:_MOST])


def finish_several(words: Mapping[str, Mapping[str, object]], termination_log: Path) -> None:
    """Say of each run, by name, how it ended: `{"runs": {NAME: …}}`, in no more than the kubelet keeps."""
    length = _MESSAGE
    told = _told(words, length)
    while len(json.dumps(told)) > _MOST and length:
        length //= 2
        told = _told(words, length)
    finish(told, termination_log)


def _told(words: Mapping[str, Mapping[str, object]], length: int) -> dict[str, object]:
    return {"runs": {run: _short(word, length) for run, word in words.items()}}


def _short(word: Mapping[str, object], length: int) -> dict[str, object]:
    """Return of a run's last word what tells how it ended, with texts of at most so many characters."""
    failure = word.get("failure")
    if isinstance(failure, Mapping):
        return {"failure": {**failure, "message": str(failure["message"])[:length]}}
    return {name: str(word[name])[: max(length, 71)] for name in ("digest", "examined", "skipped") if name in word}
