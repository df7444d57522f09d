"""Commands that a message suggests, told so that they reach what this call reached: with its -n, --context and the rest.

Messages are written by many, the operator among them, who don't know how this call was made.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from kubectl_twin.kubeconfig import Reach

SUGGESTED: Final = re.compile(r"`(kubectl (?:[^`\n]|\n(?!\n))+)`")
_NO_NAMESPACE: Final = re.compile(r"(?:^|\s)(?:-n|--namespace|-A|--all-namespaces)(?=[\s=]|$)")
_given: tuple[Reach, str | None] = (Reach(), None)


def keep(reach: Reach, namespace: str | None) -> None:
    """Note how this call was made: one process serves one."""
    global _given  # noqa: PLW0603
    _given = (reach, namespace)


def told(text: str) -> str:
    """Return a message whose suggested commands reach what this call reached."""
    reach, namespace = _given
    if "`kubectl " not in text or (reach == Reach() and namespace is None):
        return text
    return SUGGESTED.sub(lambda found: f"`{with_flags(found[1], reach, namespace)}`", text)


def with_flags(command: str, reach: Reach, namespace: str | None) -> str:
    """Return the command with what says where the cluster is; what it says itself stays."""
    words = command.split()
    if "verify" in words[:3] or "push" in words[:4]:
        return command  # need no cluster
    flags: list[tuple[str, str | None]] = [("--kubeconfig", reach.kubeconfig)]
    if words[1:2] != ["config"]:
        flags += [("--context", reach.context), ("--as", reach.user)]
        flags += [("--as-group", each) for each in reach.groups]
        if not _NO_NAMESPACE.search(command):
            flags.insert(0, ("-n", namespace))
    added = [f"{flag} {shlex.quote(value)}" for flag, value in flags if value is not None and flag not in words]
    return " ".join([command, *added])
