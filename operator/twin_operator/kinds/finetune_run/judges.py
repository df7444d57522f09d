"""Which judge a twin's gate names, and whether it may be asked, from the store alone."""

from __future__ import annotations

from twin_operator.domain.judge import Judge, judge_of
from twin_operator.domain.objects import Twin
from twin_operator.engine.conditions import Finding
from twin_operator.kinds.world import World


def judge_for(world: World, twin: Twin | None) -> Judge | Finding | None:
    """Return the judge that the twin's gate names, or why it may not be asked; None where the gate names none."""
    if twin is None:
        return None
    return judge_of(
        twin, pools=world.pools(twin.namespace), twin_named=lambda name: world.twin(twin.namespace, name)
    )  # fmt: skip
