"""PodReport: what an agent says about its engine, a miner or a gateway about its subnet. Named as its pod, owned by it,
written by its identity alone.

Where a pod can be reached is not in it: that comes from the operator, which has it from the API server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from bettertherapy_api.faults import printable
from bettertherapy_api.schema import ApiModel, Digest, DnsName, Str63, Time, Uid, cel, rules

KIND = "PodReport"
PLURAL = "podreports"

MAX_ADAPTERS = 4096
MAX_MESSAGE = 1024
"""Characters of a message; agents cut what is longer."""
GATEWAY_REPORT_SECONDS: Final = 120
"""So often about a gateway says anew what it sees, though nothing changed."""
GATEWAY_STALE_SECONDS: Final = 600
"""What a gateway said that long ago is not taken for what it sees."""

MOST_MINERS: Final = 65_536
"""UIDs that a subnet can have."""
MOST_TWINS: Final = 1_000_000
MOST_BLOCK: Final = 2**53

MAX_TASKS: Final = 16
"""Tasks that one miner may be asking its operator about."""

Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
Hotkey = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$", max_length=64)]
Count = Annotated[int, Field(ge=0)]


def as_message(text: str) -> str:
    """Return a sentence as a report may hold it: cut, and without halves of characters, which no JSON could carry."""
    return text[:MAX_MESSAGE].encode("utf-8", "replace").decode()


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
    MODULES_NOT_WRAPPED = "ModulesNotWrapped"
    ENGINE_REFUSED = "EngineRefused"
    ENGINE_UNREACHABLE = "EngineUnreachable"
    ROOT_MISMATCH = "RootMismatch"
    FINGERPRINT_MISMATCH = "FingerprintMismatch"
    NO_EFFECT = "NoEffect"
    ENDPOINT_NOT_LOADABLE = "EndpointNotLoadable"
    NO_SPACE = "NoSpace"
    ADAPTER_INVALID = "AdapterInvalid"
    WEIGHTS_NOT_FINITE = "WeightsNotFinite"


_REASONS: Final = frozenset(FailureReason)


class Proof(StrEnum):
    """What the verdict Verified rests on, beyond digests and `root`."""

    FINGERPRINT = "Fingerprint"
    """Finite, different from the base model's, and likelier its own answers than its parent's or the base model's."""
    FIRST_LOAD = "FirstLoad"
    """No fingerprint recorded: finite, different from a sound base model's, and the same at each load in this pod."""
    UNPROVEN = "Unproven"
    """Nothing could be measured (a foreign server), or nothing tells it from its parent in this pool's noise."""


class PodRef(ApiModel):
    """The pod that a report speaks of."""

    name: DnsName
    """Its name."""
    uid: Uid
    """Its UID: a recreated pod may reuse a name."""


class AdapterReport(ApiModel):
    """One adapter on one pod."""

    @model_validator(mode="before")
    @classmethod
    def _reason_of_another_release(cls, said: Any) -> Any:
        """Keep a reason that is not known here in the message: the adapter failed all the same."""
        reason = said.get("reason") if isinstance(said, dict) else None
        if not isinstance(reason, str) or reason in _REASONS:
            return said
        return {**said, "reason": None, "message": f"{reason}: {said.get('message') or 'no message'}"[:MAX_MESSAGE]}

    twin: Str63
    """Name of the DoctorTwin it belongs to."""
    twin_uid: Annotated[Uid | None, Field(alias="twinUID")] = None
    """That twin's UID."""
    digest: Digest
    """sha256 of its manifest.json."""
    state: AdapterState
    """Where it is on its way into the engine."""
    reason: FailureReason | None = None
    """For Failed: why, as one word."""
    message: Message | None = None
    """For Failed: a sentence that says what is wrong and what to do."""
    retryable: bool | None = None
    """For Failed: whether the agent goes on trying (the store is down) or waits for a new spec (digest mismatch)."""
    fingerprint_milli_nats: Count | None = None
    """Mean absolute log-probability difference to the manifest's fingerprint, in 1/1000 nats."""
    load_millis: Count | None = None
    """From the load request to Verified, in milliseconds."""
    proof: Proof | None = None
    """For Verified."""
    attention_only: bool | None = None
    """Whether it changes attention's projections alone; absent until its files were read."""
    measured_milli_nats: Annotated[tuple[int, ...] | None, Field(max_length=16)] = None
    """For FirstLoad: log-probabilities of the standard questions. Pods of one pool agree to 100 on average."""

    def rests_on(self) -> Proof | None:
        """Return what its verdict rests on, None before there is one; an older agent names none but its fingerprint."""
        if self.state is not AdapterState.VERIFIED:
            return None
        measured = Proof.UNPROVEN if self.fingerprint_milli_nats is None else Proof.FINGERPRINT
        return self.proof or measured


class EngineReport(ApiModel):
    """The engine process beside the agent."""

    live: bool
    """It answers and makes progress. False before it answers, and when it is wedged."""
    wedged: bool = False
    """It has requests and makes no progress, or its base model answers wrongly. `message` says which."""
    version: Annotated[str | None, Field(max_length=64)] = None
    """Its version, as it says."""
    started_at: Annotated[str | None, Field(max_length=64)] = None
    """RFC 3339, from process_start_time_seconds; a change means the engine restarted and forgot its adapters."""
    max_model_length: Count | None = None
    """Longest conversation in tokens."""
    base_digest: Digest | None = None
    """Over the files of the base model that it loaded, as they were hashed for this pod; absent where nobody did."""
    message: Message | None = None
    """Why it is not live, as a sentence."""
    template_refusal: Message | None = None
    """Why its chat template takes no conversation, so that every patient is turned away; absent while it takes some."""


class Slots(ApiModel):
    """LoRA slots of the engine."""

    used: Count
    """Adapters that answered requests lately, not those merely resident."""
    total: Count
    """Slots that the engine has."""


class Registration(StrEnum):
    """Where a miner stands on its subnet; stable, shown as the reason of its pool's MinerRegistered condition."""

    REGISTERED = "Registered"
    NOT_REGISTERED = "NotRegistered"
    FOREIGN_OWNER = "ForeignOwner"
    CHAIN_UNREACHABLE = "ChainUnreachable"
    WALLET_MISSING = "WalletMissing"
    COLDKEY_FOUND = "ColdkeyFound"
    ADDRESS_MISSING = "AddressMissing"
    ADDRESS_REFUSED = "AddressRefused"


class SubnetReport(ApiModel):
    """A miner's place on its subnet, as it last saw it on the chain."""

    registration: Registration
    """Where it stands. ChainUnreachable: uid, axon and block are those of the last metagraph."""
    message: Message | None = None
    """What is wrong and what to do, as a sentence; absent when all is well."""
    netuid: Annotated[int | None, Field(ge=0, le=65535)] = None
    """The subnet."""
    hotkey: Hotkey | None = None
    """ss58 address of the key that signs for this miner."""
    uid: Annotated[int | None, Field(ge=0, le=65535)] = None
    """Its place on the subnet."""
    registered_at_block: Count | None = None
    """Block of its registration."""
    axon: Annotated[str | None, Field(max_length=64)] = None
    """Where the chain says that it serves, as ip:port."""
    block: Count | None = None
    """For ChainUnreachable: block of the last metagraph that was read."""
    read_at: Time | None = None
    """For ChainUnreachable: when that was."""


class TaskClaim(ApiModel):
    """A fine-tune task that a validator offers, and that the miner would take."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length=36)]
    """Its UUID, by which the validator keeps it."""
    validator: Hotkey
    """Who offers and signed it."""
    twin: Annotated[str, Field(min_length=1, max_length=54)]
    """Name of the DoctorTwin."""
    twin_uid: Annotated[Uid, Field(alias="twinUID")]
    """UID of the twin that has the name in this pool's routing."""
    dataset: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s]+$")]
    """Where it is fetched; whoever has the address has it, until the deadline."""
    dataset_digest: Digest
    """sha256 of the dataset."""
    interactions: Annotated[int, Field(ge=1, le=100_000_000)]
    """Its lines."""
    parent_digest: Digest | None = None
    """Version from which is trained; absent for the base model itself."""
    deadline: Time
    """What is reported later counts for nothing."""


class Demand(ApiModel):
    """What patients ask of a miner that no engine pod is there for."""

    held_since: Time | None = None
    """Since when requests wait because no engine pod is ready; absent while none does. It wakes a pool that sleeps."""


class GatewayView(ApiModel):
    """What a validator's gateway sees of its subnet."""

    netuid: Annotated[int, Field(ge=0, le=65535)]
    """The subnet."""
    reachable: bool
    """Whether the subnet's metagraph can be read from the chain. False: all else is that of the last one."""
    message: Annotated[Message, AfterValidator(printable)] | None = None
    """Why it can't be read, as a sentence; absent while it can."""
    miners: Annotated[int | None, Field(ge=0, le=MOST_MINERS)] = None
    """Miners that have an address in the metagraph in use; absent while none was ever read."""
    twins: Annotated[int | None, Field(ge=0, le=MOST_TWINS)] = None
    """Twins that the gateway answers for and some miner announced lately; absent until all were asked once."""
    permit: bool | None = None
    """Whether the validator has its permit there, without which miners refuse it; absent while none was ever read, and
    for one without a hotkey."""
    block: Annotated[int | None, Field(ge=0, le=MOST_BLOCK)] = None
    """Block of the metagraph in use."""
    read_at: Time | None = None
    """When that metagraph was read."""
    ledger_trouble: Annotated[Message, AfterValidator(printable)] | None = None
    """Why what patients ask and are answered doesn't come into the ledger, or not even into the queue before it, as a
    sentence; absent while it does."""
    reported_at: Time
    """When the gateway said all this; what is too old doesn't count."""


class Holdings(ApiModel):
    """What an agent says beside whether its engine answers."""

    pod: PodRef
    """The pod it speaks of."""
    draining: bool = False
    """New requests are refused, because the pod stops."""
    adapters: Annotated[dict[str, AdapterReport], Field(default_factory=dict, max_length=MAX_ADAPTERS)]
    """Adapters by served name."""
    slots: Slots | None = None
    """LoRA slots of the engine."""
    cold_start_seconds: Count | None = None
    """From the agent's start to the engine's first answer."""
    observed_generation: Count | None = None
    """Generation of the MinerPool in the newest routing that the agent has read."""


class PodReport(Holdings):
    """All that one agent says of its pod. It changes only when something changed: no counters, no clocks that tick."""

    ready: bool
    """The engine answers, the adapters desired when it came up are settled, and nothing drains."""
    engine: EngineReport
    """The engine process."""


class MinerReport(ApiModel):
    """All that one miner says of its pod; it changes as rarely."""

    pod: PodRef
    """The pod it speaks of."""
    subnet: SubnetReport | None = None
    """Its place on the subnet; absent for a miner without a wallet."""
    demand: Demand | None = None
    """What is asked of it and can't be answered for want of an engine pod; a miner of a pool that may sleep has it."""
    tasks: Annotated[list[TaskClaim] | None, Field(max_length=MAX_TASKS)] = None
    """Fine-tune tasks that it was offered and that wait for the operator's word."""


class GatewayReport(ApiModel):
    """All that one gateway says of its pod. It is written anew now and then, by which one knows that it still holds."""

    pod: PodRef
    """The pod it speaks of."""
    gateway: GatewayView
    """What it sees of its subnet."""


class StoredReport(Holdings):
    """What one pod says of itself: an agent of its engine, a miner or a gateway of its subnet."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("self.metadata.name == self.pod.name", "metadata.name must be pod.name: a report speaks of one pod"),
            cel(
                "[has(self.engine), has(self.subnet) || has(self.demand), has(self.gateway)].filter(x, x).size() == 1",
                "a report has engine (an agent's), subnet or demand (a miner's), or gateway (a gateway's): set one of "
                "them",
            ),
            cel(
                "has(self.engine) == has(self.ready)",
                "ready goes with engine: set both, or none in a miner's or a gateway's report",
            ),
            cel("!has(self.tasks) || has(self.subnet)", "tasks are a miner's: set subnet too, or remove them"),
        )
    )
    ready: bool | None = None
    """The engine answers, the adapters desired when it came up are settled, and nothing drains."""
    engine: EngineReport | None = None
    """The engine process; an agent's report has it."""
    subnet: SubnetReport | None = None
    """The miner's place on its subnet; the report of a miner with a wallet has it."""
    demand: Demand | None = None
    """What is asked of a miner and can't be answered for want of an engine pod."""
    tasks: Annotated[list[TaskClaim] | None, Field(max_length=MAX_TASKS)] = None
    """Fine-tune tasks that a miner was offered and that wait for the operator's word."""
    gateway: GatewayView | None = None
    """What a validator's gateway sees of its subnet; a gateway's report has it."""


STORED = StoredReport
"""What the definition is made from; readers parse PodReport, MinerReport or GatewayReport."""
COLUMNS: list[dict[str, Any]] = [
    {"name": "Ready", "type": "boolean", "jsonPath": ".ready"},
    {"name": "Live", "type": "boolean", "jsonPath": ".engine.live"},
    {"name": "Draining", "type": "boolean", "jsonPath": ".draining"},
    {"name": "Engine", "type": "string", "jsonPath": ".engine.version"},
    {"name": "Subnet", "type": "string", "jsonPath": ".subnet.registration"},
    {"name": "Chain", "type": "boolean", "jsonPath": ".gateway.reachable", "priority": 1},
    {"name": "Generation", "type": "integer", "jsonPath": ".observedGeneration", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
SHORT_NAMES = ["preport"]
CATEGORIES: list[str] = []
SCALE: dict[str, str] | None = None
SELECTABLE: list[str] = []
