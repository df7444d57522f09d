"""The gate's arithmetic, without a model and without a library: examiner and operator come to the same decision.

decision = decide(scored, Criteria(...))      # Promote, Reject or Inconclusive, and why
worth = credit(scored, learning, ...)         # Passed, Failed or Inconclusive, of a version that a miner made
"""

from bettertherapy_api.gate.credit import Credit, credit
from bettertherapy_api.gate.decision import Criteria, Decision, Metric, Scored, Ungraded, decide
from bettertherapy_api.gate.intervals import Interval
from bettertherapy_api.gate.learning import Learning

__all__ = [
    "Credit", "Criteria", "Decision", "Interval", "Learning", "Metric", "Scored", "Ungraded", "credit", "decide",
]  # fmt: skip
