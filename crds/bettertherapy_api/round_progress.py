"""A round's order and its progress: what the operator tells a round's Jobs, and what they say in the ConfigMap
`<round>-progress`, one JSON document under each key.

The operator runs two Jobs of a round, each of them as often as it takes:

    python -m neurons.validator.rounds run       --order=/etc/bettertherapy/round/round.json
    python -m neurons.validator.rounds weights   --order=/etc/bettertherapy/round/round.json

and, where somebody asks for it by `kubectl twin round NAME --recompute`, a third:

    python -m neurons.validator.rounds recompute --order=/etc/bettertherapy/round/round.json --token=TOKEN

Each gets what it needs beyond the order as variables and folders, the same for all three:
    LEDGER_URL            the ledger, as the gateway has it; an embedded one is opened beside the gateway, on its node
    PROMETHEUS_URL        where metrics are read; absent where the operator has none
    PROGRESS_CONFIGMAP    the ConfigMap that it may get and patch, and no other, by neurons.cluster
    POD_NAMESPACE, POD_NAME, POD_UID     POD_UID is `attempt` in what it says
    JUDGE_API_KEY         key of the judge's server, where the order names a judge and a Secret; read as `key`
    /etc/bettertherapy/wallet     the validator's hotkey (neurons.chain.wallet); recompute hasn't got it
    /etc/bettertherapy/twins/twins.json  the twins, as the gateway is told of them (recompute hasn't got it either)

`run` asks and scores, stores all of it in the ledger, hands out tasks and writes `progress.json` (`RoundProgress`). It
may be killed at any point and goes on where it was, by what is in the ledger under the round's UID: the same answers
give the same resultsDigest. `weights` begins when `run` is done: it sets the weights of the newest complete round, once
an epoch, waits until they are revealed, and writes `weights.json` (`WeightsProgress`) at each step. `recompute` writes
`recomputed.json` (`Recomputation`) and changes nothing.

Exit status: 0 done; 75 (EX_TEMPFAIL) failed, and another attempt may succeed; any other: failed for good. Before ending
with another status than 0 it writes `failure`, and as the last line on standard output `{"failure": {...}}`
(`run_progress.LastWord`): the API server may not have taken its progress. Classes are CamelCase words (`CLASSES`).

It comes from another program, perhaps of another release: texts that are too long are cut, and a result that can't be
true makes the whole document unreadable. Nothing of a patient, no question and no answer is in it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from bettertherapy_api.document import Document
from bettertherapy_api.faults import first_fault
from bettertherapy_api.finetune_run import MAX_EARLIER, CreditVerdict
from bettertherapy_api.run_progress import Count, FailureReport, Sentence, Word
from bettertherapy_api.schema import Digest, Percent, Time
from bettertherapy_api.validator_round import TOP, Hotkey, Uid16, WeightsState

ORDER_KEY: Final = "round.json"
"""What the operator writes when the round starts (`RoundOrder`), and never again."""
PROGRESS_KEY: Final = "progress.json"
WEIGHTS_KEY: Final = "weights.json"
RECOMPUTED_KEY: Final = "recomputed.json"
ORDER_DIR: Final = "/etc/bettertherapy/round"
TRY_AGAIN: Final = 75
MAX_CANDIDATES: Final = 50
MAX_EXAMINED: Final = 200
TaskId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""A fine-tune task's UUID."""

CLASSES: Final = (
    "LedgerUnreachable", "LedgerFailed", "ChainUnreachable", "NotRegistered", "WalletMissing", "ColdkeyFound",
    "NoTwins", "ChallengesChanged", "ChallengesInvalid", "JudgeUnreachable", "SourcesUnreachable", "ResultsDiffer",
    "BadOrder",
)  # fmt: skip
"""Of failures, as a round's Job says them; the operator adds what it sees of the pods: DeadlineExceeded, OutOfMemory,
Killed, Preempted, NodeLost, RoundCrashed."""


def progress_name(name: str) -> str:
    """Return the name of the round's progress ConfigMap."""
    return f"{name}-progress"


class RoundStage(StrEnum):
    """What the round's Job is at."""

    PREPARE = "Prepare"
    """Reading metagraph, twins and questions."""
    ASK = "Ask"
    SCORE = "Score"
    REWARD = "Reward"
    """Ranking; storing the results."""
    TASKS = "Tasks"
    """Handing out fine-tune tasks."""
    DONE = "Done"


class OrderedWeights(Document):
    """How much each part counts, in percent."""

    correctness: Percent = 50
    speed: Percent = 20
    satisfaction: Percent = 20
    participation: Percent = 10

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.correctness + self.speed + self.satisfaction + self.participation != 100:
            raise ValueError("correctness, speed, satisfaction and participation must add up to 100")
        return self


class OrderedJudge(Document):
    """The judge's server, OpenAI-compatible."""

    endpoint: Annotated[str, Field(max_length=1024)]
    model: Annotated[str, Field(max_length=253)]


class OrderedScoring(Document):
    """How miners are scored."""

    weights_percent: OrderedWeights = Field(default_factory=OrderedWeights, alias="weightsPercent")
    judge: OrderedJudge | None = None
    """None: only what needs no judge is scored."""
    sources: tuple[str, ...] = ()
    """Names of medical sources; none means the image's local corpus."""
    alpha_percent: Annotated[int, Field(ge=1, le=100)] = Field(default=30, alias="alphaPercent")


class OrderedRewards(Document):
    """What becomes of the scores on the chain."""

    top_miners: Annotated[int, Field(ge=1, le=4096)] = Field(default=100, alias="topMiners")
    burn_percent: Percent = Field(default=0, alias="burnPercent")
    commit_reveal: bool = Field(default=True, alias="commitReveal")


class OrderedTasks(Document):
    """Fine-tune tasks are handed out, of yesterday's conversations."""

    url: Annotated[str, Field(max_length=256)]
    """Origin by which miners reach the validator's gateway, for the datasets and for their reports."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = Field(default="Etc/UTC", alias="timeZone")
    """Of the day."""
    deadline_seconds: Annotated[int, Field(ge=600, le=604800)] = Field(default=72000, alias="deadlineSeconds")
    """How long a miner has, from when the task is made."""
    min_interactions: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=20, alias="minInteractions")
    """Of fewer lines no task is made."""
    max_interactions: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=1000, alias="maxInteractions")
    """Lines of one dataset; those of the weakest topics are taken first."""
    examine: bool = False
    """Whether miners deliver what they made, and the operator has it examined."""


_CREDITS: Final = {"Promote": "Passed", "Reject": "Failed", "Inconclusive": "Inconclusive"}


class ExaminedTask(Document):
    """What the validator's own examination of a task's version came to, by the operator's reckoning."""

    task: TaskId
    adapter: Digest
    """The version that was examined."""
    credit: CreditVerdict
    """Whether its miner is credited; Inconclusive: it could not be examined, or not told."""
    message: Sentence = ""
    """Why."""

    @model_validator(mode="before")
    @classmethod
    def _of_former_release(cls, given: Any) -> Any:
        """Take what a round's order said before credit was decided apart from the gate: it is recomputed later."""
        if isinstance(given, dict) and "credit" not in given and given.get("verdict") in _CREDITS:
            return {**given, "credit": _CREDITS[given["verdict"]]}
        return given


class RoundOrder(Document):
    """round.json: the round as its Jobs are to hold it. It stays as it was when the round started."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """The ledger's key of the round: another round of that name is another one."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)]
    validator: Annotated[str, Field(min_length=1, max_length=63)]
    network: Annotated[str, Field(min_length=1, max_length=512)]
    """finney, test, or a URL."""
    netuid: Annotated[int, Field(ge=0, le=65535)]
    started_at: Time = Field(alias="startedAt")
    """The round's moment: what is fresh, and which ratings count, is reckoned from it."""
    seed: Annotated[int, Field(ge=0, le=4294967295)]
    twins: tuple[str, ...] | None = None
    """Names; None means all of the twins' file."""
    challenges: Annotated[str, Field(max_length=1024)] | None = None
    """file:///… of the set of questions; None means the image's own."""
    challenge_digest: Digest | None = Field(default=None, alias="challengeDigest")
    """Any other set is refused."""
    items_per_twin: Annotated[int, Field(ge=1, le=1000)] = Field(default=20, alias="itemsPerTwin")
    deadline_seconds: Annotated[int, Field(ge=60, le=86400)] = Field(default=1800, alias="deadlineSeconds")
    scoring: OrderedScoring = Field(default_factory=OrderedScoring)
    rewards: OrderedRewards | None = None
    """None: miners are scored, and no weights are set."""
    tasks: OrderedTasks | None = None
    examined: Annotated[tuple[ExaminedTask, ...], Field(max_length=MAX_EXAMINED)] = ()
    """Tasks whose versions were examined before the round began."""


class MinersReport(Document):
    """How many miners took part."""

    queried: Annotated[int, Field(ge=0, le=65536)]
    scored: Annotated[int, Field(ge=0, le=65536)] = 0
    failed: Annotated[int, Field(ge=0, le=65536)] = 0

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.scored + self.failed > self.queried:
            raise ValueError(f"{self.scored} scored and {self.failed} failed are more than {self.queried} queried")
        return self


class QuorumReport(Document):
    """Whether enough miners were scored for weights to be set."""

    reached: bool
    needed: Annotated[int, Field(ge=0, le=65536)]
    """Miners that had to be scored."""
    message: Sentence | None = None


class MetricsReport(Document):
    """Whether the metrics were fresh."""

    fresh: bool
    message: Sentence
    """How old, or why they could not be read."""


class ScoreReport(Document):
    """One miner's score; a part that could not be measured is None."""

    uid: Uid16
    hotkey: Hotkey
    score_percent: Percent = Field(alias="scorePercent")
    correctness_percent: Percent | None = Field(default=None, alias="correctnessPercent")
    speed_percent: Percent | None = Field(default=None, alias="speedPercent")
    satisfaction_percent: Percent | None = Field(default=None, alias="satisfactionPercent")
    participation_percent: Percent | None = Field(default=None, alias="participationPercent")
    weight_percent: Percent | None = Field(default=None, alias="weightPercent")
    answered: Count | None = None


class MeasuresReport(Document):
    """How good the validator itself was."""

    consensus_percent: Percent | None = Field(default=None, alias="consensusPercent")
    gold_accuracy_percent: Percent | None = Field(default=None, alias="goldAccuracyPercent")
    judges_agreement_percent: Percent | None = Field(default=None, alias="judgesAgreementPercent")
    reached_percent: Percent | None = Field(default=None, alias="reachedPercent")
    tasks_on_time_percent: Percent | None = Field(default=None, alias="tasksOnTimePercent")


class TasksReport(Document):
    """Fine-tune tasks that were handed out."""

    made: Count = 0
    sent: Count = 0
    accepted: Count = 0
    examined: Count = 0
    passed: Count = 0
    disallowed: Count = 0


class Candidate(Document):
    """A version that a miner reported as a task's, to be examined by the validator's operator."""

    task: TaskId
    twin: Annotated[str, Field(min_length=1, max_length=54)]
    twin_uid: Annotated[str, Field(alias="twinUID", min_length=1, max_length=64)]
    miner: Hotkey
    adapter: Digest
    parent: Digest | None = None
    """What it was to begin from; None for the base model itself."""
    dataset: Annotated[str, Field(max_length=1024)]
    """What the miner was given: an address that opens it until the time given here."""
    dataset_digest: Digest = Field(alias="datasetDigest")
    held_out: Annotated[str, Field(max_length=1024)] | None = Field(default=None, alias="heldOut")
    """Conversations that no miner was given, likewise; None: there are none."""
    held_out_digest: Digest | None = Field(default=None, alias="heldOutDigest")
    earlier: Annotated[tuple[Digest, ...], Field(max_length=MAX_EARLIER)] = ()
    """Versions that were reported before it for tasks of the same twin and parent."""
    until: Time
    """Until when it may be examined."""


def _best(value: Any) -> Any:
    return value[:TOP] if isinstance(value, (list, tuple)) else value


class RoundProgress(Document):
    """progress.json, by `run`."""

    attempt: Annotated[str, Field(max_length=64)]
    """UID of the Job's pod."""
    stage: RoundStage
    start_time: Time | None = Field(default=None, alias="startTime")
    """When the first attempt began, as the ledger has it."""
    completion_time: Time | None = Field(default=None, alias="completionTime")
    """When the results were stored."""
    challenge_digest: Digest | None = Field(default=None, alias="challengeDigest")
    miners: MinersReport | None = None
    items: Count | None = None
    quorum: QuorumReport | None = None
    metrics: MetricsReport | None = None
    top: Annotated[tuple[ScoreReport, ...], BeforeValidator(_best), Field(max_length=TOP)] = ()
    """The best, best first."""
    results_digest: Digest | None = Field(default=None, alias="resultsDigest")
    """Of the results as they are stored; only then."""
    measures: MeasuresReport | None = None
    tasks: TasksReport | None = None
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=MAX_CANDIDATES)] = ()
    """Versions that wait for their examination."""
    failure: FailureReport | None = None

    @model_validator(mode="after")
    def _done_has_results(self) -> Self:
        if self.stage is RoundStage.DONE and self.failure is None and self.results_digest is None:
            raise ValueError("a round that is done has a resultsDigest")
        return self


class WeightsProgress(Document):
    """weights.json, by `weights`."""

    attempt: Annotated[str, Field(max_length=64)]
    state: WeightsState
    reason: Word
    """Of chain errors their `name`; Committed, InForce, SetThisEpoch, QuorumMissed, NewerRound, …"""
    message: Sentence | None = None
    block: Count | None = None
    extrinsic: Annotated[str, Field(max_length=128)] | None = None
    epoch: Count | None = None
    miners: Annotated[int, Field(ge=0, le=65536)] | None = None
    burn_percent: Percent | None = Field(default=None, alias="burnPercent")
    revealed_time: Time | None = Field(default=None, alias="revealedTime")
    failure: FailureReport | None = None


class Recomputation(Document):
    """recomputed.json, by `recompute`."""

    token: Annotated[str, Field(max_length=128)]
    digest: Digest | None = None
    time: Time
    message: Sentence | None = None
    """Why there is no digest, or what differs."""


_D = TypeVar("_D", bound=Document)


def read_document(kind: type[_D], text: str) -> _D | str:
    """Return what a document says, or what is wrong with it as a clause that names the field."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        return first_fault(error, whole="document")[:1000]
