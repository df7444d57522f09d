"""ConfigMaps R-progress and R-examination: made by the operator with the twin's system prompt, filled by trainer and
examiner, each its own."""

from __future__ import annotations

from bettertherapy_api.examination import PROMPT_KEY, examination_name
from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_progress_configmap(run: Run, *, prompt: str | None) -> Manifest:
    """Return the trainer's ConfigMap; the trainer's own keys are not stated, so they stay its own."""
    return _build(run, progress_name(run.name), "progress", prompt)


def build_examination_configmap(run: Run, *, prompt: str | None) -> Manifest:
    """Return the examiner's, likewise."""
    return _build(run, examination_name(run.name), "examination", prompt)


def _build(run: Run, name: str, component: str, prompt: str | None) -> Manifest:
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": name, "labels": labels(run, component)},
        **({"data": {PROMPT_KEY: prompt}} if prompt else {}),
    }
