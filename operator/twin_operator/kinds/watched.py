"""Every type that is watched: how it is decoded, what of it is kept, and by what it is found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import DoctorTwinSpec
from bettertherapy_api.examination import OUTCOMES_KEY
from bettertherapy_api.report import AdapterReport, GatewayReport, MinerReport, PodReport
from bettertherapy_api.routing import PodEntry, PoolHeader, TwinEntry
from bettertherapy_api.run_progress import REVIEW_KEY
from twin_operator.domain.engine_groups import deployment_of
from twin_operator.domain.objects import (
    Pool,
    Run,
    Twin,
    parsed,
    pool_from,
    round_from,
    run_from,
    twin_from,
    validator_from,
)
from twin_operator.domain.pool_facts import deployment_facts, pod_facts
from twin_operator.engine.resources import DEPLOYMENT, JOB, LEADER_WORKER_SET, POD, Manifest
from twin_operator.engine.store import Watched
from twin_operator.kinds.resources import (
    CHILDREN,
    DOCTOR_TWIN,
    FINE_TUNE_RUN,
    MINER_POOL,
    OPTIONAL_CHILDREN,
    POD_REPORT,
    ROUTING_SLICE,
    VALIDATOR,
    VALIDATOR_ROUND,
)

OWNER: Final = "owner UID"
POOL: Final = "pool"
"""(namespace, pool) → everything that carries the pool's label."""
RUN: Final = "run"
"""(namespace, run) → everything that carries the run's label."""
OF_VALIDATOR: Final = "validator"
"""(namespace, validator) → everything that carries the validator's label."""
OF_ROUND: Final = "round"
"""(namespace, round) → everything that carries the round's label."""
ROUNDS: Final = "rounds"
"""(namespace, validator's name) → ValidatorRounds that name it."""
UID: Final = "UID"
"""UID → the DoctorTwin."""
SELECTOR: Final = "selector"
"""(namespace, selector as text) → the DoctorTwins that select pools by it. Most twins share a few."""
CANARY: Final = "canary"
"""namespace → the DoctorTwins with a canary that takes traffic."""
TWIN: Final = "twin"
"""(namespace, twin's name) → FineTuneRuns that name it."""
UNDER_WAY: Final = "under way"
"""(namespace, pool) → FineTuneRuns that have started in the pool and not ended."""
TASKS: Final = "tasks"
"""(namespace, pool) → FineTuneRuns of validators' tasks that the pool's miners took."""
POOL_TASKS: Final = "PoolTasks"
"""Kind of the keys by which a pool's tasks are looked after, each named as its pool; there is no such object."""
WAITING: Final = "waiting"
"""(namespace, pool) → FineTuneRuns that wait for a place in the pool; pool None: for a pool."""
FOLLOWERS: Final = "followers"
"""(namespace, run's name) → FineTuneRuns that a run of that name trains or examines too, as they say themselves."""
ASKED_BY: Final = "asked by"
"""UID of a FineTuneRun, or (namespace, name) → those that say that they train or examine it too."""

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Slice:
    """A RoutingSlice. An entry that this release can't read is left out, and `unreadable` names its key."""

    header: PoolHeader | None
    twins: Mapping[str, TwinEntry]
    pods: Mapping[str, PodEntry]
    prompts: frozenset[str]
    prompt_bytes: int
    anywhere: int
    """Twins with an adapter that are placed on no pod before others."""
    by_pod: Mapping[str, int]
    """How many twins with an adapter are placed on each pod, by its UID; those that are loaded on demand left out."""
    unreadable: frozenset[str]
    owner: str | None
    """UID of the MinerPool that owns it."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """Twins as they are stored: an entry that did not change is not parsed again."""


@dataclass(frozen=True, slots=True)
class Report:
    """A PodReport; None where this release can't read it, or where it isn't owned by the pod that it names."""

    report: PodReport | None
    """What an agent says."""
    miner: MinerReport | None = None
    """What a miner says instead."""
    gateway: GatewayReport | None = None
    """What a validator's gateway says instead."""
    raw: Mapping[str, Any] = field(default_factory=dict)


def decode_slice(thing: Manifest, former: Slice | None) -> Slice:
    """Return the slice, parsing only entries that differ from the former version's."""
    raw = _mapping(thing.get("twins"))
    known_raw, known = (former.raw, former.twins) if former is not None else ({}, {})
    twins, unreadable = _parse_changed(TwinEntry, raw, known_raw, known)
    pods, _ = _parse_changed(PodEntry, _mapping(thing.get("pods")), {}, {})
    prompts = _mapping(thing.get("prompts"))
    return Slice(
        header=_parse(PoolHeader, thing.get("pool")),
        twins=twins,
        pods=pods,
        prompts=frozenset(prompts),
        prompt_bytes=sum(len(str(text).encode(errors="replace")) for text in prompts.values()),
        anywhere=sum(_takes_a_slot(entry) and not entry.pods for entry in twins.values()),
        by_pod=Counter(pod for entry in twins.values() if _takes_a_slot(entry) for pod in entry.pods or ()),
        unreadable=unreadable,
        owner=_owner(thing, MINER_POOL.kind),
        raw=raw,
    )


def _takes_a_slot(entry: TwinEntry) -> bool:
    """Tell whether pods hold some adapter of the twin at all times."""
    return len(entry.adapters) > (entry.on_demand is not None)


def decode_report(thing: Manifest, former: Report | None) -> Report:
    """Return the report, parsing only adapters that differ from the former version's."""
    if "subnet" in thing or "demand" in thing:
        miner = _parse(MinerReport, {key: thing.get(key) for key in MinerReport.model_fields})
        return Report(report=None, miner=miner if miner is not None and _is_of(thing, miner) else None)
    if "gateway" in thing:
        said = _parse(GatewayReport, {key: thing.get(key) for key in GatewayReport.model_fields})
        return Report(report=None, gateway=said if said is not None and _is_of(thing, said) else None)
    raw = _mapping(thing.get("adapters"))
    head = {key: value for key, value in thing.items() if key != "adapters"}
    report = _parse(PodReport, head)
    if report is None or not _is_of(thing, report):
        return Report(report=None)
    known = (former.report.adapters or {}) if former is not None and former.report is not None else {}
    adapters, _ = _parse_changed(AdapterReport, raw, former.raw if former is not None else {}, known)
    return Report(report=report.model_copy(update={"adapters": adapters}), raw=raw)


def _is_of(thing: Manifest, report: PodReport | MinerReport | GatewayReport) -> bool:
    return report.pod.name == thing["metadata"]["name"] and report.pod.uid == _owner(thing, POD.kind)


def _parse_changed(
    model: type[Part], raw: Mapping[str, Any], known_raw: Mapping[str, Any], known: Mapping[str, Part]
) -> tuple[dict[str, Part], frozenset[str]]:
    parsed: dict[str, Part] = {}
    unreadable = set()
    for key, value in raw.items():
        before = known_raw.get(key)
        same = key in known and (before is value or before == value)
        entry = known[key] if same else _parse(model, value)
        if entry is None:
            unreadable.add(key)
        else:
            parsed[key] = entry
    return parsed, frozenset(unreadable)


def _parse(model: type[Part], value: object) -> Part | None:
    found = parsed(model, value)
    return None if isinstance(found, str) else found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _owner(thing: Manifest, kind: str) -> str | None:
    references = thing["metadata"].get("ownerReferences") or []
    return next((each["uid"] for each in references if each.get("kind") == kind), None)


def selector_text(spec: DoctorTwinSpec) -> str:
    """Return the pool selector as text: equal selectors give equal texts."""
    return spec.pool_selector.model_dump_json(by_alias=True, exclude_none=True)


def _of_twin(thing: Manifest, twin: object) -> Iterable[Hashable]:
    return [(thing["metadata"]["namespace"], selector_text(twin.spec))] if isinstance(twin, Twin) else []


def _with_canary(thing: Manifest, twin: object) -> Iterable[Hashable]:
    tried = isinstance(twin, Twin) and twin.status.canary_version is not None and twin.status.canary_start_time
    return [thing["metadata"]["namespace"]] if tried else []


def _uid(thing: Manifest, value: object) -> Iterable[Hashable]:
    return [thing["metadata"]["uid"]]


def _owners(thing: Manifest, value: object) -> Iterable[Hashable]:
    return [each["uid"] for each in thing["metadata"].get("ownerReferences") or []]


def _by_label(label: str) -> Any:
    def keys(thing: Manifest, value: object) -> Iterable[Hashable]:
        metadata = thing["metadata"]
        named = (metadata.get("labels") or {}).get(label)
        return [(metadata.get("namespace", ""), named)] if named is not None else []

    return keys


def _twin_of_run(thing: Manifest, run: object) -> Iterable[Hashable]:
    name = (_mapping(_mapping(thing.get("spec")).get("twinRef"))).get("name")
    return [(thing["metadata"]["namespace"], name)] if name is not None else []


def _under_way(thing: Manifest, run: object) -> Iterable[Hashable]:
    if not isinstance(run, Run) or not run.started or run.ended:
        return []
    return [(thing["metadata"]["namespace"], run.status.pool)]


def _waiting(thing: Manifest, run: object) -> Iterable[Hashable]:
    if not isinstance(run, Run) or run.started or run.ended:
        return []
    return [(thing["metadata"]["namespace"], run.status.pool)]


def _followers(thing: Manifest, run: object) -> Iterable[Hashable]:
    if not isinstance(run, Run):
        return []
    leaders = {each.name for each in (run.status.trainer, run.status.examiner) if each is not None}
    return [(run.namespace, name) for name in leaders]


def _asked_by(thing: Manifest, run: object) -> Iterable[Hashable]:
    if not isinstance(run, Run):
        return []
    refs = (*(run.status.trains or ()), *(run.status.examines or ()))
    return {key for each in refs for key in (each.uid, (run.namespace, each.name))}


def _tasks(thing: Manifest, run: object) -> Iterable[Hashable]:
    if not isinstance(run, Run) or run.spec.task is None:
        return []
    return [(thing["metadata"]["namespace"], run.spec.task.pool)]


def _trim_run(thing: Manifest) -> Manifest:
    """Its spec was decoded; the twin's name is looked up though it can't be read otherwise."""
    return {**thing, "spec": {"twinRef": _mapping(_mapping(thing.get("spec")).get("twinRef"))}}


def _validator_of_round(thing: Manifest, made: object) -> Iterable[Hashable]:
    name = (_mapping(_mapping(thing.get("spec")).get("validatorRef"))).get("name")
    return [(thing["metadata"]["namespace"], name)] if name is not None else []


def _trim_round(thing: Manifest) -> Manifest:
    """Its spec was decoded; the validator's name is looked up though it can't be read otherwise."""
    return {**thing, "spec": {"validatorRef": _mapping(_mapping(thing.get("spec")).get("validatorRef"))}}


def _without(*fields: str) -> Any:
    def trimmed(thing: Manifest) -> Manifest:
        return {key: value for key, value in thing.items() if key not in fields}

    return trimmed


def _trim_job(thing: Manifest) -> Manifest:
    """Its template is by far the largest part of a run, and never changes."""
    spec = {key: value for key, value in (thing.get("spec") or {}).items() if key != "template"}
    return {**thing, "spec": spec}


def _trim_config_map(thing: Manifest) -> Manifest:
    """Hundreds of kilobytes of each run, as long as the run is kept; who needs them asks the API server."""
    data = thing.get("data") or {}
    if not data.keys() & _LARGE:
        return thing
    return {**thing, "data": {key: value for key, value in data.items() if key not in _LARGE}}


def _pool(thing: Manifest, former: Any) -> Pool | Any:
    return pool_from(thing, former)


_LARGE: Final = frozenset({REVIEW_KEY, OUTCOMES_KEY})
_CHILD_INDEXES = {
    OWNER: _owners, POOL: _by_label(names.LABEL_POOL), RUN: _by_label(names.LABEL_RUN),
    OF_VALIDATOR: _by_label(names.LABEL_VALIDATOR), OF_ROUND: _by_label(names.LABEL_ROUND),
}  # fmt: skip
_SPECIAL: Final[Mapping[str, Mapping[str, Any]]] = {
    DEPLOYMENT.kind: {"decode": lambda thing, former: deployment_facts(thing)},
    LEADER_WORKER_SET.kind: {"decode": lambda thing, former: deployment_facts(deployment_of(thing))},
    JOB.kind: {"trim": _trim_job},
    "ConfigMap": {"trim": _trim_config_map},
}

WATCHED: Final = (
    Watched(
        resource=DOCTOR_TWIN, decode=twin_from, trim=_without("spec"),
        indexes={UID: _uid, SELECTOR: _of_twin, CANARY: _with_canary},
    ),
    Watched(resource=MINER_POOL, decode=_pool, trim=_without("spec")),
    Watched(
        resource=FINE_TUNE_RUN, decode=run_from, trim=_trim_run,
        indexes={
            TWIN: _twin_of_run, UNDER_WAY: _under_way, WAITING: _waiting, FOLLOWERS: _followers, ASKED_BY: _asked_by,
            TASKS: _tasks,
        },
    ),
    Watched(resource=VALIDATOR, decode=validator_from, trim=_without("spec")),
    Watched(
        resource=VALIDATOR_ROUND, decode=round_from, trim=_trim_round, indexes={ROUNDS: _validator_of_round},
    ),
    Watched(
        resource=ROUTING_SLICE, selector=names.LABEL_COMPONENT, decode=decode_slice,
        trim=_without("twins", "pods", "prompts"), kept=lambda value: {"twins": value.raw}, indexes=_CHILD_INDEXES,
    ),
    Watched(
        resource=POD_REPORT, selector=names.LABEL_COMPONENT, decode=decode_report, trim=_without("adapters"),
        kept=lambda value: {"adapters": value.raw}, indexes=_CHILD_INDEXES,
    ),
    *(
        Watched(
            resource=resource, selector=names.LABEL_COMPONENT, indexes=_CHILD_INDEXES,
            **_SPECIAL.get(resource.kind, {}),
        )
        for resource in (*CHILDREN, *OPTIONAL_CHILDREN)
    ),
    Watched(
        resource=POD, selector=names.LABEL_COMPONENT, decode=lambda thing, former: pod_facts(thing),
        trim=_without("spec"), indexes=_CHILD_INDEXES,
    ),
)  # fmt: skip
