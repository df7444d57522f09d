"""Answers judged criterion by criterion, by graders that have shown that they can (docs/judging.md).

endpoint = Endpoint(EndpointSettings(base="https://judge.example/v1", model="…", key_file=Path("/run/judge/key")))
seats = [Seat(endpoint, wording) for wording in WORDINGS]     # one model in two wordings, or several models
judge = Panel(seats, calibrations, finder=Deidentifier.load())  # refuses what isn't calibrated
judged = await grade_example(judge, example, answer, language="en", seconds=300)
scores = score_judged(example, judged)                          # raises Ungraded: that is no zero
"""

from neurons.scoring.judge.calibration import Calibration, CalibrationError, read_calibration
from neurons.scoring.judge.endpoint import FORBIDDEN, Budget, Endpoint, EndpointError, EndpointSettings
from neurons.scoring.judge.panel import Judged, Opinion, Panel, grade_example, score_judged
from neurons.scoring.judge.prompts import FAILS, MET, WORDINGS, Case, Task
from neurons.scoring.judge.seat import Seat
from neurons.scoring.judge.votes import Graded, NoGrade, Outcome, Vote, Why

__all__ = [
    "FAILS", "FORBIDDEN", "MET", "WORDINGS", "Budget", "Calibration", "CalibrationError", "Case", "Endpoint",
    "EndpointError", "EndpointSettings", "Graded", "Judged", "NoGrade", "Opinion", "Outcome", "Panel", "Seat", "Task",
    "Vote", "Why", "grade_example", "read_calibration", "score_judged",
]  # fmt: skip
