"""What an engine Deployment that runs says of the update it needs, and the Deployment to apply while that waits.

The Deployment carries what its pods were last made from: a hash of the pod template as planned, a hash of what the
pool's own spec has in it, and the cause of the change. Comparing the planned template with the live one would not do:
the API server fills in defaults.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
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
_NOT_IN_PODS: Final[dict[str, Any]] = {
    "replicas": True,
    "autoscaling": True,
    "disruption": True,
    "fine_tune": True,
    "engine": {"update_strategy"},
    "miner": {
        "replicas", "netuid", "chain", "wallet_secret_ref", "external_address", "candidates", "latency_budget_seconds",
        "access_secret_ref", "resources", "pod",
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
    complete: bool
    """All its pods are made from the planned template."""
    rollout: Rollout


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


def engine_update(planned: Manifest, live: Manifest | None, pool: Pool, *, now: datetime) -> EngineUpdate:
    """Return what the live Deployment needs to become the planned one (neither is changed). `now` is in UTC."""
    said = ((live or {}).get("metadata") or {}).get("annotations") or {}
    pending = live is not None and _differs(planned, live, said.get(TEMPLATE_ANNOTATION))
    if live is None or (pending and said.get(SPEC_ANNOTATION) not in (None, spec_hash(pool))):
        cause = Cause.POOL
    elif pending:
        cause = Cause.OPERATOR  # a Deployment without our annotations was made by an earlier release
    else:
        cause = Cause(said[CAUSE_ANNOTATION]) if said.get(CAUSE_ANNOTATION) in set(Cause) else Cause.POOL
    by_operator = said.get(CAUSE_ANNOTATION) == Cause.OPERATOR
    finished = _finished(live) if live is not None else None
    stage = Stage.SETTLED
    if by_operator and finished is None and live is not None:
        stage = Stage.ROLLING
    elif pending and cause is Cause.OPERATOR and window_held(pool.spec.engine.update_strategy, now) is None:
        stage = Stage.WAITING
    return EngineUpdate(
        pending=pending,
        cause=cause,
        complete=live is not None and not pending and finished is not None,
        rollout=Rollout(
            namespace=pool.namespace, name=pool.name, stage=stage, finished=finished if by_operator else None
        ),
    )  # fmt: skip


def held_back(planned: Manifest, live: Manifest) -> Manifest:
    """Return the Deployment to apply while its update waits: the pods as they are, all else as planned.

    The live template is stated with the defaults that the API server put in; they go when the update comes, and are
    put in anew.
    """
    template = copy.deepcopy(live["spec"]["template"])
    template.get("metadata", {}).pop("creationTimestamp", None)
    said = live["metadata"].get("annotations") or {}
    own = {TEMPLATE_ANNOTATION, SPEC_ANNOTATION, CAUSE_ANNOTATION}
    metadata = planned["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in own}
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


def _finished(live: Manifest) -> datetime | None:
    """Return when the Deployment's newest pods were all there, or None while they aren't yet."""
    status = live.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(live["metadata"].get("generation") or 0):
        return None
    updated = int(status.get("updatedReplicas") or 0)
    if updated < int(live["spec"].get("replicas") or 0) or int(status.get("replicas") or 0) > updated:
        return None  # on the way back to pods of before the condition below lags behind
    for condition in status.get("conditions") or []:
        if condition["type"] == "Progressing" and condition.get("reason") == "NewReplicaSetAvailable":
            return datetime.strptime(condition["lastUpdateTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return None


def _hash(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
