"""Which adapters engine pods hold for a twin, and which version of it answers: one twin, one pool at a time.

A twin's wanted version takes over in one step (weight 0 → 100) when every ready engine pod that is to hold it reports
it Verified: all of them, or those that the twin is placed on. Pods that are not ready don't hold it up, since no
request reaches them; a ready pod on which it failed does. While nothing answers yet, one verified pod is enough: miners
send a twin only to pods that hold it. Until then the version that answers stays, in `adapters` and in `versions`. The
memory of which one that is are the twin's entry itself and, should it be lost, the twin's status.activeVersion; so a
restarted operator decides the same. An entry is its twin's by UID.

A version on trial (status.canaryVersion) is held beside it and takes status.canaryWeightPercent of the requests, at
first only once every ready pod that is to hold it has verified it, later where a pod still holds it. Taking the weight
away needs nothing.

A twin that moves to another pod is made there before it is broken here: the pods that it leaves are kept in its entry,
and hold it, until every ready pod that it moves to has verified what answers.

A twin that must not be served here as its spec asks (other base model, rank too high, selector doesn't match any more)
keeps its last version until another pool answers with the wanted one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import VersionStatus
from bettertherapy_api.report import AdapterState, PodReport
from bettertherapy_api.routing import (
    PODS_PER_TWIN,
    TWINS_PER_SLICE,
    Adapter,
    BaseModelRef,
    PoolHeader,
    TwinEntry,
    Version,
)
from twin_operator.domain.bounds import Bounds, adapter_out_of_bounds
from twin_operator.domain.objects import Pool, PoolRef, Twin, UnreadPool
from twin_operator.domain.reasons import Reason
from twin_operator.domain.versions import canary_version, wanted_version
from twin_operator.engine.conditions import Finding


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A twin that this pool serves or should serve."""

    twin: Twin
    refused: Finding | None = None
    """Why the pool can't serve it as its spec asks."""
    served_elsewhere: bool = False
    """Another pool answers with the wanted version."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """On which pods the plan has a twin."""

    pods: tuple[str, ...] | None
    """Their UIDs, the preferred one first. None: no plan was needed."""
    on_demand: bool = False
    """Whether they load what answers when it is asked for; then exclusive too."""
    exclusive: bool = False
    """Whether they alone are to hold it; otherwise every pod does, and miners prefer them."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of the engine pods by their UIDs."""


ANYWHERE: Final = Placed(pods=None)


def adapter_of(version: VersionStatus | None) -> Adapter | None:
    """Return what engines must hold to answer with this version; None for the base model itself."""
    if version is None or version.digest is None or version.uri is None or version.rank is None:
        return None
    return Adapter(digest=version.digest, served_name=version.served_name, uri=version.uri, rank=version.rank)


def wanted_adapter(twin: Twin) -> Adapter | None:
    """Return the adapter that should answer, or None when the base model itself should."""
    return adapter_of(wanted_version(twin))


def refusal(pool: PoolRef, twin: Twin, bounds: Bounds | None = None) -> Finding | None:
    """Return why the pool can't serve the twin as it should be, or None.

    `bounds`: what tenants may name; None: the place of the adapter doesn't matter here.
    """
    if not isinstance(pool, Pool):
        problem = pool.problem if isinstance(pool, UnreadPool) else "unknown"
        return Finding(
            Reason.POOL_UNREADABLE,
            f"the stored spec of MinerPool {pool.name} can't be read, so it takes up nothing new, and what answers in "
            f"it goes on: {problem}",
        )
    base, wanted = pool.spec.base_model, twin.spec.base_model
    if wanted.name != base.name:
        return Finding(
            Reason.BASE_MODEL_MISMATCH,
            f"MinerPool {pool.name} serves base model {base.name}, the twin's adapter belongs to {wanted.name}: "
            f"correct spec.baseModel.name, or make spec.poolSelector match a pool with {wanted.name}",
        )
    if wanted.revision is not None and wanted.revision != base.revision:
        return Finding(
            Reason.BASE_MODEL_MISMATCH,
            f"MinerPool {pool.name} serves revision {base.revision or '(unset)'} of {base.name}, the twin asks for "
            f"{wanted.revision}: correct spec.baseModel.revision, or select a pool with that revision",
        )
    limit = pool.max_lora_rank
    adapter = wanted_adapter(twin)
    if adapter is not None and adapter.rank > limit:
        return Finding(
            Reason.RANK_TOO_HIGH,
            f"the adapter has rank {adapter.rank}, MinerPool {pool.name} allows up to {limit}: raise the pool's "
            f"spec.engine.maxLoraRank, or train the adapter with rank {limit} or less",
        )
    named = twin.spec.adapter
    if bounds is None or adapter is None or named is None or adapter.uri != named.uri:
        return None
    return adapter_out_of_bounds(twin, bounds)


def is_verified(report: PodReport, adapter_served_name: str, digest: str) -> bool:
    """Tell whether a pod reports this very version as Verified."""
    held = (report.adapters or {}).get(adapter_served_name)
    return held is not None and held.digest == digest and held.state is AdapterState.VERIFIED


def verified_on(adapter_served_name: str, digest: str, reports: Sequence[PodReport]) -> list[str]:
    """Return the pods that report this very version as Verified."""
    return [report.pod.name for report in reports if is_verified(report, adapter_served_name, digest)]


def header_of(pool: Pool, *, miners_have_tokens: bool = False) -> PoolHeader:
    """Return what each slice says of its pool."""
    return PoolHeader(
        name=pool.name,
        uid=pool.uid,
        generation=pool.generation,
        base_model=BaseModelRef(name=pool.spec.base_model.name, revision=pool.spec.base_model.revision),
        max_loras=pool.max_loras,
        max_lora_rank=pool.max_lora_rank,
        max_running=pool.max_running,
        max_at_hand=pool.max_at_hand,
        miners_have_tokens=miners_have_tokens,
    )


def plan_entry(
    pool: Pool,
    candidate: Candidate,
    *,
    previous: TwinEntry | None,
    ready: Mapping[str, PodReport | None],
    placed: Placed = ANYWHERE,
) -> TwinEntry | None:
    """Return the twin's entry to publish, or None when the pool has nothing to do with it.

    `previous` is what is published under the twin's UID. `ready` holds the engine pods that serve, by name, each with
    its report (None: it has not reported).
    """
    if candidate.twin.deleted:
        return None
    holding = _holding(previous, ready, placed)
    entry = _plan_twin(pool, candidate, _active(candidate.twin, pool, previous), holding)
    if entry is not None and candidate.refused is None:
        entry = _with_canary(candidate.twin, entry, previous, holding)
    return _with_pods(entry, previous, ready, placed) if entry is not None else None


def _holding(
    previous: TwinEntry | None, ready: Mapping[str, PodReport | None], placed: Placed
) -> Mapping[str, PodReport | None]:
    """Return the ready pods that are to hold the twin: by the plan, or until it has moved."""
    if not placed.exclusive:
        return ready
    leaving = previous.pods if previous is not None and previous.placement is not None else None
    named = {placed.names.get(uid) for uid in (*(placed.pods or ()), *(leaving or ()))}
    return {name: report for name, report in ready.items() if name in named}


def _with_pods(
    entry: TwinEntry, previous: TwinEntry | None, ready: Mapping[str, PodReport | None], placed: Placed
) -> TwinEntry:
    """Say on which pods the twin is; those that it leaves stay until the ready ones that it moves to can answer."""
    if placed.pods is None or not entry.adapters:
        return entry
    if not placed.exclusive:
        return entry.model_copy(update={"pods": placed.pods[:PODS_PER_TWIN]})
    if placed.on_demand:  # whoever leaves may go on loading it until miners know better: nobody is without an answer
        return entry.model_copy(update={"placement": "OnDemand", "pods": placed.pods[:PODS_PER_TWIN]})
    holders = {uid: _can_answer(entry, ready.get(name)) for uid, name in placed.names.items() if name in ready}
    to = [holders[uid] for uid in placed.pods if uid in holders]
    leaving: list[str] = []
    if not to or not all(to):
        if previous is not None and previous.placement is not None:
            held = [uid for uid in previous.pods or () if uid in placed.names]
        else:  # until now every pod held it
            held = sorted(uid for uid in holders if holders[uid])
        leaving = [uid for uid in held if uid not in placed.pods]
    return entry.model_copy(update={"placement": "Spread", "pods": (*placed.pods, *leaving)[:PODS_PER_TWIN]})


def _can_answer(entry: TwinEntry, report: PodReport | None) -> bool:
    """Tell whether a pod has verified all that answers for the twin."""
    adapters = [(version.served_name, version.digest) for version in entry.versions if version.digest is not None]
    return report is not None and all(is_verified(report, served_name, digest) for served_name, digest in adapters)


def _plan_twin(  # noqa: PLR0911  # one return per rule of the module's docstring
    pool: Pool,
    candidate: Candidate,
    known: tuple[Version, Adapter | None] | None,
    ready: Mapping[str, PodReport | None],
) -> TwinEntry | None:
    """Return the twin's entry without a canary; `known` is the version that answers now, with its adapter."""
    twin = candidate.twin
    if candidate.refused is not None:
        if known is None or candidate.served_elsewhere:
            return None
        return _entry(twin, known[0], known[1])
    wanted = wanted_adapter(twin)
    if wanted is None:
        # The base model needs no adapter: it answers as soon as an engine does.
        return _entry(twin, Version(served_name=pool.spec.base_model.name, weight_percent=100))
    version = Version(served_name=wanted.served_name, digest=wanted.digest, weight_percent=100)
    if known is not None and known[0].digest == wanted.digest:
        return _entry(twin, version, wanted)
    if known is not None and known[0].served_name == wanted.served_name:
        # Two digests that share their first 8 digits: engines can't hold both. The agents report it as mismatch.
        return _entry(twin, known[0], known[1])
    verified = verified_on(wanted.served_name, wanted.digest, [report for report in ready.values() if report])
    takes_over = len(verified) == len(ready) > 0 if known is not None else bool(verified)
    if takes_over:
        return _entry(twin, version, wanted)
    if known is None:
        return _entry(twin, None, wanted)
    return _entry(twin, known[0], wanted, known[1])


def _with_canary(
    twin: Twin, entry: TwinEntry, before: TwinEntry | None, ready: Mapping[str, PodReport | None]
) -> TwinEntry:
    """Hold the version on trial too, and give it its weight where it is verified: to begin with on every ready pod."""
    trial = adapter_of(canary_version(twin))
    if trial is None or any(adapter.served_name == trial.served_name for adapter in entry.adapters):
        return entry
    verified = verified_on(trial.served_name, trial.digest, [report for report in ready.values() if report])
    tried = before is not None and any(version.digest == trial.digest for version in before.versions)
    weight = twin.status.canary_weight_percent or 0
    held = entry.model_copy(update={"adapters": _sorted((*entry.adapters, trial))})
    if weight == 0 or not verified or not entry.versions or not (tried or len(verified) == len(ready)):
        return held
    stable = entry.versions[0].model_copy(update={"weight_percent": 100 - weight})
    canary = Version(served_name=trial.served_name, digest=trial.digest, weight_percent=weight)
    return held.model_copy(update={"versions": (stable, canary)})


def _active(twin: Twin, pool: Pool, previous: TwinEntry | None) -> tuple[Version, Adapter | None] | None:
    """Return the version that answers for the twin in this pool, and its adapter (None: the base model itself)."""
    if previous is not None:
        version = stable_version(twin, previous.versions)
        if version is None:
            return None
        full = Version(served_name=version.served_name, digest=version.digest, weight_percent=100)
        if version.digest is None:
            return full, None
        held = next((each for each in previous.adapters if each.digest == version.digest), None)
        return (full, held) if held is not None else None
    active = twin.status.active_version
    if active is None or pool.name not in (twin.status.pools or []):
        return None
    version = Version(served_name=active.served_name, digest=active.digest, weight_percent=100)
    if active.digest is None:
        return (version, None) if active.served_name == pool.spec.base_model.name else None
    adapter = adapter_of(active)
    return (version, adapter) if adapter is not None else None


def stable_version(twin: Twin, versions: Sequence[Version]) -> Version | None:
    """Return the version that answers apart from one that is, or was, on trial."""
    if len(versions) <= 1:
        return versions[0] if versions else None
    wanted, canary = wanted_version(twin), canary_version(twin)
    refused = {each.digest for each in twin.status.refused_versions or []}
    tried = {canary.digest} if canary is not None else set()
    by_trust = sorted(
        versions,
        key=lambda each: (each.digest == wanted.digest, each.digest not in refused | tried, each.weight_percent),
    )
    return by_trust[-1]


def without(entry: TwinEntry, digests: Collection[str]) -> TwinEntry:
    """Return the entry with these versions' requests on the one that answers beside them; as it is where none does."""
    kept = [version for version in entry.versions if version.digest not in digests]
    if not kept or len(kept) == len(entry.versions):
        return entry
    stable = max(kept, key=lambda version: version.weight_percent)
    return entry.model_copy(update={"versions": (stable.model_copy(update={"weight_percent": 100}),)})


def _entry(twin: Twin, version: Version | None, *adapters: Adapter | None) -> TwinEntry:
    prompt = twin.spec.system_prompt
    return TwinEntry(
        name=twin.name,
        doctor=twin.spec.doctor.name,
        prompt_digest=names.prompt_digest(prompt) if prompt else None,
        versions=(version,) if version else (),
        adapters=_sorted(adapter for adapter in adapters if adapter is not None),
    )


def _sorted(adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    return tuple(sorted(adapters, key=lambda adapter: adapter.served_name))


def slice_for(counts: Mapping[int, int]) -> int:
    """Return the number of the slice that takes one more twin: the first with room. `counts` are twins by slice."""
    return next(number for number in range(len(counts) + 1) if counts.get(number, 0) < TWINS_PER_SLICE)
