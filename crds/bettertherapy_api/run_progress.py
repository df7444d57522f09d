"""The run's progress: what a trainer says of its FineTuneRun, one JSON document in the ConfigMap `<run>-progress`.

The trainer may write that one ConfigMap and nothing else; the operator copies it into the run's status. It changes only
when something changed, and it holds no conversation, no answer and no name of a patient.

It comes from another program, perhaps of another release. Texts that are too long are cut, and figures of how far it is
are brought within their bounds; a result that can't be true (a score of 101%, a digest that is none) makes the whole
report unreadable: nothing that decides about a version is guessed.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError

from bettertherapy_api.document import Document as _Doc
from bettertherapy_api.schema import Digest

PROGRESS_KEY: Final = "progress.json"
REVIEW_KEY: Final = "review.json"
"""In the same ConfigMap: `Review`, for `kubectl twin review`."""


_MOST: Final = 2**53
"""Every JSON reader has whole numbers up to here."""


def _cut(length: int) -> BeforeValidator:
    return BeforeValidator(lambda value: value[:length] if isinstance(value, str) else value)


def _within(least: int, most: int) -> BeforeValidator:
    def bring(value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return value  # no figure at all
        return max(least, min(most, value)) if isinstance(value, (int, float)) else value

    return BeforeValidator(bring)


Word = Annotated[str, _cut(63), Field(min_length=1)]
Sentence = Annotated[str, _cut(4000)]
Uri = Annotated[str, Field(max_length=1024)]
Artifact = Annotated[str, Field(max_length=1024, pattern=r"^(pvc|file|s3|gs|az)://[^\s]+$")]
"""Where engines fetch it, as in spec.adapter.uri."""
Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many of what decides."""
Estimate = Annotated[int, _within(0, _MOST), Field(ge=0, le=_MOST)]
"""How far it is, or will be."""
Score = Annotated[int, Field(ge=-100, le=100)]
"""Whole percent."""


def progress_name(run: str) -> str:
    """Return the name of the run's progress ConfigMap."""
    return f"{run}-progress"


class RunStage(StrEnum):
    """What the trainer is at."""

    DATA = "Data"
    TRAIN = "Train"
    PUBLISH = "Publish"
    EVALUATE = "Evaluate"
    DONE = "Done"


class DatasetReport(_Doc):
    """What is trained on."""

    uri: Uri
    digest: Digest | Literal[""]
    """Empty for a run that was skipped: it trained on nothing."""
    interactions: Count
    """Lines that are trained on."""
    pairs: Count = 0
    """Preference pairs among them."""
    refused: dict[Word, Count] = Field(default_factory=dict)
    """Refused lines by reason."""
    repaired: dict[Word, Count] = Field(default_factory=dict)
    """Lines that are trained on after a repair, by what was odd about them."""
    waiting: Estimate = 0
    """New lines that no step of this run would see: they are left to the next one."""
    passed_over: tuple[str, ...] = Field(default=(), alias="passedOver")
    """Files and folders in the dataset's folder that are not read, and unfinished last lines, at most 20."""


class ArtifactReport(_Doc):
    """What was published."""

    uri: Artifact
    digest: Digest
    rank: Annotated[int, Field(ge=1, le=512)]
    bytes: Count


class MetricReport(_Doc):
    """One metric of the gate, in whole percent."""

    name: Word
    value_percent: Score = Field(alias="valuePercent")
    baseline_percent: Score | None = Field(default=None, alias="baselinePercent")
    threshold_percent: Score | None = Field(default=None, alias="thresholdPercent")
    interval_percent: tuple[Score, Score] | None = Field(default=None, alias="intervalPercent")
    """Confidence interval of the paired difference, value minus baseline; each end at the gate's one-sided error."""
    items: Count | None = None
    clusters: Count | None = None
    """Of the items, so many that say something by themselves."""
    margin_percent: Annotated[int, Field(ge=0, le=100)] | None = Field(default=None, alias="marginPercent")
    """What may be lost; None where the metric only informs."""
    shown: bool | None = None
    """Whether it is shown that no more was lost."""


class EvalReport(_Doc):
    """What the gate found."""

    verdict: Literal["Promote", "Reject", "Inconclusive"]
    samples: Count
    message: Sentence
    """A sentence that says why."""
    metrics: tuple[MetricReport, ...] = ()


class FailureReport(_Doc):
    """Why the run failed; classes are those of neurons.trainer.errors."""

    failure_class: Word = Field(alias="class")
    retryable: bool
    message: Sentence


class RunProgress(_Doc):
    """progress.json."""

    attempt: str
    """UID of the trainer's pod."""
    stage: RunStage
    progress_percent: Annotated[int, _within(0, 100), Field(ge=0, le=100)] = Field(default=0, alias="progressPercent")
    step: Estimate | None = None
    steps: Estimate | None = None
    remaining_seconds: Estimate | None = Field(default=None, alias="remainingSeconds")
    loss_milli: Annotated[int, _within(-_MOST, _MOST), Field(ge=-_MOST, le=_MOST)] | None = Field(
        default=None, alias="lossMilli"
    )
    """Training loss in 1/1000 nats per token."""
    dataset: DatasetReport | None = None
    artifact: ArtifactReport | None = None
    eval: EvalReport | None = None
    skipped: Sentence | None = None
    """Set instead of a failure when there was too little new data: a sentence with the count."""
    failure: FailureReport | None = None


def read_progress(text: str) -> RunProgress | str:
    """Return what progress.json says, or what is wrong with it as a clause that names the field."""
    try:
        return RunProgress.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or PROGRESS_KEY
        return f"{where}: {first['msg']}"[:1000]


class LastWord(_Doc):
    """Termination message and last line of a trainer that failed: the API server may not have taken its progress."""

    failure: FailureReport


class ReviewItem(_Doc):
    """One held-out item with both answers, side by side."""

    id: str
    kind: str
    question: str
    parent: str
    child: str
    parent_percent: int = Field(alias="parentPercent")
    child_percent: int = Field(alias="childPercent")


class Review(_Doc):
    """review.json: at most 40 items, shortened to fit a ConfigMap."""

    items: tuple[ReviewItem, ...] = ()
