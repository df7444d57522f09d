"""The run's progress: what a trainer says of its FineTuneRun, one JSON document in the ConfigMap `<run>-progress`.

The trainer may write that one ConfigMap and nothing else; the operator copies it into the run's status. It changes only
when something changed, and it holds no conversation, no answer and no name of a patient.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from bettertherapy_api.routing import _Doc

PROGRESS_KEY: Final = "progress.json"
REVIEW_KEY: Final = "review.json"
"""In the same ConfigMap: `Review`, for `kubectl twin review`."""


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

    uri: str
    digest: str
    """Empty for a run that was skipped: it trained on nothing."""
    interactions: int
    """Lines that are trained on."""
    pairs: int = 0
    """Preference pairs among them."""
    refused: dict[str, int] = Field(default_factory=dict)
    """Refused lines by reason."""
    repaired: dict[str, int] = Field(default_factory=dict)
    """Lines that are trained on after a repair, by what was odd about them."""
    waiting: int = 0
    """New lines that no step of this run would see: they are left to the next one."""
    passed_over: tuple[str, ...] = Field(default=(), alias="passedOver")
    """Files and folders in the dataset's folder that are not read, at most 20."""


class ArtifactReport(_Doc):
    """What was published."""

    uri: str
    digest: str
    rank: int
    bytes: int


class MetricReport(_Doc):
    """One metric of the gate, in whole percent."""

    name: str
    value_percent: int = Field(alias="valuePercent")
    baseline_percent: int | None = Field(default=None, alias="baselinePercent")
    threshold_percent: int | None = Field(default=None, alias="thresholdPercent")
    interval_percent: tuple[int, int] | None = Field(default=None, alias="intervalPercent")
    """95% confidence interval of the paired difference, value minus baseline."""


class EvalReport(_Doc):
    """What the gate found."""

    verdict: Literal["Promote", "Reject", "Inconclusive"]
    samples: int
    message: str
    """A sentence that says why."""
    metrics: tuple[MetricReport, ...] = ()


class FailureReport(_Doc):
    """Why the run failed; classes are those of neurons.trainer.errors."""

    failure_class: str = Field(alias="class")
    retryable: bool
    message: str


class RunProgress(_Doc):
    """progress.json."""

    attempt: str
    """UID of the trainer's pod."""
    stage: RunStage
    progress_percent: int = Field(default=0, alias="progressPercent", ge=0, le=100)
    step: int | None = None
    steps: int | None = None
    remaining_seconds: int | None = Field(default=None, alias="remainingSeconds")
    loss_milli: int | None = Field(default=None, alias="lossMilli")
    """Training loss in 1/1000 nats per token."""
    dataset: DatasetReport | None = None
    artifact: ArtifactReport | None = None
    eval: EvalReport | None = None
    skipped: str | None = None
    """Set instead of a failure when there was too little new data: a sentence with the count."""
    failure: FailureReport | None = None


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
