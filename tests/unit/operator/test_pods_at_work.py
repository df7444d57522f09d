"""What a pod's changes wake: runs and rounds read more of them than pools do, and reports count only with them."""

from __future__ import annotations

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import serving
from tests.unit.operator.samples import NAMESPACE
from twin_operator.domain.pool_facts import pod_facts
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.store import Entry
from twin_operator.kinds.triggers.table import woken
from twin_operator.kinds.watched import POOL_TASKS

KEY = Key("Pod", NAMESPACE, "r1-abcde")


def entry(label: str, owner: str, **status: object) -> Entry:
    manifest: Manifest = {
        "kind": "Pod",
        "metadata": {"name": KEY.name, "namespace": NAMESPACE, "uid": "u", "labels": {label: owner}},
        "status": {
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}],
            **status,
        },
    }
    return Entry(KEY, manifest, pod_facts(manifest))


@pytest.mark.parametrize(
    ("label", "kind"),
    [(names.LABEL_RUN, "FineTuneRun"), (names.LABEL_ROUND, "ValidatorRound"), (names.LABEL_VALIDATOR, "Validator")],
)
async def test_a_pod_that_begins_wakes_whom_it_works_for(label: str, kind: str) -> None:
    world = (await serving()).process.world
    before, after = (entry(label, "its-owner", phase=phase) for phase in ("Pending", "Running"))
    assert before.value == after.value, "pools read the same of it"
    assert Key(kind, NAMESPACE, "its-owner") in set(woken(world, before, after))


async def test_a_miners_report_that_was_seen_before_its_pod_is_looked_at_with_it() -> None:
    world = (await serving()).process.world
    assert Key(POOL_TASKS, NAMESPACE, "p") in set(woken(world, None, entry(names.LABEL_POOL, "p", phase="Running")))
