"""The routing table: what the operator tells a pool's agents to hold and its miners to send where.

Stored as JSON under `names.ROUTING_KEY` in the ConfigMap `names.routing_name(pool)`. Readers keep their last good
table when the API server can't be reached or a table doesn't parse, so serving never depends on the control plane.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Doc(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    def to_json(self) -> str:
        """Return canonical JSON: the same document gives the same bytes, so an unchanged table is never rewritten."""
        import json  # noqa: PLC0415

        return json.dumps(
            self.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=True, separators=(",", ":")
        )


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
