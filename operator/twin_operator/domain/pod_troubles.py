"""What keeps one pod from running, in words; which field of which spec is to blame the caller says."""

from __future__ import annotations

from typing import Final

import orjson

from twin_operator.domain.pool_facts import ContainerTrouble, PodFacts
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding

_LAST_WORDS: Final = 700


def cannot_pull(pod: PodFacts, trouble: ContainerTrouble, *, field: str) -> Finding:
    """Say that the kubelet can't get the image that `field` of the spec names."""
    return Finding(
        Reason.IMAGE_PULL_FAILED,
        f"pod {pod.name} can't pull image {trouble.image}: {trouble.message}; correct {field}, or load the image onto "
        "the nodes, or name a pull secret in spec.imagePullSecrets",
    )


def cannot_start(what: str, trouble: ContainerTrouble) -> Finding:
    """Say that a container can't be started, mostly because a Secret or a key of it is missing."""
    missing = "not found" in trouble.message
    return Finding(
        Reason.SECRET_NOT_FOUND if missing else Reason.CONTAINER_NOT_STARTED,
        f"{what} can't start: {trouble.message}"
        + ("; create it in this namespace, or correct the reference in spec" if missing else ""),
    )


def claim_trouble(pod: PodFacts, *, absent: str, unbound: str) -> Finding | None:
    """Say that a claim doesn't exist or is not bound, with what to do in each case; None when that isn't it."""
    message = pod.unschedulable or ""
    if "persistentvolumeclaim" not in message.lower() and "unbound" not in message.lower():
        return None
    # The scheduler adds a bare "not found", of preemption, to what it says of claims that are there and not bound.
    if "not found" in message and "unbound" not in message:
        return Finding(Reason.VOLUME_CLAIM_NOT_FOUND, f"pod {pod.name}: {message}{absent}")
    return Finding(Reason.VOLUME_CLAIM_NOT_BOUND, f"pod {pod.name}: {message}; see `kubectl describe pvc`: {unbound}")


def while_mounting(pod: PodFacts | None) -> str:
    """Return what to add of a pod that waits for its volumes; empty where it waits for something else."""
    if pod is None or not pod.mounting:
        return ""
    return (
        f", which waits for its volumes: if that lasts, a Secret, a ConfigMap or a claim that it mounts is missing, or "
        f"a key in one; see `kubectl describe pod {pod.name}`"
    )


def ending(crash: ContainerTrouble, *, memory: str, words: str) -> str:
    """Return how a container ended; `memory` is the field with its limit, `words` what it said last."""
    code = f"exit code {crash.exit_code}" if crash.exit_code is not None else crash.reason
    hint = f" (out of memory: raise {memory})" if crash.reason == "OOMKilled" else ""
    return f"{code}{hint}" + (f": {words}" if words else "")


def telling_line(output: str) -> str:
    """Return the line of a program's last output that says why it ended: the last that names an error, else the last.

    The whole of it, hundreds of lines of usage or traceback, is in the pod's log.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")


def last_words(output: str) -> str:
    """Return the sentence by which a program says why it ended, out of its last output: JSON lines or plain ones."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in reversed(lines):
        said = _logged(line)
        if said is not None:
            return _cut(said)
    return _cut(telling_line(output))


def _logged(line: str) -> str | None:
    """Return the message of a log line that tells of an error."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(entry, dict) or entry.get("level") not in ("error", "critical"):
        return None
    message = entry.get("message")
    return message if isinstance(message, str) else None


def _cut(text: str) -> str:
    return text if len(text) <= _LAST_WORDS else text[:_LAST_WORDS] + "…"
