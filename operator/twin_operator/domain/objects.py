"""Parses custom resources once per change; a stored object that doesn't parse becomes an error message, not a crash."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bettertherapy_api.doctor_twin import DoctorTwinSpec, DoctorTwinStatus
from bettertherapy_api.finetune_run import FineTuneRunSpec, FineTuneRunStatus
from bettertherapy_api.miner_pool import MinerPoolSpec, PoolFineTune
from twin_operator.engine.resources import Manifest

Spec = TypeVar("Spec", bound=BaseModel)
_REMEMBERED = 4096


class SpecReader(Generic[Spec]):
    """Turns `spec` into its type; remembers the result per UID and generation."""

    def __init__(self, model: type[Spec]) -> None:
        self._model = model
        self._known: OrderedDict[str, tuple[int, Spec | str]] = OrderedDict()

    def read(self, thing: Manifest) -> Spec | str:
        """Return the parsed spec, or what is wrong with it."""
        uid, generation = thing["metadata"]["uid"], thing["metadata"].get("generation", 0)
        known = self._known.get(uid)
        if known is not None and known[0] == generation:
            return known[1]
        result = parsed(self._model, thing.get("spec") or {})
        self._known[uid] = (generation, result)
        self._known.move_to_end(uid)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return result


def parsed(model: type[Spec], document: Mapping[str, Any]) -> Spec | str:
    """Return the document as `model`, or what is wrong with it as one sentence."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}; correct the field, or re-apply the CRD if it is older than this operator"


TWIN_SPECS: SpecReader[DoctorTwinSpec] = SpecReader(DoctorTwinSpec)
POOL_SPECS: SpecReader[MinerPoolSpec] = SpecReader(MinerPoolSpec)
RUN_SPECS: SpecReader[FineTuneRunSpec] = SpecReader(FineTuneRunSpec)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A MinerPool as the planners see it."""

    namespace: str
    name: str
    uid: str
    generation: int
    labels: Mapping[str, str]
    spec: MinerPoolSpec
    deleted: bool

    @property
    def max_loras(self) -> int:
        """LoRA slots of one engine; Auto is 8."""
        slots = self.spec.engine.max_loras
        return 8 if slots == "Auto" else int(slots)

    @property
    def fine_tune(self) -> PoolFineTune:
        """How fine-tunes run here."""
        return self.spec.fine_tune or PoolFineTune()


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A DoctorTwin as the planners see it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: DoctorTwinSpec
    status: DoctorTwinStatus
    deleted: bool
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A FineTuneRun as the planners see it."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    spec: FineTuneRunSpec
    status: FineTuneRunStatus

    @property
    def started(self) -> bool:
        """Whether the pool's limit let it go."""
        return self.status.start_time is not None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status.completion_time is not None

    def condition(self, kind: str) -> tuple[str, str, str] | None:
        """Return status, reason and message of a condition, as last written."""
        found = next((each for each in self.status.conditions or [] if each.type == kind), None)
        return (found.status, found.reason, found.message) if found else None


_TWINS: OrderedDict[str, tuple[str, Twin | str]] = OrderedDict()


def pool_from(thing: Manifest) -> Pool | str:
    """Return the pool, or what is wrong with its spec."""
    spec = POOL_SPECS.read(thing)
    if isinstance(spec, str):
        return spec
    metadata = thing["metadata"]
    return Pool(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        labels=metadata.get("labels") or {},
        spec=spec,
        deleted="deletionTimestamp" in metadata,
    )


def twin_from(thing: Manifest) -> Twin | str:
    """Return the twin, or what is wrong with its spec. A status that doesn't parse counts as none.

    Remembered per resourceVersion: each change of one twin makes its pools look at all of theirs.
    """
    metadata = thing["metadata"]
    uid, version = metadata["uid"], metadata["resourceVersion"]
    known = _TWINS.get(uid)
    if known is not None and known[0] == version:
        return known[1]
    made = _twin_from(thing)
    _TWINS[uid] = (version, made)
    _TWINS.move_to_end(uid)
    while len(_TWINS) > _REMEMBERED:
        _TWINS.popitem(last=False)
    return made


def _twin_from(thing: Manifest) -> Twin | str:
    spec = TWIN_SPECS.read(thing)
    if isinstance(spec, str):
        return spec
    metadata = thing["metadata"]
    status = parsed(DoctorTwinStatus, thing.get("status") or {})
    return Twin(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=spec,
        status=DoctorTwinStatus() if isinstance(status, str) else status,
        deleted="deletionTimestamp" in metadata,
        annotations=metadata.get("annotations") or {},
    )


def run_from(thing: Manifest) -> Run | str:
    """Return the run, or what is wrong with its spec. A status that doesn't parse counts as none."""
    spec = RUN_SPECS.read(thing)
    if isinstance(spec, str):
        return spec
    metadata = thing["metadata"]
    status = parsed(FineTuneRunStatus, thing.get("status") or {})
    return Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp", ""),
        spec=spec,
        status=FineTuneRunStatus() if isinstance(status, str) else status,
    )
