"""One scorer for answers, used by the fine-tune's gate and by validators: pure, deterministic, without a model.

items = parse_items(data)              # choice, gold answer or rubric
score = score_answer(item, answer)     # 0.0 to 1.0
decision = decide(scored, Criteria(...))  # scored: by neurons.scoring.examination, item by item
"""

from bettertherapy_api.gate import Criteria, Decision, Interval, Metric, Scored, Ungraded, decide
from neurons.scoring.items import Choice, Criterion, Gold, Item, ItemError, Rubric, parse_items
from neurons.scoring.safety import safety_items
from neurons.scoring.scorer import ScorerError, score_answer

__all__ = [
    "Choice",
    "Criteria",
    "Criterion",
    "Decision",
    "Gold",
    "Interval",
    "Item",
    "ItemError",
    "Metric",
    "Rubric",
    "Scored",
    "ScorerError",
    "Ungraded",
    "decide",
    "parse_items",
    "safety_items",
    "score_answer",
]
