"""A twin's status, as a pure function of what was gathered and of the status before, which is its memory."""

from __future__ import annotations

from pydantic import BaseModel

from bettertherapy_api.doctor_twin import MAX_OBSTACLE, VersionStatus
from bettertherapy_api.routing import Adapter, Version
from twin_operator.domain.examined import compared, remembered
from twin_operator.domain.rollout import Rollout
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.domain.versions import known_versions
from twin_operator.engine.conditions import Finding, shortened
from twin_operator.engine.resources import Manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, last_gate


def plan_status(
    view: TwinView,
    *,
    now: str,
    fine_tunes: FineTunePlan | None = None,
    rollout: Rollout | None = None,
) -> Manifest:
    """Return the status without conditions; `now` dates a version that begins to answer."""
    twin, before = view.twin, view.twin.status
    active = _active(view)
    previous = before.previous_version
    history = list(before.history or [])
    if active is None:
        shown = before.active_version  # it will answer again: nothing has replaced it
    elif before.active_version is not None and _same(active, before.active_version):
        shown = before.active_version
    else:
        shown = active.model_copy(update={"since": now})
        if before.active_version is not None:
            previous = _ended(before.active_version, active, rollout or Rollout.of(twin), now)
            history = [previous, *(version for version in history if not _same(version, previous))]
            history = [version for version in history if not _same(version, shown)]
    desired, loaded, verified = view.counts()
    return {
        "observedGeneration": twin.generation,
        "activeVersion": _document(shown),
        "previousVersion": _document(previous),
        "pods": {"desired": desired, "loaded": loaded, "verified": verified, "summary": f"{verified}/{desired}"},
        "pools": _serving_pools(view) or None,
        **_rollout_status(rollout or Rollout.of(twin)),
        **_fine_tune_status(view, fine_tunes or FineTunePlan()),
        "history": [_document(version) for version in history[: twin.spec.history_limit]] or None,
    }


def _rollout_status(rollout: Rollout) -> Manifest:
    return {
        "promotedVersion": _document(rollout.promoted),
        "anchorVersion": _document(rollout.anchor),
        "specDigest": rollout.spec_digest,
        "canaryVersion": _document(rollout.canary),
        "canaryWeightPercent": rollout.weight,
        "canaryStep": rollout.step,
        "canaryStepTime": rollout.step_time,
        "canaryStartTime": rollout.start_time,
        "pendingVersion": _document(rollout.pending),
        "refusedVersions": [_document(each) for each in rollout.refused] or None,
        "lastRollback": _document(rollout.last_rollback),
        "handledRollback": rollout.handled_rollback,
    }


def _fine_tune_status(view: TwinView, planned: FineTunePlan) -> Manifest:
    gate, ended = last_gate(view.twin, view.runs)
    return {
        "lastGate": gate.model_dump(mode="json", by_alias=True, exclude_none=True) if gate else None,
        "compared": [_document(each) for each in compared(view.twin, view.runs)] or None,
        "examined": [_document(each) for each in remembered(view.twin, view.runs)] or None,
        "lastFineTuneTime": ended,
        "nextFineTuneTime": timestamp(planned.next_time) if planned.next_time else None,
        "fineTuneObstacle": _obstacle(planned.obstacle),
        "handledFineTune": planned.handled_token,
    }


def _obstacle(found: Finding | None) -> Manifest | None:
    if found is None:
        return None
    return {"reason": found.reason.value, "message": shortened(found.message, MAX_OBSTACLE)}


def _serving_pools(view: TwinView) -> list[str]:
    """Return the pools that answer for the twin. One that has lost its entry did, and makes it anew from this."""
    answer = (each for each in view.pools if each.answering(view.twin) is not None or _remembered(view, each))
    return sorted(each.pool.name for each in answer)


def _remembered(view: TwinView, pool: PoolView) -> bool:
    """Tell whether a pool answered for the twin and nothing that can be read says otherwise."""
    if pool.entry_unreadable:
        return pool.pool.name in (view.twin.status.pools or ())
    return _lost(view, pool)


def _lost(view: TwinView, pool: PoolView) -> bool:
    """Tell whether a pool answered for the twin and its entry is gone otherwise than by the operator's own doing."""
    if pool.entry is not None or pool.pool.name not in (view.twin.status.pools or ()):
        return False
    return not pool.published or pool.counts


def _active(view: TwinView) -> VersionStatus | None:
    """Return the version that answers: the wanted one once it does in every pool that counts, else the older one."""
    answering = [(pool, version) for pool in view.pools if (version := pool.answering(view.twin)) is not None]
    if not answering:
        return view.twin.status.active_version if any(_remembered(view, pool) for pool in view.pools) else None
    wanted = view.wanted.digest if view.wanted else None
    behind = [pair for pair in answering if pair[1].digest != wanted and pair[0].counts]
    pool, version = (behind or [pair for pair in answering if pair[1].digest == wanted] or answering)[0]
    return _version_status(view, version, pool.adapter(version.served_name))


def _version_status(view: TwinView, version: Version, adapter: Adapter | None) -> VersionStatus:
    told = known_versions(view.twin).get(version.digest)
    if told is not None and told.served_name == version.served_name:
        moved = {"uri": adapter.uri, "rank": adapter.rank} if adapter else {}
        return told.model_copy(update={**moved, "since": None, "until": None, "ended": None})
    return VersionStatus(
        digest=version.digest,
        served_name=version.served_name,
        uri=adapter.uri if adapter else None,
        rank=adapter.rank if adapter else None,
    )


def _ended(old: VersionStatus, new: VersionStatus, rollout: Rollout, now: str) -> VersionStatus:
    back = rollout.last_rollback
    taken_back = back is not None and (back.from_digest, back.to_digest) == (old.digest, new.digest)
    return old.model_copy(update={"until": now, "ended": "RolledBack" if taken_back else "Replaced"})


def _same(one: VersionStatus, other: VersionStatus) -> bool:
    return (one.digest, one.served_name) == (other.digest, other.served_name)


def _document(version: BaseModel | None) -> Manifest | None:
    return version.model_dump(mode="json", by_alias=True, exclude_none=True) if version else None
