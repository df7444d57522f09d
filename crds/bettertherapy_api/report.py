"""The pod report: what an agent says about its engine, one JSON document per pod in the ConfigMap `P-report`."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from bettertherapy_api.routing import _Doc


class AdapterState(StrEnum):
    """Where an adapter is on its way into one pod."""

    FETCHING = "Fetching"
    LOADING = "Loading"
    VERIFYING = "Verifying"
    VERIFIED = "Verified"
    FAILED = "Failed"
    UNLOADING = "Unloading"


class FailureReason(StrEnum):
    """Why an adapter is not Verified; stable, shown as the reason of the twin's AdaptersVerified condition."""

    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    STORE_UNREACHABLE = "StoreUnreachable"
    ACCESS_DENIED = "AccessDenied"
    DIGEST_MISMATCH = "DigestMismatch"
    MANIFEST_INVALID = "ManifestInvalid"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"
    RANK_MISMATCH = "RankMismatch"
    RANK_TOO_HIGH = "RankTooHigh"
    ENGINE_REFUSED = "EngineRefused"
    ENGINE_UNREACHABLE = "EngineUnreachable"
    ROOT_MISMATCH = "RootMismatch"
    FINGERPRINT_MISMATCH = "FingerprintMismatch"
    WEIGHTS_NOT_FINITE = "WeightsNotFinite"
    NO_EFFECT = "NoEffect"
    ENDPOINT_NOT_LOADABLE = "EndpointNotLoadable"
    NO_SPACE = "NoSpace"


class Proof(StrEnum):
    """What the verdict Verified rests on, beyond digests and `root`."""

    FINGERPRINT = "Fingerprint"
    """Finite, different from the base model's, and likelier its own answers than its parent's or the base model's."""
    FIRST_LOAD = "FirstLoad"
    """No fingerprint recorded: finite, different from a sound base model's, and the same at each load in this pod."""
    UNPROVEN = "Unproven"
    """Nothing could be measured (a foreign server), or nothing tells it from its parent in this pool's noise."""


class AdapterReport(_Doc):
    """One adapter on one pod."""

    twin: str
    digest: str
    state: AdapterState
    reason: FailureReason | None = None
    message: str | None = None
    """For Failed: a sentence that says what is wrong and what to do."""
    retryable: bool | None = None
    """For Failed: whether the agent goes on trying (the store is down) or waits for a new spec (digest mismatch)."""
    fingerprint_milli_nats: int | None = Field(default=None, alias="fingerprintMilliNats")
    """Mean absolute log-probability difference to the manifest's fingerprint, in 1/1000 nats."""
    load_millis: int | None = Field(default=None, alias="loadMillis")
    proof: Proof | None = None
    """For Verified."""
    measured_milli_nats: tuple[int, ...] | None = Field(default=None, alias="measuredMilliNats", max_length=16)
    """For FirstLoad: log-probabilities of the standard questions. Pods of one pool agree to 100 on average."""


class EngineReport(_Doc):
    """The engine process beside the agent."""

    live: bool
    """It answers and makes progress. False before it answers, and when it is wedged."""
    wedged: bool = False
    version: str | None = None
    started_at: str | None = Field(default=None, alias="startedAt")
    """RFC 3339, from process_start_time_seconds; a change means the engine restarted and forgot its adapters."""
    max_model_length: int | None = Field(default=None, alias="maxModelLength")
    message: str | None = None


class Slots(_Doc):
    """LoRA slots of the engine. `used` counts adapters that answered requests lately, not those merely resident."""

    used: int
    total: int


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
