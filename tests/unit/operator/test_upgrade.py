"""From the release before to this one: nobody is unanswered meanwhile, nothing is forgotten, the old objects go.

The objects were recorded from that release's own operator on a real API server: dr-a went from version a to d, dr-b has
a prompt in Nepali, and dr-c asks for a version that its pods refuse, so its former one answers.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.played import Played
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import Key, Manifest

RECORDED = Path(__file__).parent / "data" / "former_release.json"
OLD_PODS = ("e1", "e2")
ANSWERED = {"dr-a": "d", "dr-b": "b", "dr-c": "c"}
OLD_MAPS = [Key("ConfigMap", NAMESPACE, f"p-{name}") for name in ("routing", "report")]


def furnished() -> Played:
    """What the release before left, with its two engine pods and a miner running."""
    played = Played()
    for thing in json.loads(RECORDED.read_text()):
        thing["metadata"]["namespace"] = NAMESPACE
        if thing["kind"] == "MinerPool":
            thing["spec"] |= {"replicas": 2, "miner": {**thing["spec"]["miner"], "replicas": 1}}
        if thing["kind"] == "Deployment":
            count = 2 if thing["metadata"]["name"] == "p-engine" else 1
            thing["spec"]["replicas"] = count
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
            thing["status"] = {"observedGeneration": thing["metadata"]["generation"], **counts}
        made = played.api.put(thing)
        # Its operator applied them: what it stated goes when this one states it no more.
        played.api._applied[made["metadata"]["uid"], names.FIELD_MANAGER] = made
    return played


def old_maps(played: Played) -> dict[Key, Any]:
    return {key: played.api.objects[key]["data"] for key in OLD_MAPS if key in played.api.objects}


def active(played: Played, twin: str) -> str:
    return str(played.twin(twin)["status"]["activeVersion"]["digest"])


def deployment(played: Played, name: str) -> Manifest:
    return played.api.objects[Key("Deployment", NAMESPACE, name)]


async def test_what_the_former_pods_follow_stays_while_they_run() -> None:
    played = furnished()
    before = old_maps(played)
    assert len(before) == 2
    await played.lead()
    await played.settle()
    assert old_maps(played) == before
    for name in OLD_PODS:
        assert Key("Pod", NAMESPACE, name) in played.api.objects
    [role] = [each for each in played.api.kinds("Role").values() if each["metadata"]["name"] == "p-miner"]
    readable = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert {"configmaps", "routingslices"} <= readable


async def test_every_version_that_answered_is_published_to_the_new_pods_at_once() -> None:
    played = furnished()
    await played.lead()
    await played.settle()
    for twin, letter in ANSWERED.items():
        assert played.answering(twin) == [(digest(letter), 100)]
        assert active(played, twin) == digest(letter)
    assert played.twin("dr-a")["status"]["previousVersion"]["digest"] == digest("a")
    slices = played.api.kinds("RoutingSlice").values()
    [prompt] = [text for each in slices for text in (each.get("prompts") or {}).values()]
    assert prompt == played.twin("dr-b")["spec"]["systemPrompt"]


async def test_new_pods_take_over_and_the_old_objects_go() -> None:
    played = furnished()
    await played.lead()
    await played.settle()
    cast = Cast(played.api, {})
    for step in range(40):
        assert old_maps(played) or not any(Key("Pod", NAMESPACE, name) in played.api.objects for name in OLD_PODS)
        cast.act()
        if step == 0:  # the Deployment's status counts the old ones no more: they have gone
            for name in OLD_PODS:
                played.api.drop(Key("Pod", NAMESPACE, name))
        await played.settle()
        for twin in ANSWERED:
            assert sum(weight for _, weight in played.answering(twin)) == 100
    for each in ("p-engine", "p-miner"):
        assert names.CONTRACT_ANNOTATION in deployment(played, each)["spec"]["template"]["metadata"]["annotations"]
    assert not old_maps(played)
    assert not played.problems
    for twin in ("dr-a", "dr-b"):
        assert active(played, twin) == digest(ANSWERED[twin])
        assert played.condition("Ready", played.twin(twin))[0] == "True"


def named(thing: Any, pool: str) -> Any:
    """Return the thing with the pool's name in place of p."""
    return json.loads(json.dumps(thing).replace('"p"', f'"{pool}"').replace('"p-', f'"{pool}-'))


async def test_pools_of_that_release_are_upgraded_one_after_another() -> None:
    played = furnished()
    for key, thing in list(played.api.objects.items()):
        if key.kind in ("MinerPool", "Deployment", "ConfigMap"):
            other = named(copy.deepcopy(thing), "q")
            other["metadata"] = {k: v for k, v in other["metadata"].items() if k not in ("uid", "resourceVersion")}
            if key.kind == "MinerPool":
                other["metadata"]["uid"] = "uid-q"
            for reference in other["metadata"].get("ownerReferences") or []:
                reference["uid"] = "uid-q"
            played.api.put(other)
    before = copy.deepcopy(deployment(played, "q-engine")["spec"]["template"])
    for _ in range(3):
        await played.lead()
        await played.settle()
    new = {pool: names.CONTRACT_ANNOTATION in template_annotations(played, f"{pool}-engine") for pool in "pq"}
    assert new == {"p": True, "q": False}
    assert deployment(played, "q-engine")["spec"]["template"] == before
    assert played.condition("Updated", played.pool("q"))[1] == "UpdateHeld"
    assert {f"q-{name}" for name in ("routing", "report")} <= played.api.kinds("ConfigMap").keys()


def template_annotations(played: Played, name: str) -> Manifest:
    found: Manifest = deployment(played, name)["spec"]["template"]["metadata"].get("annotations") or {}
    return found
