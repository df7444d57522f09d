"""Runs and rounds are woken by whatever becomes of their pods: they read more of them than pools do."""

from __future__ import annotations

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import serving
from tests.unit.operator.samples import NAMESPACE
from twin_operator.domain.pool_facts import pod_facts
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.store import Entry
from twin_operator.kinds.triggers.table import woken

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
