"""The gate's arithmetic, without a model and without a library: examiner and operator come to the same decision.

decision = decide(scored, Criteria(...))      # Promote, Reject or Inconclusive, and why
"""

from bettertherapy_api.gate.decision import Criteria, Decision, Metric, Scored, Ungraded, decide
from bettertherapy_api.gate.intervals import Interval

__all__ = ["Criteria", "Decision", "Interval", "Metric", "Scored", "Ungraded", "decide"]
