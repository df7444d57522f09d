"""Several runs for one process: groups of arguments with `+` between them, each what a single run is started with."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

SEPARATOR: Final = "+"
_SAME: Final = ("base_model", "base_model_name", "base_model_revision", "base_model_digest")
"""What all groups say alike: the base model is loaded once."""
PROGRESS_CONFIGMAP: Final = "PROGRESS_CONFIGMAP"
"""In the environment: where the only run tells its progress."""


def read_groups(
    arguments: Sequence[str], parser: Callable[[], argparse.ArgumentParser], *, command: Sequence[str] = ()
) -> list[argparse.Namespace]:
    """Parse each group by itself; `command` is put before each. Ends the process with status 2 and a sentence."""
    groups: list[list[str]] = [[]]
    for argument in arguments:
        if argument == SEPARATOR:
            groups.append([])
        else:
            groups[-1].append(argument)
    found = [parser().parse_args([*command, *group]) for group in groups]
    if len(found) > 1 and (fault := _fault(found)) is not None:
        parser().error(fault)
    return found


def _fault(groups: Sequence[argparse.Namespace]) -> str | None:
    """Return why these can't be runs of one process, as a sentence."""
    first = groups[0]
    for field in _SAME:
        for other in groups[1:]:
            mine, its = getattr(first, field), getattr(other, field)
            if mine != its:
                return (
                    f"the run {other.run} has --{field.replace('_', '-')} {its or 'not set'}, and {first.run} has "
                    f"{mine or 'not set'}: runs of one process share one base model. Give it a process of its own."
                )
    runs = Counter(each.run for each in groups)
    if twice := [run for run, count in runs.items() if count > 1]:
        return f"the run {twice[0]} is named twice."
    told = {each.progress_configmap or os.environ.get(PROGRESS_CONFIGMAP) for each in groups}
    if len(told) < len(groups) and told != {None}:
        return "each run tells its progress in a ConfigMap of its own: give each group another --progress-configmap."
    return None
