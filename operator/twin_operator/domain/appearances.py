"""Where each reason may stand: by kind, condition and status. The documentation is made from it, tests hold it true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeAlias

from bettertherapy_api.report import FailureReason, Registration
from twin_operator.domain import reasons

R: TypeAlias = reasons.Reason


@dataclass(frozen=True, kw_only=True)
class Place:
    """A condition with a status, or a field of a status, and the reasons that it may give."""

    where: str
    """As a person reads it: `Ready=False`, `failure.class`."""
    reasons: tuple[R, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the documentation: a subject and its places."""

    name: str
    """Names the markers between which it is written."""
    kind: str
    places: tuple[Place, ...]
    again: bool = False
    """Whether a column says what is tried again by itself."""
    told_elsewhere: Mapping[str, frozenset[R]] = field(default_factory=dict)
    """Reasons that another table explains, by how a person finds it."""


def _places(places: Mapping[str, tuple[R, ...]]) -> tuple[Place, ...]:
    return tuple(Place(where=where, reasons=reasons) for where, reasons in places.items())


ADAPTER: Final = (
    *(found for said in FailureReason if (found := reasons.reason_of(said.value)) is not None),
    *(reason for reason in (R.WEIGHTS_NOT_FINITE, R.NO_EFFECT) if reason.value not in set(FailureReason)),
    R.ADAPTER_FAILED,
)
"""What agents say of an adapter that failed."""
MINER: Final = tuple(reasons.reason_named(state.value) for state in Registration)
"""What miners say of their place on the subnet."""
ARTIFACT: Final = (
    R.ARTIFACT_NOT_FOUND,
    R.STORE_UNREACHABLE,
    R.ACCESS_DENIED,
    R.DIGEST_MISMATCH,
    R.MANIFEST_INVALID,
    R.ADAPTER_INVALID,
    R.WEIGHTS_NOT_FINITE,
    R.BASE_MODEL_MISMATCH,
    R.RANK_MISMATCH,
    R.RANK_TOO_HIGH,
    R.MODULES_NOT_WRAPPED,
    R.NO_SPACE,
)
"""Failures of the artifact itself, before an engine was asked to load it."""
TRAINER: Final = (
    R.BAD_DATA,
    R.BAD_PARENT,
    R.BAD_MODEL,
    R.BAD_ARTIFACT,
    R.NEAR_COPY,
    R.DIVERGED,
    R.PROCESS_DIED,
    R.UNEXPECTED,
    R.STORE_FAILED,
    R.PUBLISH_FAILED,
    R.OUT_OF_MEMORY,
    R.PREEMPTED,
)
"""What trainers and examiners say of a run that failed."""
FAILED: Final = (
    *TRAINER,
    R.OUT_OF_BOUNDS,
    R.NODE_LOST,
    R.KILLED,
    R.DEADLINE_EXCEEDED,
    R.TASK_OVERDUE,
    R.MODEL_FETCH_FAILED,
    R.TRAINER_CRASHED,
    R.EXAMINER_CRASHED,
    R.NO_REPORT,
    R.REPORT_UNREADABLE,
    R.ARTIFACT_REFUSED,
    R.EXAMINATION_REFUSED,
    R.OWNER_GONE,
    R.TRAINER_FAILED,
)
ROUND: Final = (
    R.LEDGER_UNREACHABLE,
    R.CHAIN_UNREACHABLE,
    R.NOT_REGISTERED,
    R.WALLET_MISSING,
    R.COLDKEY_FOUND,
    R.NO_TWINS,
    R.CHALLENGES_CHANGED,
    R.CHALLENGES_INVALID,
    R.JUDGE_UNREACHABLE,
    R.RESULTS_DIFFER,
)
"""What a round's Jobs say of why they failed."""
ROUND_FAILED: Final = (
    *ROUND,
    R.OUT_OF_MEMORY,
    R.PREEMPTED,
    R.NODE_LOST,
    R.KILLED,
    R.DEADLINE_EXCEEDED,
    R.ROUND_CRASHED,
    R.NO_REPORT,
    R.REPORT_UNREADABLE,
    R.OWNER_GONE,
    R.ROUND_ERROR,
)
_STUCK: Final = (
    R.NO_POOL_MATCHES,
    R.POOL_UNREADABLE,
    R.BASE_MODEL_MISMATCH,
    R.RANK_TOO_HIGH,
    R.OUT_OF_BOUNDS,
    R.SERVED_NAME_COLLISION,
)
_UNREADABLE: Final = (R.SPEC_INVALID, R.STATUS_UNREADABLE)
LACKS_CAPACITY: Final = (
    R.LEADER_WORKER_SET_MISSING,
    R.UNSCHEDULABLE,
    R.VOLUME_CLAIM_NOT_FOUND,
    R.VOLUME_CLAIM_NOT_BOUND,
    R.PODS_REFUSED,
)
"""The cluster doesn't give a pool what it needs."""
_PODS: Final = (
    R.IMAGE_PULL_FAILED,
    R.SECRET_NOT_FOUND,
    R.CONTAINER_NOT_STARTED,
    *LACKS_CAPACITY,
    R.MODEL_FETCH_FAILED,
    R.ENGINE_CRASHED,
    R.AGENT_CRASHED,
    R.MINER_CRASHED,
)
_POOL: Final = (
    R.OUT_OF_BOUNDS,
    R.CHILD_CONFLICT,
    R.CHILDREN_REFUSED,
    R.APPLY_REFUSED,
    R.ROUTING_REFUSED,
    R.SCALED_TO_ZERO,
    R.ASLEEP,
    R.NO_MINER,
    R.ACCESS_SECRET_MISSING,
    R.ENGINE_WEDGED,
    R.ENDPOINT_UNREACHABLE,
    R.CHAT_TEMPLATE_REFUSES,
    *_PODS,
    R.ENGINES_STARTING,
    R.ROLLING_OUT,
    R.MINER_STARTING,
)
_GATEWAY: Final = (
    R.OUT_OF_BOUNDS,
    R.CHILD_CONFLICT,
    R.CHILDREN_REFUSED,
    R.SECRET_NOT_FOUND,
    R.COLDKEY_FOUND,
    R.GATEWAY_CRASHED,
    R.IMAGE_PULL_FAILED,
    R.CONTAINER_NOT_STARTED,
    R.VOLUME_CLAIM_NOT_FOUND,
    R.VOLUME_CLAIM_NOT_BOUND,
    R.UNSCHEDULABLE,
    R.PODS_REFUSED,
    R.NO_GATEWAY,
)
_TAKEN_BACK: Final = (R.REQUESTED, R.ERROR_RATE, R.RATING, R.LATENCY, R.NO_TRAFFIC)
REFUSED_VERSION: Final = (
    R.ROLLED_BACK,
    R.REJECTED_BY_DOCTOR,
    R.SUPERSEDED,
    R.PARENT_REPLACED,
    R.ANCHOR_LEFT_OUT,
    R.SERVED_NAME_COLLISION,
)
_STAGES: Final = (R.STAGE_STARTING, R.STAGE_DATA, R.STAGE_TRAIN, R.STAGE_PUBLISH, R.STAGE_EVALUATE, R.STAGE_DONE)

_PODLESS: Final = (
    R.JOB_STARTING,
    R.POD_STARTING,
    R.UNSCHEDULABLE,
    R.VOLUME_CLAIM_NOT_FOUND,
    R.VOLUME_CLAIM_NOT_BOUND,
    R.IMAGE_PULL_FAILED,
    R.SECRET_NOT_FOUND,
    R.CONTAINER_NOT_STARTED,
    R.APPLY_REFUSED,
    R.RETRYING,
)
_NO_WEIGHTS: Final = (
    R.WEIGHTS_MISSED,
    R.WEIGHTS_SUPERSEDED,
    R.WEIGHTS_REFUSED,
    R.WEIGHTS_WITHHELD,
    R.WEIGHTS_NOT_ASKED,
    R.WEIGHTS_FAILED,
    R.OWNER_GONE,
)
_WEIGHTS_OPEN: Final = (
    R.WEIGHTS_WAITING,
    R.WEIGHTS_COMMITTED,
    R.REPORT_UNREADABLE,
    *(reason for reason in _PODLESS if reason is not R.JOB_STARTING),
)

_OF_ADAPTER: Final = {"an adapter's reason: see AdaptersVerified": frozenset(ADAPTER) - frozenset(_STUCK)}
_OF_VERSION: Final = {key: found - {R.RANK_MISMATCH} for key, found in _OF_ADAPTER.items()}

TABLES: Final[tuple[Table, ...]] = (
    Table(
        name="twin",
        kind="DoctorTwin",
        told_elsewhere=_OF_ADAPTER,
        places=_places(
            {
                "Ready=True": (R.SERVING,),
                "Ready=False": (
                    *_STUCK,
                    R.ROUTING_REFUSED,
                    R.POOL_NOT_READY,
                    R.SCALED_TO_ZERO,
                    R.ASLEEP,
                    R.LOADING,
                    *_UNREADABLE,
                    *ADAPTER,
                ),
                "Ready=Unknown": (R.ENTRY_UNREADABLE,),
                "Serving=True": (R.VERSION_SERVING,),
                "Serving=False": (
                    *_STUCK,
                    R.ROUTING_REFUSED,
                    R.POOL_NOT_READY,
                    R.SCALED_TO_ZERO,
                    R.ASLEEP,
                    R.LOADING,
                    *ADAPTER,
                ),
                "Serving=Unknown": (R.ENTRY_UNREADABLE,),
                "CapacityAvailable=True": (R.SUFFICIENT,),
                "CapacityAvailable=False": (*LACKS_CAPACITY, R.SLOTS_OVERCOMMITTED),
                "CapacityAvailable=Unknown": (R.NO_POOL,),
                "PlacementActive=True": (R.PLACED, R.NO_ADAPTER),
                "PlacementActive=False": (R.NOT_IMPLEMENTED, R.TOO_FEW_PODS),
                "PlacementActive=Unknown": (R.NO_POOL,),
                "Degraded=True": (R.LATENCY_ABOVE_BASELINE, R.RATING_BELOW_BASELINE),
                "Degraded=False": (R.WITHIN_BASELINE,),
                "Degraded=Unknown": (R.BASELINE_LEARNING,),
            }
        ),
    ),
    Table(
        name="adapter",
        kind="DoctorTwin",
        again=True,
        places=_places(
            {
                "AdaptersVerified=True": (R.VERIFIED, R.NO_ADAPTER),
                "AdaptersVerified=False": (*ADAPTER, R.LOADING),
                "AdaptersVerified=Unknown": (R.UNPROVEN, R.ON_DEMAND, R.NO_POOL),
                "ArtifactVerified=True": (R.DIGEST_MATCHES, R.NO_ADAPTER),
                "ArtifactVerified=False": ARTIFACT,
                "ArtifactVerified=Unknown": (R.NOT_FETCHED, R.ON_DEMAND),
            }
        ),
    ),
    Table(
        name="version",
        kind="DoctorTwin",
        told_elsewhere=_OF_VERSION,
        places=_places(
            {
                "GatePassed=True": (R.PROMOTE, R.AWAITING_APPROVAL),
                "GatePassed=False": (R.REJECT, R.INCONCLUSIVE),
                "GatePassed=Unknown": (
                    R.RUN_UNDER_WAY,
                    R.RUN_REFUSED,
                    R.CANARY_UNDER_WAY,
                    R.NO_TRAINING_POOL,
                    R.NO_STORE,
                    R.RANK_MISMATCH,
                    R.SCHEDULE_INVALID,
                    R.BASE_MODEL_MISMATCH,
                    R.RANK_TOO_HIGH,
                ),
                "Progressing=True": (
                    R.CANARY_LOADING,
                    R.CANARY_STEP,
                    R.CANARY_HELD,
                    R.AWAITING_TRAFFIC,
                    R.LOADING,
                    R.RETRYING,
                    R.POOL_NOT_READY,
                    R.SCALED_TO_ZERO,
                    R.ASLEEP,
                    R.ROUTING_REFUSED,
                    R.ENTRY_UNREADABLE,
                ),
                "Progressing=False": (R.COMPLETE, *_STUCK, *ADAPTER),
                "Progressing's message": (
                    R.WITHIN_LIMITS,
                    R.NO_TRAFFIC,
                    R.NOT_ANALYSED,
                    R.METRICS_UNAVAILABLE,
                    R.METRICS_STALE,
                    R.ERROR_RATE,
                    R.RATING,
                    R.LATENCY,
                ),
                "RolledBack=True": (*_TAKEN_BACK, *ADAPTER, R.ROLLED_BACK),
                "RolledBack=False": (R.NO_ROLLBACK, R.ROLLBACK_UNKNOWN),
                "refusedVersions": REFUSED_VERSION,
            }
        ),
    ),
    Table(
        name="pool",
        kind="MinerPool",
        places=_places(
            {
                "Ready=True": (R.ALL_READY,),
                "Ready=False": (*_POOL, *_UNREADABLE),
                "Available=True": (R.ANSWERING,),
                "Available=False": (*_POOL, R.NO_READY_POD),
                "EngineLive=True": (R.PROGRESSING,),
                "EngineLive=False": (R.ENGINE_WEDGED, R.ENDPOINT_UNREACHABLE, R.MODEL_FETCH_FAILED, R.ENGINE_CRASHED),
                "EngineLive=Unknown": (R.NOT_REPORTED, R.SCALED_TO_ZERO),
                "CapacityAvailable=True": (R.SUFFICIENT,),
                "CapacityAvailable=False": (*LACKS_CAPACITY, R.SLOTS_OVERCOMMITTED),
                "CapacityAvailable=Unknown": (R.NO_PODS,),
                "ScalingActive=True": (R.EXTERNAL, R.STEADY, R.STABILIZING, R.AT_MAXIMUM, R.ASLEEP),
                "ScalingActive=False": (
                    R.OFF,
                    R.CAPACITY_EXHAUSTED,
                    R.METRICS_UNAVAILABLE,
                    R.METRICS_STALE,
                    R.METRICS_NOT_CONFIGURED,
                    R.NOT_SCALABLE,
                ),
                "ScalingActive=Unknown": (R.METRICS_AWAITED,),
                "MetricsAvailable=True": (R.METRICS_FRESH,),
                "MetricsAvailable=False": (R.METRICS_UNAVAILABLE, R.METRICS_STALE, R.METRICS_NOT_CONFIGURED),
                "MetricsAvailable=Unknown": (R.METRICS_AWAITED,),
                "scalingHistory": (
                    R.SCALED_UP,
                    R.SCALED_DOWN,
                    R.WOKEN,
                    R.METRICS_UNAVAILABLE,
                    R.METRICS_STALE,
                ),
                "EnginesTuned=True": (R.TUNED,),
                "EnginesTuned=False": (R.TUNING_AWAITED,),
                "Degraded=True": (R.SLOW_REPLICA,),
                "Degraded=False": (R.NO_SLOW_REPLICA,),
                "MinerRegistered=True": (R.REGISTERED,),
                "MinerRegistered=False": (
                    R.NOT_REGISTERED,
                    R.FOREIGN_OWNER,
                    R.NONCES_NOT_SHARED,
                    R.ADDRESS_MISSING,
                    R.ADDRESS_REFUSED,
                    R.WALLET_MISSING,
                    R.COLDKEY_FOUND,
                    R.CHAIN_NOT_SET,
                ),
                "MinerRegistered=Unknown": (R.CHAIN_UNREACHABLE, R.REGISTRATION_NOT_REPORTED, R.NO_MINER),
                "Updated=False": (R.AWAITING_MAINTENANCE_WINDOW, R.MAINTENANCE_WINDOW_INVALID, R.UPDATE_HELD),
            }
        ),
    ),
    Table(
        name="validator",
        kind="Validator",
        places=_places(
            {
                "Ready=True": (R.ALL_READY,),
                "Ready=False": (
                    *_GATEWAY,
                    R.CHAIN_UNREACHABLE,
                    R.GATEWAYS_STARTING,
                    R.ROLLING_OUT,
                    R.NO_TWINS,
                    R.TWIN_UNREADABLE,
                    *_UNREADABLE,
                ),
                "GatewayReady=True": (R.GATEWAYS_ANSWER,),
                "GatewayReady=False": (*_GATEWAY, R.CHAIN_UNREACHABLE, R.GATEWAYS_STARTING),
                "TwinsPublished=True": (R.TWINS_PUBLISHED,),
                "TwinsPublished=False": (
                    R.CHILD_CONFLICT,
                    R.CHILDREN_REFUSED,
                    R.NO_TWINS,
                    R.TWIN_UNREADABLE,
                    R.TOO_MANY_TWINS,
                ),
                "ChainReachable=True": (R.CHAIN_READ,),
                "ChainReachable=False": (R.CHAIN_UNREACHABLE,),
                "ChainReachable=Unknown": (R.CHAIN_NOT_REPORTED, R.REPORT_STALE, R.NO_GATEWAY),
                "LedgerReachable=True": (R.EMBEDDED_LEDGER, R.LEDGER_PREPARED),
                "LedgerReachable=False": (
                    R.LEDGER_UNREACHABLE,
                    R.SECRET_NOT_FOUND,
                    R.CHILDREN_REFUSED,
                    R.VOLUME_CLAIM_NOT_FOUND,
                    R.VOLUME_CLAIM_NOT_BOUND,
                ),
                "LedgerReachable=Unknown": (R.OUT_OF_BOUNDS, R.PREPARING_LEDGER, R.GATEWAYS_STARTING, R.NO_GATEWAY),
                "DatasetsWritten=True": (R.DATASETS_WRITTEN,),
                "DatasetsWritten=False": (
                    R.DATASETS_SUSPENDED,
                    R.OUT_OF_BOUNDS,
                    R.DATASETS_NOT_WRITTEN,
                    R.CHILD_CONFLICT,
                    R.CHILDREN_REFUSED,
                    R.SECRET_NOT_FOUND,
                    R.IMAGE_PULL_FAILED,
                    R.CONTAINER_NOT_STARTED,
                    R.VOLUME_CLAIM_NOT_FOUND,
                    R.VOLUME_CLAIM_NOT_BOUND,
                    R.UNSCHEDULABLE,
                ),
                "DatasetsWritten=Unknown": (R.DATASETS_AWAITED,),
                "WeightsSet=True": (R.WEIGHTS_REVEALED,),
                "WeightsSet=False": (
                    R.ROUNDS_OFF,
                    R.ROUNDS_SUSPENDED,
                    R.OUT_OF_BOUNDS,
                    R.ROUND_FAILED,
                    R.ROUND_NOT_CREATED,
                    R.CHILD_CONFLICT,
                    R.CHILDREN_REFUSED,
                    R.SCHEDULE_INVALID,
                    *_NO_WEIGHTS,
                ),
                "WeightsSet=Unknown": (R.ROUND_AWAITED, *_WEIGHTS_OPEN),
                "HostsActive=False": (R.NOT_IMPLEMENTED,),
            }
        ),
    ),
    Table(
        name="run",
        kind="FineTuneRun",
        places=_places(
            {
                "Queued=True": (
                    R.POOL_BUSY,
                    R.TWIN_BUSY,
                    R.REQUEUED,
                    R.TWIN_NOT_FOUND,
                    R.TWIN_IS_ANOTHER,
                    R.NO_TRAINING_POOL,
                    R.NO_STORE,
                    R.BASE_MODEL_MISMATCH,
                    R.RANK_TOO_HIGH,
                    R.NO_JUDGE,
                    R.OUT_OF_BOUNDS,
                    R.AWAITING_QUOTA,
                    R.OWNER_UNREADABLE,
                    *_UNREADABLE,
                ),
                "Queued=False": (R.ADMITTED, R.TASK_OVERDUE, R.OUT_OF_BOUNDS),
                "DataReady=True": (R.DATASET_READ,),
                "DataReady=False": (R.TOO_FEW_INTERACTIONS, R.BAD_DATA),
                "Running=True": (*_STAGES, R.REPORT_UNREADABLE),
                "Running=False": (
                    R.JOB_STARTING,
                    R.GATHERING_RUNS,
                    R.SHARED_JOB_BUSY,
                    R.SHARED_JOB_LOST,
                    R.OWNER_UNREADABLE,
                    R.POD_STARTING,
                    R.UNSCHEDULABLE,
                    R.IMAGE_PULL_FAILED,
                    R.CONTAINER_NOT_STARTED,
                    R.APPLY_REFUSED,
                    R.RETRYING,
                    R.ENDING,
                    R.ENDED,
                ),
                "Trained=True": (R.TRAINING_ENDED,),
                "Published=True": (R.IN_STORE,),
                "Published=False": (R.ARTIFACT_REFUSED,),
                "Evaluated=True": (R.PROMOTE, R.REJECT, R.INCONCLUSIVE),
                "Evaluated=False": (R.EXAMINATION_REFUSED,),
                "Promoted=True": (R.TOOK_OVER,),
                "Promoted=False": (
                    R.AWAITING_ROLLOUT,
                    R.AWAITING_CHOICE,
                    R.CANARY_RUNNING,
                    R.AWAITING_APPROVAL,
                    R.OWNER_UNREADABLE,
                ),
                "Rejected=True": (R.GATE_REJECTED, R.TWIN_GONE, *REFUSED_VERSION),
                "Rejected=False": (R.INCONCLUSIVE,),
            }
        ),
    ),
    Table(name="failure", kind="FineTuneRun", again=True, places=_places({"Failed=True": FAILED})),
    Table(
        name="round",
        kind="ValidatorRound",
        places=_places(
            {
                "Running=True": (
                    R.STAGE_STARTING,
                    R.STAGE_PREPARE,
                    R.STAGE_ASK,
                    R.STAGE_SCORE,
                    R.STAGE_REWARD,
                    R.STAGE_TASKS,
                    R.STAGE_DONE,
                    R.REPORT_UNREADABLE,
                ),
                "Running=False": (
                    R.VALIDATOR_NOT_FOUND,
                    R.VALIDATOR_IS_ANOTHER,
                    R.OWNER_UNREADABLE,
                    R.ROUND_BUSY,
                    R.OUT_OF_BOUNDS,
                    *_PODLESS,
                    R.ENDING,
                    R.ENDED,
                    *_UNREADABLE,
                ),
                "QuorumReached=True": (R.QUORUM_REACHED,),
                "QuorumReached=False": (R.QUORUM_MISSED,),
                "MetricsFresh=True": (R.METRICS_FRESH,),
                "MetricsFresh=False": (R.METRICS_STALE,),
                "Complete=True": (R.RESULTS_STORED,),
                "Complete=False": (R.ROUND_UNDER_WAY, R.ROUND_FAILED),
                "WeightsSubmitted=True": (R.WEIGHTS_REVEALED,),
                "WeightsSubmitted=False": _NO_WEIGHTS,
                "WeightsSubmitted=Unknown": _WEIGHTS_OPEN,
            }
        ),
    ),
    Table(name="round-failure", kind="ValidatorRound", again=True, places=_places({"Failed=True": ROUND_FAILED})),
)


@cache
def appears(kind: str, condition: str, status: str) -> frozenset[R]:
    """Return the reasons that a condition of this kind may give with this status."""
    where = f"{condition}={status}"
    return frozenset(
        reason
        for table in TABLES
        if table.kind == kind
        for place in table.places
        if place.where == where
        for reason in place.reasons
    )


def conditions_said(kind: str) -> frozenset[str]:
    """Return the types of conditions that this release says of a kind; others in its status are somebody else's."""
    places = (place.where for table in TABLES if table.kind == kind for place in table.places)
    return frozenset(where.partition("=")[0] for where in places if "=" in where)
