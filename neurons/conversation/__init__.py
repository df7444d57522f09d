"""How a conversation is laid before a chat template: one shaping for the miner, the trainer and the evaluation.

Templates differ in what they take: a turn of the system's own or none, an assistant that speaks first or not. Turns of
one speaker in a row are one turn to all of them.
`shape` writes a conversation in one `Manner`; `probe` finds out which manner a template takes. Both are pure.
"""

from neurons.conversation.probe import Probe, Refused, Reply, TemplateProbe, may_be_the_templates
from neurons.conversation.shape import (
    BETWEEN,
    DEFAULT,
    OPENING,
    SYSTEM_ROLES,
    Manner,
    Message,
    SystemPlace,
    is_plain,
    shape,
    text_of,
)

__all__ = [
    "BETWEEN",
    "DEFAULT",
    "OPENING",
    "SYSTEM_ROLES",
    "Manner",
    "Message",
    "Probe",
    "Refused",
    "Reply",
    "SystemPlace",
    "TemplateProbe",
    "is_plain",
    "may_be_the_templates",
    "shape",
    "text_of",
]
