"""The document that lets a grader count: how often it was right where the truth is known, and who was asked what.

It is made by neurons.scoring.calibration and kept with every verdict. Whether it passes is computed from its numbers
each time that it is read, and never stands in it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bettertherapy_api.faults import first_fault
from bettertherapy_api.judging import AHEAD, MAX_AGE, MIN_INJECTIONS, MIN_ITEMS, MIN_KAPPA, kappa_of
from neurons.scoring.agreement import faultless_low
from neurons.scoring.judge.prompts import Task

_ROUNDING: Final = 1e-6
_MAX_BYTES: Final = 65_536
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class CalibrationError(ValueError):
    """A calibration can't be read, or a grader isn't calibrated; the message says what to do."""


class Calibration(BaseModel):
    """How one grader did on items with known answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seat: Digest
    endpoint: Digest
    """Of its address; the address itself is not published."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """As it was asked for."""
    answered: Annotated[str, Field(max_length=200)]
    """The model's name in its answers; "" where they have none."""
    prompt: Digest
    wording: Annotated[str, Field(max_length=20)]
    task: Annotated[Task, Field(strict=False)]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    items: Digest
    """Of the items with their truths."""
    at: Annotated[AwareDatetime, Field(strict=False)]
    true_met: Count
    """Met, and so graded."""
    false_met: Count
    """Not met, and graded as met."""
    true_not: Count
    false_not: Count
    """Met, and graded as not met."""
    none: Count
    """Without a grade that counts (unparsable, canary failed). In the four counts each is taken for a wrong grade."""
    injections: Count
    """Items whose answer tells the grader what to say."""
    followed: Count
    """Of those, graded wrongly or not at all."""
    kappa: Share
    """Cohen's, between grader and truth."""
    low: Share
    """The lower end of its 95% interval."""
    high: Share

    @property
    def count(self) -> int:
        """How many items were graded."""
        return self.true_met + self.false_met + self.true_not + self.false_not

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.seat != seat_id(endpoint=self.endpoint, model=self.model, prompt=self.prompt):
            raise ValueError("seat isn't the digest of endpoint, model and prompt")
        if abs(self.kappa - kappa_of(self.true_met, self.false_met, self.true_not, self.false_not)) > 1e-6:
            raise ValueError("kappa isn't what the counts give")
        if not self.low <= self.kappa <= self.high:
            raise ValueError("kappa lies outside its interval")
        wrong = self.false_met + self.false_not
        if self.true_met + self.false_not != self.true_not + self.false_met:
            raise ValueError("items come in pairs, and as many are met as are not")
        if self.count and self.low > faultless_low(max(1, self.count // 2)) + _ROUNDING:
            raise ValueError("so few items give no interval as narrow as that")
        if self.followed > self.injections or self.injections > self.count or max(self.none, self.followed) > wrong:
            raise ValueError("the counts contradict one another")
        return self

    def refusal(self, *, now: datetime, min_kappa: float = MIN_KAPPA) -> str | None:  # noqa: PLR0911  # one return per want
        """Say why this grader may not count; None when it may."""
        found = f"kappa {self.kappa:.2f}, 95% interval {self.low:.2f} to {self.high:.2f}, {self.count} items"
        if self.count < MIN_ITEMS:
            return f"it was calibrated on {self.count} items, and at least {MIN_ITEMS} are needed"
        if not -AHEAD <= now - self.at <= MAX_AGE:
            return f"its calibration is of {self.at:%Y-%m-%d} and counts for {MAX_AGE.days} days; calibrate it again"
        if self.injections < MIN_INJECTIONS:
            return (
                f"it was tried on {self.injections} answers that tell the judge what to say, and at least "
                f"{MIN_INJECTIONS} are needed; calibrate it on the kept items, or add such pairs (docs/judging.md)"
            )
        if self.low <= 0:
            return f"it can't be told from guessing ({found})"
        if self.low <= min_kappa:
            return f"it agrees too little with known answers ({found}; the lower end has to be above {min_kappa:g})"
        if self.followed:
            return (
                f"it did not withstand {self.followed} of {self.injections} answers that tell the judge what to say. "
                "Whoever is judged by it could grade themselves"
            )
        return None


def seat_id(*, endpoint: str, model: str, prompt: str) -> str:
    """Return the digest of a grader: an endpoint's model, asked by a prompt."""
    return f"sha256:{hashlib.sha256(f'{endpoint} {prompt} {model}'.encode()).hexdigest()}"


def read_calibration(data: bytes) -> Calibration:
    """Read a calibration's JSON. Raises CalibrationError."""
    if len(data) > _MAX_BYTES:
        raise CalibrationError(f"a calibration of {len(data)} bytes; at most {_MAX_BYTES} are read")
    try:
        return Calibration.model_validate_json(data)
    except ValidationError as error:
        fault = first_fault(error, whole="the document")
        raise CalibrationError(f"this is no calibration: {fault}. Calibrate the judge anew") from None


def today() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)
