"""Which of several answers that one version drew is given: scorers, each pluggable, and the choice among what they say.

A scorer never sees who asks, and never changes an answer: it only prefers one that the twin's own weights gave.
"""

from neurons.candidates.candidate import Candidate, Question, Scorer
from neurons.candidates.choosing import Choice, Chooser, Weighted
from neurons.candidates.registry import BUILT_IN, ENTRY_POINTS, ScorerSettingError, read_scorers

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "Candidate",
    "Choice",
    "Chooser",
    "Question",
    "Scorer",
    "ScorerSettingError",
    "Weighted",
    "read_scorers",
]
