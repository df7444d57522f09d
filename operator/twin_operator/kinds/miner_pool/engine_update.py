"""What an engine Deployment that runs says of the update it needs, and the Deployment to apply while that waits.

The Deployment carries what its pods were last made from: a hash of the pod template as planned, a hash of what the
pool's own spec has in it, and the cause of the change (the operator's until such a change is proven, whatever comes on
top of it). Comparing the planned template with the live one would not do: the API server fills in defaults.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_update import Cause, Rollout, Stage, window_held
from twin_operator.engine.compare import first_difference
from twin_operator.engine.resources import Manifest

TEMPLATE_ANNOTATION: Final = f"{names.GROUP}/template"
SPEC_ANNOTATION: Final = f"{names.GROUP}/pool-spec"
CAUSE_ANNOTATION: Final = f"{names.GROUP}/update-cause"
IMAGES_ANNOTATION: Final = f"{names.GROUP}/images"
"""The containers' images as planned: a webhook may have pods pull them from elsewhere."""
_COMPLETE: Final = "NewReplicaSetAvailable"
_PAUSES: Final = ("DeploymentPaused", "DeploymentResumed")
"""What the controller says of a Deployment that somebody paused, whether or not its pods are the newest."""
_NOT_IN_PODS: Final[dict[str, Any]] = {
    "replicas": True,
    "autoscaling": True,
    "disruption": True,
    "fine_tune": True,
    "engine": {"update_strategy"},
    "miner": {
        "replicas", "netuid", "chain", "wallet_secret_ref", "external_address", "candidates", "latency_budget_seconds",
        "access_secret_ref", "resources", "pod", "limits",
    },
}  # fmt: skip
"""Fields of a pool's spec that no engine pod is made from."""


@dataclass(frozen=True, kw_only=True)
class EngineUpdate:
    """How the Deployment that runs differs from the planned one."""

    pending: bool
    """Its pods aren't made from the planned template."""
    cause: Cause
    """What the pending change comes from, or the last one when none is pending."""
    brings_images: bool
    """The pending change gives the pods an image of the operator's that they don't run, whatever caused it."""
    complete: bool
    """All its pods are made from the planned template."""
    any_time: bool
    """No engine is ready, or a replacement is under way: the maintenance window has nothing to protect."""
    rollout: Rollout


def with_images_told(deployment: Manifest) -> Manifest:
    """Return the planned Deployment with an annotation that tells its images."""
    metadata = deployment["metadata"]
    told = {IMAGES_ANNOTATION: orjson.dumps(_pod_images(deployment), option=orjson.OPT_SORT_KEYS).decode()}
    return {**deployment, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **told}}}


def stamp(deployment: Manifest, pool: Pool, *, cause: Cause) -> Manifest:
    """Return the planned Deployment with the annotations that say what its pods are made from."""
    metadata = deployment["metadata"]
    annotations = {
        **(metadata.get("annotations") or {}),
        TEMPLATE_ANNOTATION: _hash(deployment["spec"]["template"]),
        SPEC_ANNOTATION: spec_hash(pool),
        CAUSE_ANNOTATION: cause.value,
    }
    return {**deployment, "metadata": {**metadata, "annotations": annotations}}


def engine_update(
    planned: Manifest, live: Manifest | None, pool: Pool, *, now: datetime, legacy: bool = False, blocked: bool = False
) -> EngineUpdate:
    """Return what the live Deployment needs to become the planned one (neither is changed). `now` is in UTC.

    `legacy`: its pods are of the release before, which waits for no window. `blocked`: the API server doesn't let the
    Deployment be changed, so that nobody need wait for its turn.
    """
    said = ((live or {}).get("metadata") or {}).get("annotations") or {}
    pending = live is not None and _differs(planned, live, said.get(TEMPLATE_ANNOTATION))
    if live is None or (pending and said.get(SPEC_ANNOTATION) not in (None, spec_hash(pool))):
        cause = Cause.POOL
    elif pending:
        cause = Cause.OPERATOR  # a Deployment without our annotations was made by an earlier release
    else:
        cause = Cause(said[CAUSE_ANNOTATION]) if said.get(CAUSE_ANNOTATION) in set(Cause) else Cause.POOL
    seen = _seen(live)
    waits = pending and cause is Cause.OPERATOR and not blocked
    rollout = Rollout(namespace=pool.namespace, name=pool.name, stage=Stage.SETTLED)
    if live is not None and said.get(CAUSE_ANNOTATION) == Cause.OPERATOR:
        rollout = replace(
            rollout, stage=Stage.ROLLING if seen.complete_since is None else Stage.SETTLED, begun=seen.replacing,
            finished=seen.good_since, down=seen.down, broke=seen.broke,
        )  # fmt: skip
    any_time = seen.replacing or not seen.ready
    if waits and rollout.stage is Stage.SETTLED:
        strategy = pool.spec.engine.update_strategy
        if legacy or any_time or window_held(strategy, now) is None:
            rollout = replace(rollout, stage=Stage.WAITING)
    return EngineUpdate(
        pending=pending, cause=cause, any_time=any_time, rollout=rollout,
        brings_images=live is not None and pending and bool(_images(planned) - _images(live) - _own_images(pool)),
        complete=live is not None and not pending and seen.complete_since is not None,
    )  # fmt: skip


def is_unready(live: Manifest | None) -> bool:
    """Tell whether none of its engines is ready, or a replacement of them is under way: a restart takes nothing."""
    seen = _seen(live)
    return seen.replacing or not seen.ready


def is_as_asked(live: Manifest | None, pool: Pool) -> bool:
    """Tell whether its pods were made from what the pool's own spec says of them now."""
    said = ((live or {}).get("metadata") or {}).get("annotations") or {}
    return said.get(SPEC_ANNOTATION) == spec_hash(pool)


def is_coming_up(live: Manifest | None) -> bool:
    """Tell whether its newest pods have not all been there yet."""
    return _seen(live).complete_since is None


def held_back(planned: Manifest, live: Manifest) -> Manifest:
    """Return the Deployment to apply while its update waits: the pods as they are, all else as planned.

    The live template is stated with the defaults that the API server put in; they go when the update comes, and are
    put in anew.
    """
    template = copy.deepcopy(live["spec"]["template"])
    template.get("metadata", {}).pop("creationTimestamp", None)
    said = live["metadata"].get("annotations") or {}
    own = {TEMPLATE_ANNOTATION, SPEC_ANNOTATION, CAUSE_ANNOTATION, IMAGES_ANNOTATION}
    metadata = {key: value for key, value in planned["metadata"].items() if key != "annotations"}
    annotations = {
        key: value for key, value in (planned["metadata"].get("annotations") or {}).items() if key not in own
    }
    annotations |= {key: value for key, value in said.items() if key in own}
    return {
        **planned,
        "metadata": {**metadata, **({"annotations": annotations} if annotations else {})},
        "spec": {**planned["spec"], "template": template},
    }


def spec_hash(pool: Pool) -> str:
    """Return a hash of what engine pods have from the pool's own spec.

    Defaults are left out, so that a release that knows more fields finds the same hash. An empty part counts, since
    `cache: {}` is another wish than none; but not one of which all that is set is none of the pods' business.
    """
    said = pool.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_IN_PODS)
    return _hash({field: value for field, value in said.items() if value != {} or field not in _NOT_IN_PODS})


def _differs(planned: Manifest, live: Manifest, said: str | None) -> bool:
    template = planned["spec"]["template"]
    if said is None:
        return first_difference(template, live["spec"]["template"]) is not None
    return said != _hash(template)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a Deployment's status says of its pods."""

    ready: int = 0
    complete_since: datetime | None = None
    """When its newest pods were all there, or None while they aren't yet."""
    good_since: datetime | None = None
    """The same, or a later time since which enough of them are ready again."""
    replacing: bool = False
    """Its controller says that it is on its way to the newest pods, which scaling alone never makes it say."""
    down: bool = False
    broke: datetime | None = None


def _seen(live: Manifest | None) -> _Seen:
    if live is None:
        return _Seen()
    status = live.get("status") or {}
    wanted, updated, ready = (
        int(counts.get(name) or 0)
        for counts, name in ((live["spec"], "replicas"), (status, "updatedReplicas"), (status, "readyReplicas"))
    )
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    progress, available = conditions.get("Progressing", {}), conditions.get("Available", {})
    replacing = bool(progress) and progress.get("reason") not in (_COMPLETE, *_PAUSES)
    observed = int(status.get("observedGeneration") or 0) >= int(live["metadata"].get("generation") or 0)
    # On the way back to pods of before the condition lags behind. Fewer than wanted is no sign of that: a pool that was
    # scaled beyond its quota has all that it gets.
    on_the_way = (updated == 0 and wanted > 0) or int(status.get("replicas") or 0) > updated
    if not observed or on_the_way or progress.get("reason") != _COMPLETE:
        return _Seen(ready=ready, replacing=replacing)
    complete, turned = _time(progress["lastUpdateTime"]), available.get("lastTransitionTime")
    up = available.get("status") == "True"
    return _Seen(
        ready=ready,
        complete_since=complete,
        good_since=max(complete, _time(turned)) if up and turned else complete,
        down=ready < wanted,
        broke=_time(turned) if not up and turned else None,
    )


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def images_of(deployment: Manifest) -> dict[str, str]:
    """Return the containers' images as they were planned, by the containers' names.

    Of a Deployment that doesn't tell (an earlier release made it), those that its pods have.
    """
    said = (deployment["metadata"].get("annotations") or {}).get(IMAGES_ANNOTATION)
    try:
        told = orjson.loads(said) if said is not None else None
    except orjson.JSONDecodeError:
        told = None  # somebody wrote over it
    return told if isinstance(told, dict) else _pod_images(deployment)


def _pod_images(deployment: Manifest) -> dict[str, str]:
    pod = deployment["spec"]["template"]["spec"]
    return {each["name"]: each["image"] for part in ("initContainers", "containers") for each in pod.get(part) or []}


def _images(deployment: Manifest) -> set[str]:
    return set(images_of(deployment).values())


def _own_images(pool: Pool) -> set[str | None]:
    return {pool.spec.engine.image, pool.spec.miner.image}


def _hash(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
