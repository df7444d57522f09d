"""The routing table: which adapters every engine pod holds, and which version of each twin answers.

A twin's wanted version takes over in one step (weight 0 → 100) when every ready engine pod reports it Verified. Pods
that are not ready don't hold it up, since no request reaches them; a ready pod on which it failed does. While nothing
answers yet, one verified pod is enough: miners send a twin only to pods that hold it. Until then the version that
answers stays, in `adapters` and in `versions`. The memory of which one that is are the table itself and, should it be
lost, the twin's status.activeVersion; so a restarted operator decides the same.

A version on trial (status.canaryVersion) is held beside it and takes status.canaryWeightPercent of the requests, at
first only once every ready pod has verified it, later where a pod still holds it. Taking the weight away needs nothing.

A twin that must not be served here as its spec asks (other base model, rank too high, selector doesn't match any more)
keeps its last version until another pool answers with the wanted one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.configmaps import Adapter, BaseModelRef, PodReport, RoutingTable, Version
from bettertherapy_api.configmaps import Twin as TwinRoute
from bettertherapy_api.doctor_twin import VersionStatus
from bettertherapy_api.report import AdapterState
from twin_operator.domain.objects import Pool, Twin
from twin_operator.domain.versions import canary_version, wanted_version
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.kinds.podspec.parts import labels


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A twin that this pool serves or should serve."""

    twin: Twin
    refused: tuple[str, str] | None = None
    """Reason and message why the pool can't serve it as its spec asks."""
    served_elsewhere: bool = False
    """Another pool answers with the wanted version."""


def adapter_of(twin: str, version: VersionStatus | None) -> Adapter | None:
    """Return what engines must hold to answer with this version; None for the base model itself."""
    if version is None or version.digest is None or version.uri is None or version.rank is None:
        return None
    return Adapter(
        twin=twin, digest=version.digest, served_name=version.served_name, uri=version.uri, rank=version.rank
    )


def wanted_adapter(twin: Twin) -> Adapter | None:
    """Return the adapter that should answer, or None when the base model itself should."""
    return adapter_of(twin.name, wanted_version(twin))


def refusal(pool: Pool, twin: Twin) -> tuple[str, str] | None:
    """Return reason and message why the pool can't serve the twin as it should be, or None."""
    base, wanted = pool.spec.base_model, twin.spec.base_model
    if wanted.name != base.name:
        return (
            "BaseModelMismatch",
            f"MinerPool {pool.name} serves base model {base.name}, the twin's adapter belongs to {wanted.name}: "
            f"correct spec.baseModel.name, or make spec.poolSelector match a pool with {wanted.name}",
        )
    if wanted.revision is not None and wanted.revision != base.revision:
        return (
            "BaseModelMismatch",
            f"MinerPool {pool.name} serves revision {base.revision or '(unset)'} of {base.name}, the twin asks for "
            f"{wanted.revision}: correct spec.baseModel.revision, or select a pool with that revision",
        )
    limit = pool.spec.engine.max_lora_rank
    adapter = wanted_adapter(twin)
    if adapter is not None and adapter.rank > limit:
        return (
            "RankTooHigh",
            f"the adapter has rank {adapter.rank}, MinerPool {pool.name} allows up to {limit}: raise the pool's "
            f"spec.engine.maxLoraRank, or train the adapter with rank {limit} or less",
        )
    return None


def verified_on(adapter_served_name: str, digest: str, reports: Sequence[PodReport]) -> list[str]:
    """Return the pods that report this very version as Verified."""
    return [
        report.pod
        for report in reports
        if (held := report.adapters.get(adapter_served_name)) is not None
        and held.digest == digest
        and held.state is AdapterState.VERIFIED
    ]


def plan_routing(
    pool: Pool,
    *,
    candidates: Sequence[Candidate],
    previous: RoutingTable | None,
    ready: Mapping[str, PodReport | None],
    unreadable: Collection[str] = (),
) -> RoutingTable:
    """Return the table to publish.

    `ready` holds the engine pods that serve, by name, each with its report (None: it has not reported). Twins whose
    spec is `unreadable` stay as they are in the previous table.
    """
    adapters: dict[str, Adapter] = {}
    twins: dict[str, TwinRoute] = {}
    if previous is not None:
        adapters.update({held.served_name: held for held in previous.adapters if held.twin in unreadable})
        twins.update({name: route for name, route in previous.twins.items() if name in unreadable})
    held_before = {held.served_name: held for held in previous.adapters} if previous is not None else {}
    for candidate in sorted(candidates, key=lambda item: item.twin.name):
        if candidate.twin.deleted:
            continue
        route, held = _plan_twin(pool, candidate, _active(candidate.twin, pool, previous, held_before), ready)
        if route is not None and candidate.refused is None:
            known = previous.twins.get(candidate.twin.name) if previous is not None else None
            route, held = _with_canary(candidate.twin, route, held, known, ready)
        adapters.update({adapter.served_name: adapter for adapter in held})
        if route is not None:
            twins[candidate.twin.name] = route
    return RoutingTable(
        pool=pool.name,
        generation=pool.generation,
        base_model=BaseModelRef(name=pool.spec.base_model.name, revision=pool.spec.base_model.revision),
        max_loras=pool.max_loras,
        max_lora_rank=pool.spec.engine.max_lora_rank,
        adapters=tuple(adapters[name] for name in sorted(adapters)),
        twins=twins,
    )


def _plan_twin(  # noqa: PLR0911  # one return per rule of the module's docstring
    pool: Pool,
    candidate: Candidate,
    known: tuple[Version, Adapter | None] | None,
    ready: Mapping[str, PodReport | None],
) -> tuple[TwinRoute | None, list[Adapter]]:
    """Return the twin's route and the adapters to hold; `known` is the version that answers now, with its adapter."""
    twin = candidate.twin
    if candidate.refused is not None:
        if known is None or candidate.served_elsewhere:
            return None, []
        return _route(twin, known[0]), [known[1]] if known[1] else []
    wanted = wanted_adapter(twin)
    if wanted is None:
        # The base model needs no adapter: it answers as soon as an engine does.
        return _route(twin, Version(served_name=pool.spec.base_model.name, weight_percent=100)), []
    version = Version(served_name=wanted.served_name, digest=wanted.digest, weight_percent=100)
    if known is not None and known[0].digest == wanted.digest:
        return _route(twin, version), [wanted]
    if known is not None and known[0].served_name == wanted.served_name:
        # Two digests that share their first 8 digits: engines can't hold both. The agents report it as mismatch.
        return _route(twin, known[0]), [known[1]] if known[1] else []
    verified = verified_on(wanted.served_name, wanted.digest, [report for report in ready.values() if report])
    takes_over = len(verified) == len(ready) > 0 if known is not None else bool(verified)
    if takes_over:
        return _route(twin, version), [wanted]
    if known is None:
        return _route(twin, None), [wanted]
    return _route(twin, known[0]), [wanted, known[1]] if known[1] else [wanted]


def _with_canary(
    twin: Twin,
    route: TwinRoute,
    held: list[Adapter],
    before: TwinRoute | None,
    ready: Mapping[str, PodReport | None],
) -> tuple[TwinRoute, list[Adapter]]:
    """Hold the version on trial too, and give it its weight where it is verified: to begin with on every ready pod."""
    trial = adapter_of(twin.name, canary_version(twin))
    if trial is None or any(adapter.served_name == trial.served_name for adapter in held):
        return route, held
    verified = verified_on(trial.served_name, trial.digest, [report for report in ready.values() if report])
    tried = before is not None and any(version.digest == trial.digest for version in before.versions)
    weight = twin.status.canary_weight_percent or 0
    held = [*held, trial]
    if weight == 0 or not verified or not route.versions or not (tried or len(verified) == len(ready)):
        return route, held
    stable = route.versions[0].model_copy(update={"weight_percent": 100 - weight})
    canary = Version(served_name=trial.served_name, digest=trial.digest, weight_percent=weight)
    return route.model_copy(update={"versions": (stable, canary)}), held


def _active(  # noqa: PLR0911  # two memories, each with its ways to know nothing
    twin: Twin, pool: Pool, previous: RoutingTable | None, held_before: Mapping[str, Adapter]
) -> tuple[Version, Adapter | None] | None:
    """Return the version that answers for the twin in this pool, and its adapter (None: the base model itself)."""
    if previous is not None:
        route = previous.twins.get(twin.name)
        version = stable_version(twin, route.versions) if route else None
        if version is None:
            return None
        full = Version(served_name=version.served_name, digest=version.digest, weight_percent=100)
        if version.digest is None:
            return full, None
        held = held_before.get(version.served_name)
        return (full, held) if held is not None else None
    active = twin.status.active_version
    if active is None or pool.name not in (twin.status.pools or []):
        return None
    version = Version(served_name=active.served_name, digest=active.digest, weight_percent=100)
    if active.digest is None:
        return (version, None) if active.served_name == pool.spec.base_model.name else None
    if active.uri is None or active.rank is None:
        return None
    return version, Adapter(
        twin=twin.name, digest=active.digest, served_name=active.served_name, uri=active.uri, rank=active.rank
    )


def stable_version(twin: Twin, versions: Sequence[Version]) -> Version | None:
    """Return the version that answers apart from one that is, or was, on trial."""
    wanted, canary = wanted_version(twin), canary_version(twin)
    refused = {each.digest for each in twin.status.refused_versions or []}
    tried = {canary.digest} if canary is not None else set()
    by_trust = sorted(
        versions,
        key=lambda each: (each.digest == wanted.digest, each.digest not in refused | tried, each.weight_percent),
    )
    return by_trust[-1] if by_trust else None


def _route(twin: Twin, version: Version | None) -> TwinRoute:
    return TwinRoute(
        versions=(version,) if version else (), system_prompt=twin.spec.system_prompt, doctor=twin.spec.doctor.name
    )


def read_table(configmap: Manifest | None) -> RoutingTable | None:
    """Return the table in a routing ConfigMap, or None when there is none or it doesn't parse."""
    text = ((configmap or {}).get("data") or {}).get(names.ROUTING_KEY)
    return _parsed_table(text) if text is not None else None


@lru_cache(maxsize=1024)
def _parsed_table(text: str) -> RoutingTable | None:
    """Parse a table once for all the twins that look at it."""
    try:
        return RoutingTable.model_validate_json(text)
    except ValidationError:
        return None


def build_routing_configmap(pool: Pool, table: RoutingTable) -> Manifest:
    """Return the ConfigMap that agents and miners watch."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": "ConfigMap",
        "metadata": {"name": names.routing_name(pool.name), "labels": labels(pool, "routing")},
        "data": {names.ROUTING_KEY: table.to_json()},
    }
