"""Acto's way: each property of each kind's spec is set to another value and back, on a running system.

The properties come from the schemas of the CustomResourceDefinitions, so a new one is walked as soon as it is there.
Nothing plays admission in memory: here only the operator's side is looked at. tests/api/test_spec_admission.py asks a
real API server which of the same values it takes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.unit.operator.cast import Cast
from tests.unit.operator.documents import schema_of
from tests.unit.operator.kill_points import MortalApi, plain
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.run_samples import run_object
from tests.unit.operator.samples import NAMESPACE, digest
from tests.unit.operator.validator.validators import validator_object
from tests.unit.operator.virtual_time import play
from twin_operator.domain.bounds import Bounds
from twin_operator.engine.queue import work
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.miner_pool.engine_update import CAUSE_ANNOTATION

Schema = Mapping[str, Any]
Path = tuple[str, ...]
"""Names of properties from `spec` on; `0` is the only item of a list."""

CHANGEABLE: Final = ("DoctorTwin", "MinerPool", "Validator")
"""Kinds whose spec admission lets people change; of the others only a real API server is asked."""
KINDS: Final = {"DoctorTwin": "dr-a", "MinerPool": "p", "FineTuneRun": "r1", "Validator": "v"}
"""Kinds that people write, each with the object whose spec is changed."""
SETTLE_SECONDS: Final = 200.0
"""Longer than every delay after which the operator tries something again."""
_WORDS: Final = (
    "b1", "pvc://adapters/other", "hf://o/other", "0 4 * * *", "Asia/Kathmandu", "0.002", "25%", "2Gi", "100m",
    "https://b1.example", "https://b2.example", "http://gpu:8000", "/srv/other", digest("e"), "A1", "1.1.1.1:80", "ws://chain:9944",
    "--other", "NP", "en", "ne",
)  # fmt: skip
_TASK: Final = {
    "id": "11111111-1111-4111-8111-111111111111", "pool": "p", "deadline": "2026-01-03T00:00:00Z",
    "validator": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
}  # fmt: skip
_GIVEN: Final = "https://v.example/v1/tasks/11111111-1111-4111-8111-111111111111/examination?signature=ab"
_CANDIDATE: Final = {
    "task": _TASK["id"], "validator": "v", "miner": _TASK["validator"], "digest": digest("b"),
    "delivered": "pvc://deliveries/tasks", "deadline": _TASK["deadline"],
    "heldOut": {"uri": _GIVEN, "digest": digest("e")},
}  # fmt: skip
_GROUP: Final = {"device": "GPU", "group": {"nodes": 2, "adaptersClaimName": "b1"}}
_WEIGHTS: Final = {"correctness": 40, "speed": 30, "satisfaction": 20, "participation": 10}
OVERRIDES: Final[Mapping[str, Mapping[str, Any]]] = {
    "DoctorTwin.placement.replicas": {"placement": {"mode": "Spread", "replicas": 2}},
    "DoctorTwin.placement.mode": {"placement": {"mode": "OnDemand"}},
    "MinerPool.engine.endpoint": {"engine": {"endpoint": "http://gpu:8000", "device": None, "maxLoras": None}},
    "MinerPool.engine.secretRef": {"engine": {
        "endpoint": "http://gpu:8000", "secretRef": {"name": "b1"}, "device": None, "maxLoras": None,
    }},
    "MinerPool.engine.secretRef.name": {"engine": {
        "endpoint": "http://gpu:8000", "secretRef": {"name": "b2"}, "device": None, "maxLoras": None,
    }},
    "MinerPool.engine.maxLoras": {"engine": {"maxLoras": 5}},
    "MinerPool.engine.maxLoraRank": {"engine": {"maxLoraRank": 32}},
    **{f"MinerPool.engine.group{part}": {"engine": _GROUP} for part in ("", ".nodes", ".adaptersClaimName")},
    "MinerPool.miner.externalAddress": {"miner": {"externalAddress": "1.1.1.1:80"}},
    "MinerPool.autoscaling.min": {"autoscaling": {"min": 1, "max": 2}},
    "Validator.chain": {"chain": {"network": "test"}},
    "Validator.chain.network": {"chain": {"network": "test"}},
    "Validator.gateway.replicas": {"gateway": {"replicas": 2}, "ledger": {"uriSecretRef": {"name": "b1"}}},
    "Validator.scoring": {"scoring": {"weightsPercent": _WEIGHTS}},
    "Validator.scoring.weightsPercent": {"scoring": {"weightsPercent": _WEIGHTS}},
    **{f"Validator.scoring.weightsPercent.{part}": {"scoring": {"weightsPercent": _WEIGHTS}} for part in _WEIGHTS},
    "Validator.scoring.sources": {"scoring": {"weightsPercent": _WEIGHTS, "sources": ["b1"]}},
    "Validator.scoring.alphaPercent": {"scoring": {"weightsPercent": _WEIGHTS, "alphaPercent": 31}},
    "MinerPool.miner.tasks.accept": {"miner": {"walletSecretRef": {"name": "b1"}, "tasks": {"accept": True}}},
    **{f"FineTuneRun.task{part}": {"task": _TASK} for part in ("", *(f".{each}" for each in _TASK))},
    **{
        f"FineTuneRun.candidate{part}": {"candidate": _CANDIDATE, "dataset": {"uri": _GIVEN, "digest": digest("d")}}
        for part in ("", *(f".{each}" for each in _CANDIDATE), ".heldOut.uri", ".heldOut.digest")
    },
    "FineTuneRun.candidate.earlier": {
        "candidate": {**_CANDIDATE, "earlier": [digest("c")]}, "dataset": {"uri": _GIVEN, "digest": digest("d")},
    },
    "FineTuneRun.dataset.interactions": {"dataset": {"digest": digest("e"), "interactions": 5}},
}  # fmt: skip
"""Where a rule wants partners: what is merged into the spec; None takes a field away."""


ANYTHING: Final = json.dumps({name: ["*"] for name in json.loads(Bounds().model_dump_json(by_alias=True))})
"""Bounds that allow whatever is walked through: what is out of bounds has no effect."""
USUAL: Final[Mapping[str, Any]] = {
    "args": ["--seed=1"],
    "env": [{"name": "B1", "value": "b1"}],
    "volumes": [{"name": "b1", "mountPath": "/srv/b1", "emptyDir": {}}],
    "valueFrom": {"secretKeyRef": {"name": "b1", "key": "b1"}},
}
"""Parts, by their names, of which a rule wants more than their schema."""
RIVALS: Final = (
    frozenset({"value", "valueFrom"}), frozenset({"secretKeyRef", "configMapKeyRef"}),
    frozenset({"claimName", "secretName", "configMapName", "emptyDir"}), frozenset({"claimName", "hostPath"}),
)  # fmt: skip
"""Of each of these only one may be set."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One property with its other value."""

    kind: str
    path: Path
    spec: Manifest
    """The whole spec with the other value."""

    @property
    def name(self) -> str:
        """`Kind.a.b`."""
        return ".".join((self.kind, *self.path))


def changes(kind: str, spec: Manifest) -> Iterator[Change]:
    """Return a change for each property that the kind's schema knows, beginning with this spec."""
    schema = schema_of(kind)["properties"]["spec"]
    for path in _paths(schema):
        name = ".".join((kind, *path))
        if name in OVERRIDES:
            changed = _merged(spec, OVERRIDES[name])
        else:
            changed = _with(schema, copy.deepcopy(spec), path)
        if changed == spec:
            raise AssertionError(f"{name} has no other value: give it one in OVERRIDES")
        yield Change(kind=kind, path=path, spec=changed)


def _paths(schema: Schema) -> Iterator[Path]:
    for name, node in (schema.get("properties") or {}).items():
        yield (name,)
        yield from ((name, *rest) for rest in _paths(node))
    if "items" in schema:
        yield from (("0", *rest) for rest in _paths(schema["items"]))


def _with(schema: Schema, value: Any, path: Path) -> Any:
    """Return the value with another one at `path`; what is missing on the way is the least that is valid."""
    if not path:
        return other(schema, value)
    name, rest = path[0], path[1:]
    if name == "0":
        items = value if isinstance(value, list) and value else [least(schema["items"])]
        return [_with(schema["items"], items[0], rest), *items[1:]]
    whole = dict(value) if isinstance(value, dict) else least(schema)
    for rivals in RIVALS:
        if name in rivals:
            whole = {each: part for each, part in whole.items() if each == name or each not in rivals}
    known = whole.get(name)
    if name in USUAL and not known:
        known = copy.deepcopy(USUAL[name])
        if not rest:
            return {**whole, name: known}
    whole[name] = _with(schema["properties"][name], known, rest)
    return whole


def other(schema: Schema, value: Any) -> Any:
    """Return a valid value that is not `value`, nor what its absence means."""
    usual = value if value is not None else schema.get("default")
    return next((made for made in _values(schema) if made not in (value, usual)), value)


def least(schema: Schema) -> Any:
    """Return a small valid value."""
    return next(_values(schema))


def _values(schema: Schema) -> Iterator[Any]:
    kind = schema.get("type")
    if "enum" in schema:
        yield from schema["enum"]
    elif schema.get("x-kubernetes-int-or-string"):
        yield from (1, 2, "25%", "2Gi")
    elif kind == "object" and "properties" in schema:
        required = {name: least(schema["properties"][name]) for name in schema.get("required") or ()}
        yield required
        for name, node in schema["properties"].items():
            yield from ({**required, name: made} for made in _values(node))
    elif kind == "object":
        inner = schema.get("additionalProperties")
        yield from ({"cpu": made} for made in _values(inner if isinstance(inner, dict) else {"type": "string"}))
    elif kind == "array":
        yield from ([made] for made in _values(schema["items"]))
    elif kind == "integer":
        minimum = schema.get("minimum", 0)
        yield from range(minimum + 1, min(minimum + 6, schema.get("maximum", 2**31) + 1))
        yield minimum
    elif kind == "boolean":
        yield from (True, False)
    else:
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1024)
        yield from (
            word for word in _WORDS if shortest <= len(word) <= longest and re.search(schema.get("pattern", ""), word)
        )


def _merged(spec: Any, more: Any) -> Any:
    if not isinstance(more, Mapping):
        return more
    whole = dict(spec) if isinstance(spec, dict) else {}
    for name, value in more.items():
        if value is None:
            whole.pop(name, None)
        else:
            whole[name] = _merged(whole.get(name), value)
    return whole


@dataclass(kw_only=True)
class Walked:
    """What came of the changes."""

    done: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By the change's name: in what the end differs from the start, or what was raised."""
    without_effect: list[str] = field(default_factory=list)
    """Changes that left all children and conditions as they were."""


def starting_specs() -> dict[str, Manifest]:
    """Return the specs that the walk begins with, by kind."""

    async def found() -> dict[str, Manifest]:
        async with _Running() as system:
            return {kind: system.spec(kind) for kind in KINDS}

    return play(found())


def walk(kinds: Sequence[str] = CHANGEABLE, *, every: int = 1, first: int = 0) -> Walked:
    """Set each `every`-th property to another value and back."""
    return play(_walk(kinds, every=every, first=first))


async def _walk(kinds: Sequence[str], *, every: int, first: int) -> Walked:
    walked = Walked()
    for kind in kinds:
        async with _Running() as system:
            planned = list(changes(kind, system.spec(kind)))[first::every]
        while planned:
            async with _Running() as system:  # a fault may leave traces: what follows begins with a new system
                while planned:
                    change = planned.pop(0)
                    walked.done += 1
                    if not await system.there_and_back(change, walked):
                        break
    return walked


class _Running:
    """Pool, twin, a run under way and a validator, with the operator at work."""

    def __init__(self) -> None:
        self.api = MortalApi()
        self.world = Played(self.api, tenants=ANYTHING)
        self.cast = Cast(self.api, {})
        self.changed = asyncio.Event()
        self.api.listeners.append(lambda event, thing: self.changed.set())
        self.raised: list[Exception] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Running:
        process = self.world.process
        await self.world.lead()
        self._tasks = [
            asyncio.create_task(work(process.queue, self._reconcile, may_work=process._may_work)),
            asyncio.create_task(self._surroundings()),
        ]
        self.world.start_pool(store={"uri": "pvc://adapters/store"}, replicas=1)
        self.world.start_twin(systemPrompt="You are Dr. A.")
        made = run_object(parentDigest=digest("a"))
        self.api.put({part: made[part] for part in ("apiVersion", "kind", "spec")} | {
            "metadata": {"name": "r1", "namespace": NAMESPACE},
        })  # fmt: skip
        self.api.put({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hotkey", "namespace": NAMESPACE},
        })  # fmt: skip
        self.api.put(without_server_fields(validator_object()))
        await self.settle()
        assert self.world.condition("Ready", self.api.kinds("Validator")["v"])[0] == "True"
        assert self.world.condition("Ready", self.world.twin())[0] == "True"
        assert self.world.condition("Running", self.api.kinds("FineTuneRun")["r1"])[0] == "True"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _surroundings(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            await asyncio.sleep(0.5)
            self.cast.act()

    async def _reconcile(self, key: Key) -> None:
        try:
            await self.world.process._reconcile(key)
        except Exception as error:
            self.raised.append(error)
            raise

    async def settle(self) -> None:
        """Wait until nothing changes any more."""
        for _ in range(20):
            before = self.api.changes
            await asyncio.sleep(SETTLE_SECONDS)
            if before == self.api.changes:
                return
        raise AssertionError("it does not come to rest")

    def spec(self, kind: str) -> Manifest:
        """Return the spec of the kind's object."""
        spec: Manifest = copy.deepcopy(self.api.kinds(kind)[KINDS[kind]]["spec"])
        return spec

    async def there_and_back(self, change: Change, walked: Walked) -> bool:
        """Change, settle, change back, settle; tells whether all is as before."""
        key = Key(change.kind, NAMESPACE, KINDS[change.kind])
        spec, before = self.spec(change.kind), self.state()
        self.raised.clear()
        faults: list[str] = []
        try:
            self.api.put_spec(key, change.spec)
            await self.settle()
            there = self.state()
            self.api.put_spec(key, spec)
            await self.settle()
            self.world.process._add_all()  # the resync: what nobody uses any more is tidied away by it
            await self.settle()
        except AssertionError as error:
            walked.faults[change.name] = [str(error)]
            return False
        if there == before:
            walked.without_effect.append(change.name)
        faults += [f"raised {error!r}" for error in self.raised if not _expected(error)]
        after = self.state()
        faults += [
            f"{name}: {before.get(name)} before, {after.get(name)} after"
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
        if faults:
            walked.faults[change.name] = faults
        return not faults

    def state(self) -> dict[str, str]:
        """Return children's specs, slices, and conditions' types, states and reasons."""
        found = {}
        for key, thing in self.api.objects.items():
            if key.kind in KINDS:
                conditions = (thing.get("status") or {}).get("conditions") or []
                said: Any = sorted((each["type"], each["status"], each["reason"]) for each in conditions)
            elif key.kind == "Secret":
                said = "a Secret"
            else:
                metadata = {part: thing["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")}
                # What the last update came from is no part of what was asked: on the way back from an image of the
                # pool's own, the operator's is brought, and others wait until it is seen to work.
                told = {
                    name: said for name, said in (metadata["annotations"] or {}).items() if name != CAUSE_ANNOTATION
                }
                metadata["annotations"] = told
                rest = {name: part for name, part in thing.items() if name not in ("metadata", "status")}
                said = plain({**rest, "metadata": metadata}, self._identities)
                if key.kind == "RoutingSlice":
                    said.get("pool", {}).pop("generation", None)
            found[f"{key.kind} {key.name}"] = json.dumps(said, sort_keys=True)
        return found

    @property
    def _identities(self) -> dict[str, str]:
        """Pods and what belongs to them may be others than before."""
        return {uid: re.sub(r" \d+>$", ">", name) for uid, name in self.api.identities.items()}


def _expected(error: Exception) -> bool:
    return type(error).__module__ == "twin_operator.errors"


def unknown_overrides() -> list[str]:
    """Return the names in OVERRIDES that no schema knows any more."""
    known = {".".join((kind, *path)) for kind in KINDS for path in _paths(schema_of(kind)["properties"]["spec"])}
    return sorted(OVERRIDES.keys() - known)
