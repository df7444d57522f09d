"""The custom resources as the planners see them, decoded once when an object is put into the store.

What this release can't read becomes `Unreadable`, which says which part and why: nothing is decided upon a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Baseline, DoctorTwinSpec, DoctorTwinStatus, VersionStatus
from bettertherapy_api.faults import first_fault
from bettertherapy_api.finetune_run import FineTuneRunSpec, FineTuneRunStatus
from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.miner_pool import (
    LORA_RANKS,
    MOST_REPLICAS,
    MinerPoolSpec,
    PoolFineTune,
    ScalingRecord,
    SlowReplica,
    TuningStatus,
)
from bettertherapy_api.routing import PODS_PER_TWIN, Adapter, TwinEntry, Version
from bettertherapy_api.schema import ApiModel
from bettertherapy_api.validator import ValidatorSpec
from bettertherapy_api.validator_round import ValidatorRoundSpec, ValidatorRoundStatus
from twin_operator.domain.engine_flags import copies, sequences
from twin_operator.domain.reasons import Reason
from twin_operator.domain.remembered import readable
from twin_operator.domain.taken_back import taken_back
from twin_operator.domain.tuning import LEAST_AT_HAND, own_at_hand

Document = TypeVar("Document", bound=BaseModel)

MOST_SPREAD: Final = PODS_PER_TWIN // 2
"""While a twin moves, the pods that it leaves are named beside those that it moves to."""

MOST_RUNNING: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An object of which this release can't read a part; whatever exists for it stays as it is."""

    part: Literal["spec", "status"]
    problem: str
    """Which field, and what is wrong with it."""
    taken_back: frozenset[str] = frozenset()
    """Of a twin whose spec can't be read: digests of versions that may not answer, by its status and annotations."""

    def __str__(self) -> str:
        return f"the stored {self.part} can't be read: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class PoolRef:
    """Which MinerPool it is, as its metadata says: known though its spec can't be read."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    deleted: bool


@dataclass(frozen=True, kw_only=True)
class UnreadPool(PoolRef):
    """A MinerPool whose spec can't be read: its engines and miners go on as they are."""

    problem: str


@dataclass(frozen=True, kw_only=True)
class Pool(PoolRef):
    """A MinerPool."""

    generation: int
    spec: MinerPoolSpec
    decided: int | None = None
    """Engine pods that there should be, as the operator decided last; None where it never did."""
    decisions: tuple[ScalingRecord, ...] = ()
    """The last ones, newest first."""
    tuning: TuningStatus | None = None
    """How its engines are started for their adapters, as the operator decided last."""
    slow: tuple[SlowReplica, ...] = ()
    """Engine pods that were slower than the others, as its status says."""

    @property
    def is_scaled(self) -> bool:
        """Whether the operator decides on the number of engine pods; what is behind an endpoint is not its to scale."""
        scaling = self.spec.autoscaling
        return scaling is not None and scaling.mode == "Operator" and self.spec.engine.endpoint is None

    @property
    def may_sleep(self) -> bool:
        """Whether it may have no engine for a while, and is to be woken by a question."""
        scaling = self.spec.autoscaling
        sleeps = scaling is not None and scaling.mode != "Off" and scaling.min == 0
        return sleeps and self.spec.engine.endpoint is None

    @property
    def replicas(self) -> int:
        """Engine pods that there should be."""
        return self.decided if self.is_scaled and self.decided is not None else self.spec.replicas

    @property
    def max_loras(self) -> int:
        """LoRA slots of one engine; those of Auto are what the engines were last started with."""
        slots = self.spec.engine.max_loras
        if slots != "Auto":
            return int(slots)
        return self.tuning.running.max_loras if self.tuning is not None else 8

    @property
    def slots_follow_twins(self) -> bool:
        """Whether its engines' slots are the operator's to choose."""
        engine = self.spec.engine
        return engine.max_loras == "Auto" and engine.device == "GPU" and engine.endpoint is None

    @property
    def max_lora_rank(self) -> int:
        """Highest rank that an adapter may have, be it that engines must be restarted for it."""
        rank = self.spec.engine.max_lora_rank
        return max(LORA_RANKS) if rank == "Auto" else int(rank)

    @property
    def trains_attention_only(self) -> bool:
        """Whether a first adapter changes attention's projections alone, since the engines would refuse others."""
        targets = self.spec.engine.lora_targets
        running = self.tuning.running.lora_targets if self.tuning is not None else None
        return LoraTargets.ATTENTION in (targets, running if targets == "Auto" else None)

    @property
    def max_running(self) -> int | None:
        """Requests that one engine runs at once; None for a server of others, of which that isn't known."""
        engine = self.spec.engine
        if engine.endpoint is not None:
            return None
        return min(MOST_RUNNING, sequences(engine) * copies(engine))

    @property
    def max_at_hand(self) -> int | None:
        """Adapters that one engine keeps in memory at least, those that are loaded on demand among them."""
        engine = self.spec.engine
        if engine.endpoint is not None:
            return None
        return min(MOST_RUNNING, own_at_hand(engine) or LEAST_AT_HAND)

    @property
    def store_uri(self) -> str | None:
        """Root of the adapter store, if it has one."""
        return self.spec.store.uri if self.spec.store else None

    @property
    def fine_tune(self) -> PoolFineTune:
        """How fine-tunes run here."""
        return self.spec.fine_tune or PoolFineTune()


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A DoctorTwin. It is its UID: another object of the same name is another doctor's."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: DoctorTwinSpec
    status: DoctorTwinStatus
    deleted: bool
    created: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_on_demand(self) -> bool:
        """Whether a pod loads it when it is asked for."""
        return self.spec.placement.mode == "OnDemand"

    @property
    def spread_over(self) -> int | None:
        """On how many pods alone it is to be; None: on every pod, as also one that is to be on very many."""
        placement = self.spec.placement
        if placement.mode == "OnDemand":
            return 1
        many = placement.replicas is None or placement.replicas > MOST_SPREAD
        return None if placement.mode != "Spread" or many else placement.replicas


@dataclass(frozen=True, kw_only=True)
class Run:
    """A FineTuneRun."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    spec: FineTuneRunSpec
    status: FineTuneRunStatus
    owner_uid: str | None = None
    """UID of the DoctorTwin that owns it; None: somebody made it by hand."""

    @property
    def started(self) -> bool:
        """Whether the pool's limit let it go."""
        return self.status.start_time is not None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status.completion_time is not None

    @property
    def of_task(self) -> bool:
        """Whether a validator's task asked for its version, and not the twin's own nights."""
        return self.spec.task is not None or self.spec.candidate is not None

    def condition(self, kind: str) -> tuple[str, str, str] | None:
        """Return status, reason and message of a condition, as last written."""
        found = next((each for each in self.status.conditions or [] if each.type == kind), None)
        return (found.status, found.reason, found.message) if found else None

    def is_of(self, twin: Twin) -> bool:
        """Tell whether it was made for this very twin, and not for an earlier one of the same name.

        The UID that was written down when the run was first looked at decides, or that of the twin that owns it. A run
        with neither is the twin's if the twin was there before it (times are in whole seconds, so that alone would
        not do), or if the run was seen to wait while no twin bore the name.
        """
        if self.spec.twin_ref.name != twin.name or self.namespace != twin.namespace:
            return False
        return self.is_of_uid(twin.uid, created=twin.created)

    def is_of_uid(self, uid: str, *, created: str) -> bool:
        """Tell the same of a twin of the name that the run names, which perhaps can't be read."""
        told = self.status.twin_uid or self.owner_uid
        if told is not None:
            return told == uid
        queued = self.condition("Queued")
        return self.created >= created or (queued is not None and queued[1] == Reason.TWIN_NOT_FOUND)


@dataclass(frozen=True, kw_only=True)
class Validator:
    """A Validator."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: ValidatorSpec

    @property
    def embedded_ledger(self) -> bool:
        """Whether the ledger is a file on a volume of the one gateway pod."""
        return self.spec.ledger is None or self.spec.ledger.uri_secret_ref is None

    @property
    def deliveries(self) -> str | None:
        """The folder where its gateway lays what miners' trainers deliver; None where it takes nothing."""
        tasks = self.spec.fine_tune_tasks
        return tasks.offers.deliveries if tasks is not None and tasks.offers is not None else None

    def delivered(self, task: str, digest: str) -> str | None:
        """Return where a task's version lies once it was delivered."""
        folder = self.deliveries
        return None if folder is None else f"{folder.rstrip('/')}/{task}/{names.digest_hex(digest)}"


@dataclass(frozen=True, kw_only=True)
class Round:
    """A ValidatorRound."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    spec: ValidatorRoundSpec
    status: ValidatorRoundStatus
    owner_uid: str | None = None
    """UID of the Validator whose schedule made it; None: somebody made it by hand."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def validator(self) -> str:
        """Name of the validator that examines."""
        return self.spec.validator_ref.name

    @property
    def started(self) -> bool:
        """Whether it was let go."""
        return self.status.start_time is not None

    @property
    def ended(self) -> bool:
        """Whether asking and scoring are over."""
        return self.status.completion_time is not None

    @property
    def complete(self) -> bool:
        """Whether its results are stored."""
        return self.ended and self.status.failure is None and self.status.results_digest is not None

    def is_of_uid(self, uid: str) -> bool:
        """Tell whether it is a round of the Validator with this UID; of one that was not looked at yet it may be."""
        told = self.status.validator_uid or self.owner_uid
        return told is None or told == uid


def parsed(model: type[Document], document: object) -> Document | str:
    """Return the document as `model`, or what is wrong with it as one sentence."""
    try:
        return lean(model.model_validate(document))
    except ValidationError as error:
        return f"{first_fault(error)}; correct the field, or re-apply the CRD if it is older than this operator"


def lean(model: Document) -> Document:
    """Let a model and its parts share their sets of the names that were given: a third of what they take of memory."""
    given = model.model_fields_set
    object.__setattr__(model, "__pydantic_fields_set__", _GIVEN.setdefault(frozenset(given), given))
    for value in model.__dict__.values():
        if isinstance(value, BaseModel):
            lean(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, BaseModel):
                    lean(item)
        elif isinstance(value, dict):
            for item in value.values():
                if isinstance(item, BaseModel):
                    lean(item)
    return model


_GIVEN: Final[dict[frozenset[str], set[str]]] = {}
"""Sets of field names, a few for each model. Models are frozen, so nobody adds to one."""


def pool_from(thing: Mapping[str, Any], former: Any = None) -> Pool | Unreadable:
    """Return the pool, or what is wrong with its spec. Its status only remembers its size, so it may be odd."""
    spec = _spec(MinerPoolSpec, thing, former)
    if isinstance(spec, str):
        return Unreadable(part="spec", problem=spec)
    metadata = thing["metadata"]
    told = lean(readable(_Remembered, thing.get("status")) or _Remembered())
    return Pool(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        generation=metadata.get("generation", 0), labels=metadata.get("labels") or {}, spec=spec,
        deleted="deletionTimestamp" in metadata, decided=told.desired_replicas,
        decisions=tuple(told.scaling_history or ()), slow=tuple(told.slow_replicas or ()), tuning=told.tuning,
    )  # fmt: skip


class _Remembered(ApiModel):
    """What of a pool's status is remembered; of what can't be read of it the rest is."""

    desired_replicas: Annotated[int | None, Field(ge=0, le=MOST_REPLICAS)] = None
    scaling_history: list[ScalingRecord] | None = None
    slow_replicas: list[SlowReplica] | None = None
    tuning: Annotated[TuningStatus | None, BeforeValidator(lambda found: readable(TuningStatus, found))] = None


def pool_ref(thing: Mapping[str, Any], value: object) -> PoolRef:
    """Return which pool it is; `value` is what `pool_from` made of it."""
    if isinstance(value, Pool):
        return value
    metadata = thing["metadata"]
    return UnreadPool(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        labels=metadata.get("labels") or {}, deleted="deletionTimestamp" in metadata,
        problem=value.problem if isinstance(value, Unreadable) else "",
    )  # fmt: skip


def twin_from(thing: Mapping[str, Any], former: Any = None) -> Twin | Unreadable:
    """Return the twin, or what can't be read of it: its status is the memory of what may answer patients."""
    metadata, spec = thing["metadata"], _spec(DoctorTwinSpec, thing, former)
    status = parsed(DoctorTwinStatus, _with_readable_baseline(thing.get("status") or {}))
    if isinstance(spec, str):
        back = taken_back(status, metadata.get("annotations") or {}) if not isinstance(status, str) else frozenset()
        return Unreadable(part="spec", problem=spec, taken_back=back)
    named = parsed(TwinEntry, {"name": metadata["name"]})
    if isinstance(named, str):
        return Unreadable(part="spec", problem=f"metadata.{named}")
    problem = status if isinstance(status, str) else _odd_version(status)
    if isinstance(status, str) or problem is not None:
        return Unreadable(part="status", problem=problem or "")
    return Twin(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        generation=metadata.get("generation", 0), spec=spec, status=status, deleted="deletionTimestamp" in metadata,
        created=metadata.get("creationTimestamp") or "", annotations=metadata.get("annotations") or {},
    )  # fmt: skip


def _with_readable_baseline(status: Any) -> Any:
    """Return the status with what can be read of the baseline, which says nothing of what answers."""
    known = status.get("baseline") if isinstance(status, dict) else None
    if known is None or not isinstance(parsed(Baseline, known), str):
        return status
    return {**status, "baseline": readable(Baseline, known)}


def run_from(thing: Mapping[str, Any], former: Any = None) -> Run | Unreadable:
    """Return the run, or what can't be read of it."""
    spec = _spec(FineTuneRunSpec, thing, former)
    if isinstance(spec, str):
        return Unreadable(part="spec", problem=spec)
    status = parsed(FineTuneRunStatus, thing.get("status") or {})
    if isinstance(status, str):
        return Unreadable(part="status", problem=status)
    if status.verdict == "Promote" and status.artifact is not None:
        # It is about to answer patients: what came from a trainer before reports were checked must not get that far.
        made = parsed(Adapter, {"servedName": "made", **status.artifact.model_dump(include=_HELD)})
        if isinstance(made, str):
            return Unreadable(part="status", problem=f"artifact.{made}")
    metadata = thing["metadata"]
    owner = next((each for each in metadata.get("ownerReferences") or [] if each.get("kind") == "DoctorTwin"), None)
    return Run(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        generation=metadata.get("generation", 0), created=metadata.get("creationTimestamp") or "", spec=spec,
        status=status, owner_uid=owner["uid"] if owner else None,
    )  # fmt: skip


def validator_from(thing: Mapping[str, Any], former: Any = None) -> Validator | Unreadable:
    """Return the validator, or what is wrong with its spec. Its status is no memory of anything, so it may be odd."""
    spec = _spec(ValidatorSpec, thing, former)
    if isinstance(spec, str):
        return Unreadable(part="spec", problem=spec)
    metadata = thing["metadata"]
    return Validator(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        generation=metadata.get("generation", 0), spec=spec,
    )  # fmt: skip


def round_from(thing: Mapping[str, Any], former: Any = None) -> Round | Unreadable:
    """Return the round, or what can't be read of it: its status is the memory of what was started and found."""
    spec = _spec(ValidatorRoundSpec, thing, former)
    if isinstance(spec, str):
        return Unreadable(part="spec", problem=spec)
    status = parsed(ValidatorRoundStatus, thing.get("status") or {})
    if isinstance(status, str):
        return Unreadable(part="status", problem=status)
    metadata = thing["metadata"]
    owner = next((each for each in metadata.get("ownerReferences") or [] if each.get("kind") == "Validator"), None)
    return Round(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
        generation=metadata.get("generation", 0), created=metadata.get("creationTimestamp") or "", spec=spec,
        status=status, owner_uid=owner["uid"] if owner else None, annotations=metadata.get("annotations") or {},
    )  # fmt: skip


_HELD: Final = {"digest", "uri", "rank"}


def _odd_version(status: DoctorTwinStatus) -> str | None:
    """Return which of the versions can't be published, and why: any of them may come to answer.

    The CRD takes more than this, since it must go on taking what is stored.
    """
    told = {
        "promotedVersion": status.promoted_version, "canaryVersion": status.canary_version,
        "activeVersion": status.active_version, "pendingVersion": status.pending_version,
        "previousVersion": status.previous_version, "anchorVersion": status.anchor_version,
        **{f"history.{number}": version for number, version in enumerate(status.history or ())},
    }  # fmt: skip
    for field_name, version in told.items():
        if version is not None and (problem := _unpublishable(version)) is not None:
            return f"{field_name}.{problem}"
    return None


def _unpublishable(version: VersionStatus) -> str | None:
    """Return what of a version doesn't fit into a pool's table; where it is, and its rank, may be absent."""
    found: BaseModel | str
    if version.digest is None:
        found = parsed(Version, {"servedName": version.served_name, "weightPercent": 100})
    else:
        given = version.model_dump(include=_HELD, exclude_none=True)
        found = parsed(Adapter, {"uri": "unknown", "rank": 1, "servedName": version.served_name, **given})
    return found if isinstance(found, str) else None


def _spec(model: type[Document], thing: Mapping[str, Any], former: Any) -> Document | str:
    """Parse the spec; that of the same generation is taken over from the former version of the object."""
    generation = thing["metadata"].get("generation")
    known = getattr(former, "spec", None)
    if isinstance(known, model) and generation is not None and generation == former.generation:
        return known
    return parsed(model, thing.get("spec") or {})
