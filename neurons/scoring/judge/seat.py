"""One grader: an endpoint's model, asked in one wording."""

from __future__ import annotations

import random
import secrets
from typing import Final

from neurons.scoring.judge.calibration import seat_id
from neurons.scoring.judge.endpoint import Budget, Endpoint
from neurons.scoring.judge.prompts import Case, Wording, pose
from neurons.scoring.judge.votes import NoGrade, Vote, Why

_UNFORETOLD: Final = secrets.SystemRandom()
_OTHER_MODEL: Final = "another model answers than was calibrated; calibrate the judge again"


class Seat:
    """A grader that gives votes. Two seats are two graders when their endpoint, model or wording differ."""

    def __init__(self, endpoint: Endpoint, wording: Wording, *, draw: random.Random = _UNFORETOLD) -> None:
        """`draw` makes marks, names and canaries; only tests give one that can be foretold."""
        self.endpoint = endpoint
        self.wording = wording
        self._draw = draw

    @property
    def id(self) -> str:
        """Return the grader's digest, of endpoint, model and wording."""
        settings = self.endpoint.settings
        return seat_id(endpoint=settings.id, model=settings.model, prompt=self.wording.digest)

    async def vote(self, case: Case, *, budget: Budget, model: str | None = None) -> tuple[Vote, str | None]:
        """Return the grader's vote, and the name under which its model answered (None where none did).

        `model`: the name that it answered under when it was calibrated; under another its vote doesn't count.
        """
        answered: str | None = None
        try:
            question = pose(case, self.wording, draw=self._draw)
            reply = await self.endpoint.ask(question.text, question.schema, budget=budget)
            answered = reply.model
            if model is not None and answered != model:
                return Vote(seat=self.id, met=None, why=Why.MODEL_CHANGED, message=_OTHER_MODEL), answered
            met, reason = question.read(reply.content)
        except NoGrade as none:
            return Vote(seat=self.id, met=None, why=none.why, message=str(none)), answered
        return Vote(seat=self.id, met=met, reason=reason), answered
