"""Find out which manner a chat template takes, from how an engine answers conversations of the real shape.

Sans I/O: `TemplateProbe` says what to ask next and takes the reply, so that the agent, the miner and the trainer can
each ask in their own way. Four to six questions settle it. A template that takes a turn but leaves its text out is
found by the prompt's length, wherever the rules stand: they must not vanish in silence. Lengths are compared between
prompts that have a system's text both or both have none, since many templates (Qwen 2.5's, SmolLM2's) put one of their
makers' in where there is none, which is as long as the rules are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from neurons.conversation.shape import Manner, Message, SystemPlace, shape

_RULES: Final = (
    "You are a careful assistant of a doctor. Answer briefly, in plain words, and name what you do not know."
)
_FEW_RULES: Final = "Be kind."
_ENOUGH_TOKENS: Final = 8
"""The rules have as many tokens more than the few, and than none, in any vocabulary."""
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


class _Stage(Enum):
    """What is asked."""

    BARE = auto()
    """A talk without rules."""
    FEW_RULES = auto()
    """With a few, as a system's turn: what the others are measured by."""
    OWN_TURN = auto()
    USERS_TURN = auto()
    LONGER = auto()
    """Do they stay when the talk goes on?"""
    GREETED = auto()
    """Does the template take an assistant that speaks first?"""


class TemplateProbe:
    """`next()` is what to ask, or None when `result` is there; `take(reply)` goes on."""

    def __init__(self) -> None:
        self.result: Manner | Refused | None = None
        self._bare_tokens: int | None = None
        """Of the same talk without the rules."""
        self._own_turn_tokens: int | None = None
        self._place = SystemPlace.OWN_TURN
        self._stage = _Stage.BARE

    def next(self) -> Probe | None:  # noqa: PLR0911 - one for each stage
        """Return what to ask, None when it is settled."""
        if self.result is not None:
            return None
        own_turn, in_users = Manner(), Manner(system=SystemPlace.FIRST_USER_TURN)
        match self._stage:
            case _Stage.BARE:
                return Probe(_TALK)
            case _Stage.FEW_RULES:
                return Probe(tuple(shape(_TALK, system=_FEW_RULES, manner=own_turn)))
            case _Stage.OWN_TURN:
                return Probe(tuple(shape(_TALK, system=_RULES, manner=own_turn)))
            case _Stage.USERS_TURN:
                return Probe(tuple(shape(_TALK, system=_RULES, manner=in_users)))
            case _Stage.LONGER:
                return Probe(tuple(shape(_LONGER, system=_RULES, manner=Manner(system=self._place))))
            case _Stage.GREETED:
                # Rules in the first user turn would stand before the greeting: the question is how it is without.
                rules = _RULES if self._place is SystemPlace.OWN_TURN else None
                return Probe(tuple(shape(_GREETED, system=rules, manner=Manner(system=self._place))))

    def take(self, reply: Reply) -> None:  # noqa: PLR0912 - a branch for each stage and answer
        """Take the answer to `next()`."""
        match self._stage:
            case _Stage.BARE if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case _Stage.BARE:
                self._bare_tokens, self._stage = reply.prompt_tokens, _Stage.FEW_RULES
            case _Stage.FEW_RULES if reply.refusal is None:
                self._own_turn_tokens, self._stage = reply.prompt_tokens, _Stage.OWN_TURN
            case _Stage.FEW_RULES:
                self._stage = _Stage.USERS_TURN
            case _Stage.OWN_TURN if reply.refusal is None and _heard(reply, self._own_turn_tokens):
                self._place, self._stage = SystemPlace.OWN_TURN, _Stage.LONGER
            case _Stage.OWN_TURN:
                self._stage = _Stage.USERS_TURN
            case _Stage.USERS_TURN if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case _Stage.USERS_TURN if _heard(reply, self._bare_tokens):
                self._place, self._stage = SystemPlace.FIRST_USER_TURN, _Stage.LONGER
            case _Stage.USERS_TURN:
                self.result = Refused(_UNHEARD)
            case _Stage.LONGER if reply.refusal is not None:
                self.result = Refused(reply.refusal)
            case _Stage.LONGER if not _heard(reply, self._tokens_without_rules):
                self.result = Refused(_UNHEARD)
            case _Stage.LONGER:
                self._stage = _Stage.GREETED
            case _Stage.GREETED:
                self.result = Manner(system=self._place, user_first=reply.refusal is not None)

    @property
    def _tokens_without_rules(self) -> int | None:
        return self._own_turn_tokens if self._place is SystemPlace.OWN_TURN else self._bare_tokens


def _heard(reply: Reply, without: int | None) -> bool:
    """Tell whether a prompt is longer by the rules; believed where the engine doesn't tell."""
    if reply.prompt_tokens is None or without is None:
        return True
    return reply.prompt_tokens - without >= _ENOUGH_TOKENS
