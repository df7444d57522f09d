"""Find out which manner a chat template takes, from how an engine answers conversations of the real shape.

Sans I/O: `TemplateProbe` says what to ask next and takes the reply, so that the agent, the miner and the trainer can
each ask in their own way. Four or five questions settle it. A template that takes a turn but leaves its text out is
found by the prompt's length, wherever the rules stand: they must not vanish in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neurons.conversation.shape import DEFAULT, Manner, Message, SystemPlace, shape

_RULES: Final = (
    "You are a careful assistant of a doctor. Answer briefly, in plain words, and name what you do not know."
)
_ENOUGH_TOKENS: Final = 8
"""The rules have more tokens than this in any vocabulary."""
_UNHEARD: Final = (
    "it leaves out what the assistant is told at the beginning, as a system's turn or in the first user turn"
)
_TALK: Final[tuple[Message, ...]] = (
    {"role": "user", "content": "I slept badly."},
    {"role": "assistant", "content": "Since when?"},
    {"role": "user", "content": "Since Monday."},
)
_LONGER: Final[tuple[Message, ...]] = (
    *_TALK,
    {"role": "assistant", "content": "Are you sure?"},
    {"role": "user", "content": "No, since Sunday."},
)
_GREETED: Final[tuple[Message, ...]] = ({"role": "assistant", "content": "How can I help?"}, _TALK[0])


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask the engine: apply the template to `messages`, with a prompt for the answer."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine said."""

    refusal: str | None = None
    """Why the template refused, in the engine's words; None when it took the messages."""
    prompt_tokens: int | None = None
    """None where the engine doesn't tell."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No manner works."""

    why: str


def may_be_the_templates(status: int, param: object) -> bool:
    """Tell whether an engine's refusal may be its chat template's: vLLM names a parameter in its own."""
    return status == 400 and param is None


class TemplateProbe:
    """`next()` is what to ask, or None when `result` is there; `take(reply)` goes on."""

    def __init__(self) -> None:
        self.result: Manner | Refused | None = None
        self._bare_tokens: int | None = None
        self._place = SystemPlace.OWN_TURN
        self._stage = 0

    def next(self) -> Probe | None:
        """Return what to ask, None when it is settled."""
        if self.result is not None:
            return None
        match self._stage:
            case 0:
                return Probe(_TALK)
            case 1:
                return Probe(tuple(shape(_TALK, system=_RULES, manner=DEFAULT)))
            case 2:
                manner = Manner(system=SystemPlace.FIRST_USER_TURN)
                return Probe(tuple(shape(_TALK, system=_RULES, manner=manner)))
            case 3:
                return Probe(tuple(shape(_LONGER, system=_RULES, manner=Manner(system=self._place))))
            case _:
                # Rules in the first user turn would stand before the greeting: the question is how it is without.
                rules = _RULES if self._place is SystemPlace.OWN_TURN else None
                return Probe(tuple(shape(_GREETED, system=rules, manner=Manner(system=self._place))))

    def take(self, reply: Reply) -> None:
        """Take the answer to `next()`."""
        match self._stage:
            case 0 if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case 0:
                self._bare_tokens, self._stage = reply.prompt_tokens, 1
            case 1 if reply.refusal is None and self._heard(reply):
                self._place, self._stage = SystemPlace.OWN_TURN, 3
            case 1:
                self._stage = 2
            case 2 if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case 2 if self._heard(reply):
                self._place, self._stage = SystemPlace.FIRST_USER_TURN, 3
            case 2:
                self.result = Refused(_UNHEARD)
            case 3 if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case 3 if not self._heard(reply):
                self.result = Refused(_UNHEARD)
            case 3:
                self._stage = 4
            case _:
                self.result = Manner(system=self._place, user_first=reply.refusal is not None)

    def _heard(self, reply: Reply) -> bool:
        if reply.prompt_tokens is None or self._bare_tokens is None:
            return True
        return reply.prompt_tokens - self._bare_tokens >= _ENOUGH_TOKENS
