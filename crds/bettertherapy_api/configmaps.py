"""The two ConfigMaps of an operator before RoutingSlice and PodReport: read only to move on from them.

The routing table was stored as JSON under `names.ROUTING_KEY` in the ConfigMap `names.routing_name(pool)`, each pod's
report under its name in `names.report_name(pool)`.
"""

from __future__ import annotations

from pydantic import Field

from bettertherapy_api.document import Document as _Doc
from bettertherapy_api.report import AdapterReport, EngineReport, Slots


class Adapter(_Doc):
    """One adapter that every engine pod of the pool must hold."""

    twin: str
    digest: str
    served_name: str = Field(alias="servedName")
    uri: str
    rank: int
    """The rank the twin declares; the agent refuses an artifact whose own rank differs or exceeds the pool's."""


class Version(_Doc):
    """One version of a twin that may answer now."""

    served_name: str = Field(alias="servedName")
    """The adapter's served name, or the base model's name for a twin without an adapter."""
    digest: str | None = None
    """None for the base model itself."""
    weight_percent: int = Field(alias="weightPercent", ge=0, le=100)


class Twin(_Doc):
    """How requests for one twin are answered. Weights of its versions add up to 100."""

    versions: tuple[Version, ...]
    system_prompt: str | None = Field(default=None, alias="systemPrompt")
    doctor: str | None = None


class BaseModelRef(_Doc):
    """The pool's base model, as its engine serves it."""

    name: str
    revision: str | None = None


class RoutingTable(_Doc):
    """All a pool's data plane needs to know."""

    pool: str
    generation: int
    """The MinerPool's metadata.generation the table was made from."""
    base_model: BaseModelRef = Field(alias="baseModel")
    max_loras: int = Field(alias="maxLoras")
    max_lora_rank: int = Field(alias="maxLoraRank")
    adapters: tuple[Adapter, ...] = ()
    twins: dict[str, Twin] = Field(default_factory=dict)
    """Keyed by DoctorTwin name, which is also the model name that clients ask for."""


class PodReport(_Doc):
    """All one agent says. It changes only when something changed: no counters, no clocks that tick."""

    pod: str
    address: str
    """`ip:port` of the agent's allow-listed proxy; an IPv6 address stands in brackets."""
    uid: str
    """The pod's UID: a StatefulSet or a recreated pod may reuse a name."""
    ready: bool
    draining: bool = False
    engine: EngineReport
    adapters: dict[str, AdapterReport] = Field(default_factory=dict)
    """Keyed by served name."""
    slots: Slots | None = None
    cold_start_seconds: int | None = Field(default=None, alias="coldStartSeconds")
    """From the agent's start to the engine's first answer."""
    observed_generation: int | None = Field(default=None, alias="observedGeneration")
    """Generation of the newest routing table this agent has read."""
