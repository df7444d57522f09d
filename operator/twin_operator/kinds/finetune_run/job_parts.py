"""What the Jobs of trainer and examiner have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.examination import PROMPT_KEY
from twin_operator.domain.judge import Judge
from twin_operator.domain.objects import Pool, Run, Twin
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.finetune_run.facts import KILLED
from twin_operator.kinds.podspec.parts import env
from twin_operator.settings import Images

TRY_AGAIN: Final = 75
"""The programs' exit status for what may pass."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONFIG_DIR: Final = "/etc/bettertherapy/run"
GRACE_SECONDS: Final = 60
"""Time to write a checkpoint when the pod is taken away."""
_NEXT_RUN: Final = "+"
"""The argument between the arguments of two runs."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the runs that a Job does."""

    run: Run
    twin: Twin
    prompt: bool
    """Whether a system prompt is told."""
    child: str | None = None
    """Digest of the version to examine."""
    judge: Judge | Finding | None = None
    """Of the twin's gate, or why it may not be asked; None where the gate names none."""


def job_arguments(
    tasks: Sequence[Task], arguments: Callable[[Task, str | None], list[str]], *, configmap: Callable[[str], str]
) -> list[str]:
    """Return the arguments of a Job that does these runs one after the other.

    `arguments` makes those of one run, given where its system prompt lies; `configmap` names where it reports. One
    that is alone is told that by its environment.
    """
    if len(tasks) == 1:
        return arguments(tasks[0], _prompt_file(tasks, tasks[0]))
    found: list[str] = []
    for task in tasks:
        more = [f"--progress-configmap={configmap(task.run.name)}", *arguments(task, _prompt_file(tasks, task))]
        found += [*([_NEXT_RUN] if found else []), *more]
    return found


def _prompt_file(tasks: Sequence[Task], task: Task) -> str | None:
    if not task.prompt:
        return None
    return f"{CONFIG_DIR}/{PROMPT_KEY}" if len(tasks) == 1 else f"{CONFIG_DIR}/{task.run.name}/{PROMPT_KEY}"


def failure_policy(container: str) -> Manifest:
    """Try again what may pass, as often as the run says; a limit of memory that was hit is no such thing, but ends with
    the same status as a kill, and so is told apart by the run's plan."""

    def codes(operator: str, values: list[int]) -> Manifest:
        return {"containerName": container, "operator": operator, "values": values}

    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Count", "onExitCodes": codes("In", [TRY_AGAIN, *KILLED])},
            {"action": "FailJob", "onExitCodes": codes("NotIn", [0, TRY_AGAIN, *KILLED])},
        ]
    }


def standard_image(pool: Pool, images: Images) -> str:
    """Return the operator's image for the pool's device: torch of the other would compute on the CPU, beside an idle
    GPU."""
    return images.trainer_cpu if pool.spec.engine.device == "CPU" else images.trainer_gpu


def prompt_volume(tasks: Sequence[Task], *, configmap: Callable[[str], str]) -> list[Manifest]:
    """The prompts alone. Not optional: without it the twin would be taught, and asked, otherwise than patients ask.

    Of several runs each has a folder of its own, and one that is deleted meanwhile doesn't keep the others' next pod
    from starting; a prompt that its run's arguments name, and that isn't there, fails that run.
    """
    prompted = [task for task in tasks if task.prompt]
    if not prompted:
        return []
    if len(tasks) == 1:
        items = [{"key": PROMPT_KEY, "path": PROMPT_KEY}]
        return [{"name": "config", "configMap": {"name": configmap(tasks[0].run.name), "items": items}}]
    sources = [
        {
            "configMap": {
                "name": configmap(task.run.name), "optional": True,
                "items": [{"key": PROMPT_KEY, "path": f"{task.run.name}/{PROMPT_KEY}"}],
            }
        }
        for task in prompted
    ]  # fmt: skip
    return [{"name": "config", "projected": {"sources": sources}}]


def environment(configmap: str | None) -> list[Manifest]:
    """Return the variables that say who it is and, of one that does one run, where it reports."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    return [
        env("HOME", "/tmp"),  # noqa: S108
        env("HF_HUB_OFFLINE", "1"),
        *([env("PROGRESS_CONFIGMAP", configmap)] if configmap is not None else []),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def is_file(uri: str, digest: str | None) -> bool:
    """Tell whether a dataset's URI names one file and no folder; what ends as files do is taken for one."""
    return digest is not None or "." in uri.rpartition("/")[2]
