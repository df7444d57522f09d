"""Whether a patient's message tells of an emergency, and what to say at once: rules and a small classifier, no network.

>>> assess([{"role": "user", "content": "I have chest pain"}]).kinds
(<Kind.HEART: 'heart'>,)
"""

from neurons.emergency.assessing import assess
from neurons.emergency.kinds import Assessment, Kind, Language
from neurons.emergency.notices import numbers

__all__ = ["Assessment", "Kind", "Language", "assess", "numbers"]
