"""ConfigMap R-progress: made by the operator with the twin's system prompt, filled by the trainer."""

from __future__ import annotations

from bettertherapy_api.run_progress import progress_name
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.finetune_run.facts import PROMPT_KEY
from twin_operator.kinds.finetune_run.labels import labels


def build_progress_configmap(run: Run, *, prompt: str | None) -> Manifest:
    """Return the ConfigMap; the trainer's own keys are not stated, so they stay its own."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": progress_name(run.name), "labels": labels(run, "progress")},
        **({"data": {PROMPT_KEY: prompt}} if prompt else {}),
    }
