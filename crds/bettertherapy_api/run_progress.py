"""The run's progress: what a trainer says of its FineTuneRun, one JSON document in the ConfigMap `<run>-progress`.

The trainer may write that one ConfigMap and nothing else; the operator copies it into the run's status. It changes only
when something changed, and it holds no conversation, no answer and no name of a patient. How far the examiner is stands
in the same form in the ConfigMap that the examiner alone may write (bettertherapy_api.examination).

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
from bettertherapy_api.faults import first_fault
from bettertherapy_api.schema import Digest

PROGRESS_KEY: Final = "progress.json"
REVIEW_KEY: Final = "review.json"
"""In the examiner's ConfigMap: `Review`, for `kubectl twin review`."""


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


def progress_name(run: str) -> str:
    """Return the name of the run's progress ConfigMap."""
    return f"{run}-progress"


class RunStage(StrEnum):
    """What the trainer, and after it the examiner, is at."""

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
    rehearsed: Count = 0
    """Lines that were learned before and are learned again, so that they are not forgotten."""
    validation: Count = 0
    """New lines that are held back to tell when to stop; the next run learns them."""
    passed_over: tuple[str, ...] = Field(default=(), alias="passedOver")
    """Files and folders in the dataset's folder that are not read, and unfinished last lines, at most 20."""


class ArtifactReport(_Doc):
    """What was published."""

    uri: Artifact
    digest: Digest
    rank: Annotated[int, Field(ge=1, le=512)]
    bytes: Count


class FailureReport(_Doc):
    """Why the run failed; classes are those of neurons.trainer.errors."""

    failure_class: Word = Field(alias="class")
    retryable: bool
    message: Sentence


class RunProgress(_Doc):
    """progress.json."""

    attempt: str
    """UID of the pod."""
    stage: RunStage
    elsewhere: bool = False
    """Of a pod that does several runs: it has not begun this one, or has left it for another one for a while. How the
    pod ends then says nothing of this run."""
    progress_percent: Annotated[int, _within(0, 100), Field(ge=0, le=100)] = Field(default=0, alias="progressPercent")
    step: Estimate | None = None
    steps: Estimate | None = None
    remaining_seconds: Estimate | None = Field(default=None, alias="remainingSeconds")
    loss_milli: Annotated[int, _within(-_MOST, _MOST), Field(ge=-_MOST, le=_MOST)] | None = Field(
        default=None, alias="lossMilli"
    )
    """Training loss in 1/1000 nats per token."""
    validation_loss_milli: Annotated[int, _within(-_MOST, _MOST), Field(ge=-_MOST, le=_MOST)] | None = Field(
        default=None, alias="validationLossMilli"
    )
    """Loss on lines that are held back, after the last epoch, in 1/1000 nats per token."""
    distance_milli: Annotated[int, _within(-_MOST, _MOST), Field(ge=-_MOST, le=_MOST)] | None = Field(
        default=None, alias="distanceMilli"
    )
    """KL divergence from the parent in 1/1000 nats per learned token of the last batch."""
    dataset: DatasetReport | None = None
    artifact: ArtifactReport | None = None
    skipped: Sentence | None = None
    """Set instead of a failure when there was too little new data: a sentence with the count."""
    failure: FailureReport | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, and nothing failed."""
        return self.stage is RunStage.DONE and self.failure is None


def read_progress(text: str) -> RunProgress | str:
    """Return what progress.json says, or what is wrong with it as a clause that names the field."""
    try:
        return RunProgress.model_validate_json(text)
    except ValidationError as error:
        return first_fault(error, whole=PROGRESS_KEY)[:1000]


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
    parent_percent: int | None = Field(default=None, alias="parentPercent")
    """None where the answer has no score."""
    child_percent: int | None = Field(default=None, alias="childPercent")
    way: str = ""
    """How it was scored (bettertherapy_api.judging.Way); empty where an earlier release did."""
    ungraded: str | None = None
    """Why there is no score, as a clause."""
    warning: str | None = None
    """What is dangerous about the new version's answer, as a clause; None where nothing is known to be."""
    expected: str | None = None
    """What was expected of an answer, in words; None where the question says it."""
    parent_clarity: dict[str, int] = Field(default_factory=dict, alias="parentClarity")
    """How clear the answer is, in percent by part; only what was measured."""
    child_clarity: dict[str, int] = Field(default_factory=dict, alias="childClarity")


class Review(_Doc):
    """review.json: at most 40 items, what is to be read first in front; shortened to fit a ConfigMap."""

    items: tuple[ReviewItem, ...] = ()
    of: int | None = None
    """Out of how many these were chosen; None where an earlier release did."""
