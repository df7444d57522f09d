"""What an engine Deployment that runs needs to become the planned one, and what is applied while that waits."""

from __future__ import annotations

import copy
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.children.pods import IMAGES, NOW, built, computing, containers, pod_of
from tests.unit.operator.samples import pool, pool_object
from twin_operator.domain.objects import Pool, pool_from
from twin_operator.domain.pool_update import Pace, Rollout, Stage
from twin_operator.domain.reasons import Reason
from twin_operator.domain.tuning import DWELL, Needs, tuning_finding, tuning_status
from twin_operator.kinds.miner_pool.children import Children, rollout_of
from twin_operator.kinds.miner_pool.engine_update import CAUSE_ANNOTATION, IMAGES_ANNOTATION
from twin_operator.settings import Images

NEWER = Images(neuron="n:2", engine_cpu="c:2", engine_gpu="g:2")
CLOSED = {"schedule": "0 2 * * 0", "seconds": 3600}
BUSY = Rollout(namespace="clinic", name="a", stage=Stage.ROLLING)


def deployment(children: Children, component: str = "engine") -> dict[str, Any]:
    [found] = [
        child
        for child in children.manifests
        if child["kind"] == "Deployment" and child["metadata"]["name"].endswith(component)
    ]
    return found


def image(of: dict[str, Any]) -> str:
    return str(pod_of(of)["containers"][0]["image"])


def running(of: dict[str, Any], *, complete: bool = True, ready: int | None = None) -> dict[str, Any]:
    """Return the applied Deployment as the API server and its controller would hand it out: with defaults, a status.

    `ready`: how many of its pods are, if not all; the others ceased to be half an hour ago.
    """
    live = copy.deepcopy(of)
    live["metadata"]["generation"] = 3
    live["spec"]["template"]["metadata"]["creationTimestamp"] = None
    pod_of(live).update({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"})
    wanted = live["spec"]["replicas"]
    ready = wanted if ready is None else ready
    live["status"] = {
        "observedGeneration": 3, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready,
        "conditions": [
            {
                "type": "Available", "status": str(ready >= wanted),
                "lastTransitionTime": "2026-01-05T11:30:00Z" if ready < wanted else "2026-01-05T10:00:00Z",
            },
            {
                "type": "Progressing", "status": "True", "lastUpdateTime": "2026-01-05T11:00:00Z",
                "reason": "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
            }
        ],
    }  # fmt: skip
    return live


def first(**spec: Any) -> dict[str, Any]:
    return running(deployment(built(spec=spec)))


def busy() -> Collection[Rollout]:
    return [BUSY]


def test_the_first_engines_are_never_held() -> None:
    made = built(spec={"engine": {"updateStrategy": {"maintenanceWindow": CLOSED}}}, others=busy)
    assert made.held is None
    assert image(deployment(made)) == "g:1"


def test_nothing_waits_and_nobody_is_asked_when_nothing_changed() -> None:
    asked = built(engine=first(), others=lambda: pytest.fail("asked"))
    assert asked.held is None


def test_a_closed_window_keeps_the_pods_and_lets_the_rest_through() -> None:
    live = first()
    spec = {
        "engine": {"device": "CPU", "image": "own:2", "updateStrategy": {"maintenanceWindow": CLOSED}},
        "replicas": 3,
    }
    made = built(spec=spec, engine=live)
    assert made.held is not None
    assert made.held.reason == Reason.AWAITING_MAINTENANCE_WINDOW
    kept = deployment(made)
    assert kept["spec"]["replicas"] == 3
    assert pod_of(kept) == pod_of(live)
    assert "creationTimestamp" not in kept["spec"]["template"]["metadata"]
    # While it waits, the Deployment that runs is planned the same again: no writes.
    assert deployment(built(spec=spec, engine=running(kept))) == kept


def test_what_waited_for_its_window_comes_when_it_opens() -> None:
    spec = {"engine": {"device": "CPU", "image": "own:2", "updateStrategy": {"maintenanceWindow": CLOSED}}}
    kept = deployment(built(spec=spec, engine=first()))
    sunday = NOW + timedelta(days=6, hours=-10)
    made = built(spec=spec, engine=running(kept), now=sunday)
    assert made.held is None
    assert image(deployment(made)) == "own:2"


def test_another_releases_images_wait_their_turn() -> None:
    live = first()
    held = built(engine=live, images=NEWER, others=busy)
    assert held.held is not None
    assert held.held.reason == Reason.UPDATE_HELD
    assert "clinic/a" in held.held.message
    assert image(deployment(held)) == "c:1"
    gone = built(engine=live, images=NEWER)
    assert gone.held is None
    assert image(deployment(gone)) == "c:2"


def test_a_pools_own_change_goes_at_once() -> None:
    assert built(engine=first(), spec={"drainSeconds": 99}, others=busy).held is None
    assert built(engine=first(), spec={"drainSeconds": 99}, images=NEWER, others=busy).held is None


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3}, {"autoscaling": {"max": 4}}, {"miner": {"replicas": 3}}, {"disruption": {"maxUnavailable": 2}},
        {"engine": {"device": "CPU", "maxLoras": 4, "updateStrategy": {"maxUnavailable": 1}}},
    ],
)  # fmt: skip
def test_what_no_engine_is_made_from_does_not_let_another_releases_images_through(spec: dict[str, Any]) -> None:
    assert built(engine=first(), spec=spec, images=NEWER, others=busy).held is not None


def test_a_default_written_out_is_no_change() -> None:
    spec = {"drainSeconds": 60, "miner": {}}
    assert built(engine=first(), spec=spec, images=NEWER, others=busy).held is not None


def test_a_deployment_of_a_release_that_left_no_marks_waits_its_turn_too() -> None:
    live = first()
    del live["metadata"]["annotations"]
    assert built(engine=live, others=lambda: pytest.fail("asked")).held is None
    assert built(engine=live, images=NEWER, others=busy).held is not None


def stage(live: dict[str, Any] | None, images: Images = IMAGES, **spec: Any) -> Rollout:
    return rollout_of(pool(**spec), images, needs=Needs(), engine=live, now=NOW)


def test_others_see_how_far_a_pool_is() -> None:
    live = first()
    assert stage(None).stage is Stage.SETTLED
    assert stage(live) == Rollout(namespace="clinic", name="p", stage=Stage.SETTLED)
    assert stage(live, NEWER).stage is Stage.WAITING
    applied = deployment(built(engine=live, images=NEWER))
    assert stage(running(applied, complete=False), NEWER).stage is Stage.ROLLING
    done = stage(running(applied), NEWER)
    assert (done.stage, done.finished) == (Stage.SETTLED, NOW - timedelta(hours=1))


def test_a_pool_whose_window_is_closed_keeps_nobody_waiting() -> None:
    window = {"engine": {"device": "CPU", "maxLoras": 4, "updateStrategy": {"maintenanceWindow": CLOSED}}}
    assert stage(first(), NEWER, **window).stage is Stage.SETTLED


@pytest.mark.parametrize(
    "change",
    [{"observedGeneration": 2}, {"updatedReplicas": 0}, {"replicas": 2}, {"conditions": []}],
    ids=str,
)
def test_a_rollout_that_is_not_over_is_seen_as_such(change: dict[str, Any]) -> None:
    applied = running(deployment(built(engine=first(), images=NEWER)))
    applied["status"] |= change
    assert stage(applied, NEWER).stage is Stage.ROLLING


def test_a_change_of_its_own_takes_a_pool_out_of_the_row_once_the_release_is_proven_on_it() -> None:
    applied = running(deployment(built(engine=first(), images=NEWER)))
    own = running(deployment(built(engine=applied, images=NEWER, spec={"drainSeconds": 9})), complete=False)
    assert stage(own, NEWER, drainSeconds=9).stage is Stage.SETTLED


@pytest.mark.parametrize(
    ("after", "fields"),
    [(timedelta(0), {"complete": False}), (timedelta(0), {"ready": 0}), (timedelta(minutes=-59, seconds=-30), {})],
    ids=["its pods never came up", "its pods broke soon after", "it runs with it for half a minute"],
)
def test_a_change_of_its_own_leaves_a_pool_in_the_row_until_the_release_is_proven_on_it(
    after: timedelta, fields: dict[str, Any]
) -> None:
    now, pace = NOW + after, Pace(delay_seconds=3000)
    applied = running(deployment(built(engine=first(), images=NEWER)), **fields)
    edit = {"nodeSelector": {"disk": "fast"}}
    own = running(deployment(built(engine=applied, images=NEWER, spec=edit, now=now, pace=pace)), complete=False)
    assert stage(own, NEWER, **edit).stage is Stage.ROLLING
    held = built(engine=first(), images=NEWER, others=lambda: [stage(own, NEWER, **edit)], of=pool("z"))
    assert held.held is not None


def test_a_change_of_its_own_that_brings_another_releases_images_along_lets_no_other_follow_either() -> None:
    own = running(deployment(built(engine=first(), images=NEWER, spec={"drainSeconds": 9})), complete=False)
    assert stage(own, NEWER, drainSeconds=9).stage is Stage.ROLLING


def test_a_change_of_its_own_that_never_comes_up_keeps_nobody_from_a_release() -> None:
    edits: list[dict[str, Any]] = [
        {"nodeSelector": {"disk": "none"}}, {"engine": {"device": "CPU", "maxLoras": 4, "image": "own:bad"}},
    ]  # fmt: skip
    for spec in edits:
        own = running(deployment(built(engine=first(), spec=spec)), complete=False)
        assert stage(own, **spec).stage is Stage.SETTLED


def test_others_see_since_when_a_pools_engines_are_broken() -> None:
    applied = running(deployment(built(engine=first(), images=NEWER)), ready=0)
    seen = stage(applied, NEWER)
    assert (seen.stage, seen.down, seen.broke) == (Stage.SETTLED, True, NOW - timedelta(minutes=30))
    assert seen.finished == NOW - timedelta(hours=1)


def test_engines_that_are_ready_again_prove_themselves_anew() -> None:
    applied = running(deployment(built(engine=first(), images=NEWER)))
    applied["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-05T11:59:50Z"
    seen = stage(applied, NEWER)
    assert (seen.down, seen.finished) == (False, NOW - timedelta(seconds=10))


def test_a_pool_that_was_scaled_beyond_its_quota_holds_no_release_for_ever() -> None:
    applied = running(deployment(built(engine=first(), images=NEWER)))
    applied["spec"]["replicas"] = 3
    assert stage(applied, NEWER).stage is Stage.SETTLED


def test_a_pool_that_cant_be_changed_keeps_nobody_waiting() -> None:
    blocked = rollout_of(pool(), NEWER, needs=Needs(), engine=first(), now=NOW, blocked=True)
    assert blocked.stage is Stage.SETTLED


WINDOWED: dict[str, Any] = {
    "engine": {"device": "CPU", "maxLoras": 4, "image": "own:bad", "updateStrategy": {"maintenanceWindow": CLOSED}}
}
MENDED = {"engine": {**WINDOWED["engine"], "image": "own:good"}}


@pytest.mark.parametrize("fields", [{"complete": False, "ready": 0}, {"complete": False}, {"ready": 0}], ids=str)
def test_what_mends_engines_waits_for_no_window(fields: dict[str, Any]) -> None:
    live = running(deployment(built(spec=WINDOWED)), **fields)
    made = built(spec=MENDED, engine=live)
    assert made.held is None
    assert image(deployment(made)) == "own:good"


@pytest.mark.parametrize("change", ["scaled", "paused", "one of two is not ready"])
def test_what_only_looks_like_a_replacement_opens_no_window(change: str) -> None:
    live = running(deployment(built(spec={**WINDOWED, "replicas": 2})), ready=1 if change.startswith("one") else None)
    if change == "scaled":  # its controller hasn't seen that yet, or can't create the third
        live["metadata"]["generation"] += 1
        live["spec"]["replicas"] = 3
    if change == "paused":
        live["status"]["conditions"][1]["reason"] = "DeploymentPaused"
    assert built(spec={**MENDED, "replicas": 2}, engine=live).held is not None


def test_pods_of_the_release_before_wait_for_their_turn_but_for_no_window() -> None:
    spec: dict[str, Any] = {"engine": {"device": "CPU", "maxLoras": 4, "updateStrategy": {"maintenanceWindow": CLOSED}}}
    live = running(deployment(built(spec=spec)))
    del live["metadata"]["annotations"]
    waits = built(spec=spec, engine=live, images=NEWER, legacy=True, others=busy)
    assert waits.held is not None
    assert waits.held.reason == Reason.UPDATE_HELD
    kept = deployment(waits)
    assert pod_of(kept) == pod_of(live)
    # Looked at again it still waits: nothing was written that says its pods were made from what it waits for.
    assert built(spec=spec, engine=running(kept), images=NEWER, legacy=True, others=busy).held is not None
    assert built(spec=spec, engine=running(kept), images=NEWER, legacy=True).held is None
    others_see = rollout_of(pool(**spec), NEWER, needs=Needs(), engine=live, now=NOW, legacy=True)
    assert others_see.stage is Stage.WAITING


# -- engines that lack something that their adapters need

HOLDS = Needs(adapters=40, twins=40, rank=16)
AUTO: dict[str, Any] = {"engine": {"device": "GPU"}}
SHORT_FOR_LONG = {"shortSince": "2026-01-05T11:45:00Z"}


def slots(of: dict[str, Any]) -> str:
    return next(each for each in containers(pod_of(of))["engine"]["args"] if each.startswith("--max-loras"))


def remembers(made: Children, **more: Any) -> Pool:
    """Return the pool as its status remembers what was decided, with `more` in it."""
    assert made.tuning is not None
    told = tuning_status(made.tuning, said="…").to_dict() | more
    found = pool_from({**pool_object("p", **AUTO), "status": {"tuning": told}})
    assert isinstance(found, Pool)
    return found


def test_engines_that_lack_slots_stay_until_that_has_lasted() -> None:
    live = first(**AUTO)
    made = built(engine=live, needs=HOLDS, spec=AUTO)
    assert deployment(made)["spec"] == deployment(built(spec=AUTO))["spec"]
    assert made.tuning is not None
    assert made.tuning.due == NOW + DWELL
    later = built(engine=live, needs=HOLDS, of=remembers(made), now=NOW + DWELL)
    assert slots(deployment(later)) == "--max-loras=64"
    assert later.tuning is not None
    assert later.tuning.memory.restarted == NOW + DWELL


def test_such_a_restart_takes_its_turn_and_its_window_and_is_none_until_it_comes() -> None:
    live = first(**AUTO)
    of = remembers(built(engine=live, spec=AUTO), **SHORT_FOR_LONG)
    waits = built(engine=live, needs=HOLDS, of=of, others=busy)
    assert slots(deployment(waits)) == "--max-loras=8"
    assert waits.held is not None
    assert waits.held.reason == Reason.UPDATE_HELD
    assert waits.tuning is not None
    assert waits.tuning.memory.restarted is None
    assert waits.tuning.tuning.max_loras == 8  # as it runs
    found, fits = tuning_finding(waits.tuning, held=waits.held.message)
    assert not fits
    assert "the restart waits: the operator's update of the engines waits for MinerPool clinic/a" in found.message


def test_engines_of_which_none_is_ready_take_it_at_once() -> None:
    starting = running(deployment(built(spec=AUTO)), ready=0)
    made = built(engine=starting, needs=HOLDS, spec=AUTO)
    assert slots(deployment(made)) == "--max-loras=64"
    assert made.tuning is not None
    assert made.tuning.memory.restarted is None


def test_a_replacement_for_another_reason_takes_along_what_fits_better() -> None:
    made = built(engine=first(**AUTO), needs=HOLDS, spec={**AUTO, "drainSeconds": 9})
    assert slots(deployment(made)) == "--max-loras=64"
    assert made.tuning is not None
    assert not made.tuning.restarts


def test_engines_that_end_while_they_come_up_get_fewer_slots() -> None:
    at_first = deployment(built(needs=HOLDS, spec=AUTO))
    assert slots(at_first) == "--max-loras=64"
    made = built(engine=running(at_first, complete=False, ready=0), needs=HOLDS, crashing=True, spec=AUTO)
    assert slots(deployment(made)) == "--max-loras=32"


def test_engines_that_ended_later_keep_their_slots() -> None:
    made = built(
        engine=running(deployment(built(needs=HOLDS, spec=AUTO)), ready=0), needs=HOLDS, crashing=True, spec=AUTO
    )
    assert slots(deployment(made)) == "--max-loras=64"


def test_another_releases_miners_come_after_its_engines() -> None:
    before = built()
    engine, miner = running(deployment(before)), running(deployment(before, "miner"))
    waiting = built(engine=engine, miner=miner, images=NEWER, others=busy)
    assert image(deployment(waiting, "miner")) == "n:1"
    started = built(engine=engine, miner=miner, images=NEWER)
    assert image(deployment(started, "miner")) == "n:1"
    rolling = running(deployment(started), complete=False)
    assert image(deployment(built(engine=rolling, miner=miner, images=NEWER), "miner")) == "n:1"
    assert image(deployment(built(engine=running(rolling), miner=miner, images=NEWER), "miner")) == "n:2"


def test_a_miners_own_change_goes_at_once() -> None:
    before = built()
    engine, miner = running(deployment(before), complete=False), running(deployment(before, "miner"))
    own = {"limits": {"memory": "1Gi"}}
    made = deployment(built(engine=engine, miner=miner, spec={"miner": {"resources": own}}), "miner")
    assert computing(pod_of(made)["containers"][0]) == own


def test_the_pace_is_the_operators() -> None:
    assert built(engine=first(), images=NEWER, others=busy, pace=Pace(pools=2)).held is None


def pulled_from_a_mirror(live: dict[str, Any]) -> dict[str, Any]:
    """Return the Deployment as a webhook leaves it that lets pods pull their images from elsewhere."""
    for each in [*pod_of(live).get("initContainers", []), *pod_of(live)["containers"]]:
        each["image"] = f"mirror/{each['image']}"
    return live


def test_a_webhook_that_rewrites_images_holds_no_miner_back() -> None:
    """The engines are on their way to a spec of the pool's own; the miner's image is what it was."""
    first = built()
    miner = pulled_from_a_mirror(running(deployment(first, "miner")))
    engine = pulled_from_a_mirror(running(deployment(first), complete=False))
    spec = {"miner": {"resources": {"requests": {"cpu": "2"}}}}
    found = deployment(built(spec=spec, engine=engine, miner=miner), "miner")
    assert containers(pod_of(found)) == containers(pod_of(deployment(built(spec=spec), "miner")))


def test_a_webhook_that_rewrites_images_makes_no_pools_change_the_operators() -> None:
    """The pool's own change brings no image, so no other pool waits for it to prove one."""
    engine = pulled_from_a_mirror(running(deployment(built())))
    update = deployment(built(spec={"engine": {"device": "CPU", "maxLoras": 4, "args": ["--seed=1"]}}, engine=engine))
    assert update["metadata"]["annotations"][CAUSE_ANNOTATION] == "Pool"


@pytest.mark.parametrize("said", ["", "[1]", "{", '{"miner": "n:1"}'])
def test_what_somebody_wrote_over_the_images_stops_nothing(said: str) -> None:
    engine, miner = running(deployment(built())), running(deployment(built(), "miner"))
    for live in (engine, miner):
        live["metadata"]["annotations"][IMAGES_ANNOTATION] = said
    assert built(images=NEWER, engine=engine, miner=miner).manifests


@pytest.mark.parametrize(
    ("changed", "most"),
    [
        ({"replicas": 3}, 32),
        ({"replicas": 3, "autoscaling": {"mode": "External", "min": 1, "max": 9}}, 32),
        ({"engine": {**AUTO["engine"], "args": ["--gpu-memory-utilization=0.8"]}}, None),
        ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, None),
    ],
)
def test_how_many_slots_were_too_many_is_forgotten_when_what_engines_are_made_of_changes(
    changed: dict[str, Any], most: int | None
) -> None:
    """And not whenever somebody scales the pool: else its engines were tried with too many again each day."""
    fewer = Needs(adapters=20, twins=20, rank=16)
    live = running(deployment(built(needs=fewer, spec=AUTO)))
    told = {"running": {"maxLoras": 32, "maxCpuLoras": 64, "maxLoraRank": 16, "loraTargets": "AllLinear",
                        "specializeActiveLora": True},
            "mostLoras": 32, "mostLorasGeneration": 1}  # fmt: skip
    of = pool_from({**pool_object("p", generation=2, **{**AUTO, **changed}), "status": {"tuning": told}})
    assert isinstance(of, Pool)
    made = built(of=of, engine=live, needs=HOLDS)
    assert made.tuning is not None
    assert made.tuning.memory.most_slots == most
    assert made.tuning.wanted.max_loras == (32 if most else 64)
    assert made.tuning.memory.most_slots_generation == (2 if most else None)
