"""RoutingSlice: what the operator tells a pool's agents to hold and its miners to send where, in bounded pieces.

A pool has several: `names.routing_slice_name` with up to 100 twins each, `names.pods_slice_name` with the addresses of
its engine pods, `names.prompts_slice_name` with the system prompts. Readers follow them all by the pool's label and
merge them; they keep the last good entry when one doesn't parse, so that serving never depends on the control plane.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from bettertherapy_api.schema import ApiModel, Digest, DnsName, ModelName, Percent, Str63, Uid, cel, rules

KIND = "RoutingSlice"
PLURAL = "routingslices"

TWINS_PER_SLICE = 100
PODS_PER_SLICE = 1000
PROMPTS_PER_SLICE = 1024
VERSIONS_PER_TWIN = 16
PODS_PER_TWIN = 128
"""So many pods are named at most. A twin that is to be on more is on every pod."""
MAX_PROMPT = 8192
"""Characters of one system prompt."""

PodAddress = Annotated[str, Field(pattern=r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$", max_length=64)]
"""`ip:port`; an IPv6 address stands in brackets. Never a host name: nobody resolves anything here."""


class BaseModelRef(ApiModel):
    """The pool's base model, as its engine serves it."""

    name: ModelName
    """Name under which the engines serve it."""
    revision: Annotated[str | None, Field(max_length=128)] = None
    """Its revision, where the pool names one."""


class PoolHeader(ApiModel):
    """The MinerPool whose slice this is."""

    name: Str63
    """Its name."""
    uid: Uid
    """Its UID."""
    generation: Annotated[int, Field(ge=0)]
    """Its metadata.generation when this was written."""
    base_model: BaseModelRef
    """What its engines serve."""
    max_loras: Annotated[int, Field(ge=0, le=4096)]
    """LoRA slots of one engine."""
    max_lora_rank: Annotated[int, Field(ge=0, le=4096)]
    """Highest rank that an adapter may have."""
    max_at_hand: Annotated[int | None, Field(ge=1, le=65536)] = None
    """Adapters that one engine keeps in memory: what is loaded on demand beyond it makes way for others. Absent: as
    many as it has slots."""
    max_running: Annotated[int | None, Field(ge=1, le=65536)] = None
    """Requests that one engine runs at once: what is more waits in miners, by twin. Absent: nobody knows."""
    miners_have_tokens: bool = False
    """Every miner of the pool brings the pool's tokens: its agents answer nobody who doesn't."""


class Version(ApiModel):
    """One version of a twin that may answer now."""

    served_name: ModelName
    """The adapter's served name, or the base model's name for a twin without an adapter."""
    digest: Digest | None = None
    """The adapter; absent for the base model itself."""
    weight_percent: Percent
    """Share of the twin's sessions that it answers."""


class Adapter(ApiModel):
    """One adapter that the twin's engine pods must hold."""

    served_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """The name under which the engine serves it."""
    digest: Digest
    """sha256 of its manifest.json."""
    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    """Folder where its files are."""
    rank: Annotated[int, Field(ge=1, le=4096)]
    """The rank the twin declares; the agent refuses an artifact whose own rank differs or exceeds the pool's."""


class TwinEntry(ApiModel):
    """One DoctorTwin: how its requests are answered, and what the engines hold for it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=54)]
    """Its name, which is also the model that clients ask for."""
    doctor: Annotated[str | None, Field(max_length=253)] = None
    """The doctor's name, as /v1/models shows it."""
    prompt_digest: Digest | None = None
    """Its system prompt, by `names.prompt_digest`; the text is in some slice's `prompts`. Absent: it has none."""
    versions: Annotated[tuple[Version, ...], Field(max_length=VERSIONS_PER_TWIN)] = ()
    """What may answer now. Their weights add up to 100."""
    adapters: Annotated[tuple[Adapter, ...], Field(max_length=VERSIONS_PER_TWIN)] = ()
    """What the engines must hold: more than the versions, since the next one is loaded before it answers."""
    placement: Literal["Spread", "OnDemand"] | None = None
    """Spread: only `pods` hold its adapters. OnDemand: they hold what doesn't answer yet or is on trial, and load the
    version that answers when it is asked for. Absent: every pod holds all."""
    pods: Annotated[tuple[Uid, ...] | None, Field(max_length=PODS_PER_TWIN)] = None
    """UIDs of the engine pods that miners prefer for it, the first one first. Absent: none before others."""

    def is_held_by(self, pod: Uid) -> bool:
        """Tell whether the pod of this UID is to hold its adapters."""
        return self.placement is None or self.pods is None or pod in self.pods

    @property
    def on_demand(self) -> Adapter | None:
        """The adapter that a pod loads when it is asked for, and may let go: that of the version that answers."""
        if self.placement != "OnDemand" or not self.versions:
            return None
        first = self.versions[0]
        named = (each for each in self.adapters if each.served_name == first.served_name)
        return next((each for each in named if each.digest == first.digest), None)

    def held_by(self, pod: Uid) -> tuple[Adapter, ...]:
        """Return the adapters that the pod of this UID is to hold at all times."""
        if not self.is_held_by(pod):
            return ()
        loaded_later = self.on_demand
        return tuple(each for each in self.adapters if each is not loaded_later)


class PodEntry(ApiModel):
    """One engine pod, as the API server knows it."""

    name: DnsName
    """Name of the pod."""
    address: PodAddress
    """Where its agent listens."""


class RoutingSlice(ApiModel):
    """A piece of a pool's routing: written by the operator, followed by the pool's agents and miners."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.metadata.name.startsWith(self.pool.name + '-routing-')",
                "metadata.name must begin with <pool.name>-routing-: readers take a slice for the pool it is named by",
            ),
        )
    )
    pool: PoolHeader
    """The MinerPool whose slice this is."""
    twins: Annotated[dict[str, TwinEntry] | None, Field(max_length=TWINS_PER_SLICE)] = None
    """Twins by the UID of their DoctorTwin."""
    pods: Annotated[dict[str, PodEntry] | None, Field(max_length=PODS_PER_SLICE)] = None
    """Engine pods by UID. A report of a pod that isn't here is not believed."""
    prompts: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_PROMPT)]] | None, Field(max_length=PROMPTS_PER_SLICE)
    ] = None
    """System prompts by their digest."""


COLUMNS: list[dict[str, Any]] = [
    {"name": "Pool", "type": "string", "jsonPath": ".pool.name"},
    {"name": "Generation", "type": "integer", "jsonPath": ".pool.generation"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["rslice"]
CATEGORIES: list[str] = []
"""None: `kubectl get bettertherapy` lists what people write, not what passes between programs."""
SCALE: dict[str, str] | None = None
SELECTABLE: list[str] = []
