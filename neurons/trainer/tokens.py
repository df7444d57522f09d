"""Conversations as tokens: what of them is learned, and what fits.

What is too long is cut between turns at the front, never within an answer: half an answer may say the opposite.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from neurons.trainer.dataset import Pair
from neurons.trainer.errors import BadModel
from neurons.trainer.lines import Flaw, Message
from neurons.trainer.packing import IGNORED, Example
from neurons.trainer.template import templated


class Fit(Enum):
    """How a conversation fits."""

    WHOLE = auto()
    SHORTENED = auto()
    """Its first turns are left out."""
    NOT = auto()
    """The last answer with its question and the system prompt is too long already."""
    MARKED = auto()
    """A text in it holds one of the model's own marks, as the one that ends a turn."""


UNFIT: Final[Mapping[Fit, Flaw]] = {Fit.NOT: Flaw.TOO_LONG, Fit.MARKED: Flaw.MARKED}
"""What isn't learned, and what it is counted as."""


def unfit(fits: Iterable[Fit]) -> dict[str, int]:
    """Count what isn't learned."""
    return dict(Counter(UNFIT[each].value for each in fits if each in UNFIT))


def load_tokenizer(base_model: Path) -> Any:
    """Return the tokenizer from a local folder. Raises BadModel."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Seconds to import, and absent where only the rest is tested.
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(base_model)
    except (OSError, ValueError) as error:
        raise BadModel(f"{base_model} is no model that transformers can read: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise BadModel(f"{base_model} has no chat template. Use an instruction-tuned base model.")
    return tokenizer


def tokenise(conversation: Sequence[Message], tokenizer: Any) -> tuple[Example, ...]:
    """Apply the chat template and mark the assistant's tokens (with the token that ends a turn) as those to learn, of
    those answers that are.

    Templates seldom mark the assistant's part themselves, so its bounds are found by templating the conversation up to
    each of its turns. It is one example as long as the template leaves earlier turns as they were; one that rewrites
    them (Qwen 3's leaves out what was thought) gives an example for each answer, as it stands when it is given. Raises
    BadModel when an answer can't be told from what is given.
    """
    messages = [message.model_dump() for message in conversation]
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        given = templated(tokenizer, messages[:index], add_generation_prompt=True)
        whole = templated(tokenizer, messages[: index + 1], add_generation_prompt=False)
        if whole[: len(given)] != given:
            raise BadModel("the chat template puts an answer elsewhere than where it asks for one; can't train on it")
        answers.append((given, whole, conversation[index].learned))
    if all(later[: len(whole)] == whole for (_, whole, _), (later, _, _) in pairwise(answers)):
        labels: list[int] = []
        for given, whole, learned in answers:
            said = whole[len(given) :] if learned else [IGNORED] * (len(whole) - len(given))
            labels += [IGNORED] * (len(given) - len(labels)) + said
        return (Example(token_ids=tuple(answers[-1][1]), labels=tuple(labels)),)
    return tuple(
        Example(token_ids=tuple(whole), labels=(*[IGNORED] * len(given), *whole[len(given) :]))
        for given, whole, learned in answers
        if learned
    )


def examples_of(lesson: Sequence[Message] | Pair, tokenizer: Any, *, max_tokens: int) -> int:
    """Return as how many examples a conversation or a pair is learned, each of which takes its place in a step."""
    if isinstance(lesson, Pair) or sum(message.role == "assistant" and message.learned for message in lesson) == 1:
        return 1
    kept = shortened(lesson, tokenizer, max_tokens=max_tokens)
    return len(tokenise(kept, tokenizer)) if kept is not None else 0


def shortened(conversation: Sequence[Message], tokenizer: Any, *, max_tokens: int) -> tuple[Message, ...] | None:
    """Return the conversation from the first question on from which all of it fits; None when nothing can be learned.

    A system message stays. `max_tokens` is what the chat template makes of it, at most.
    """
    if _is_marked(conversation, tokenizer):
        return None
    system = conversation[:1] if conversation[0].role == "system" else ()
    turns = conversation[len(system) :]
    for start in (index for index, turn in enumerate(turns) if turn.role == "user"):
        kept = (*system, *turns[start:])
        dumped = [message.model_dump() for message in kept]
        if len(templated(tokenizer, dumped, add_generation_prompt=False)) <= max_tokens:
            return kept
    return None


def shortened_pair(pair: Pair, tokenizer: Any, *, max_tokens: int) -> Pair | None:
    """Return the pair with as much of what came before as fits beside both answers; None when none does."""
    prompts = [
        shortened((*pair.prompt, Message(role="assistant", content=text)), tokenizer, max_tokens=max_tokens)
        for text in (pair.preferred, pair.rejected)
    ]
    if any(prompt is None for prompt in prompts):
        return None
    prompt = min((prompt[:-1] for prompt in prompts if prompt is not None), key=len)
    return Pair(prompt=prompt, preferred=pair.preferred, rejected=pair.rejected)


def fit(lesson: Sequence[Message] | Pair, tokenizer: Any, *, max_tokens: int) -> Fit:
    """Tell how a conversation or a pair fits."""
    kept: Sequence[Message] | None
    if _is_marked(_said(lesson), tokenizer):
        return Fit.MARKED
    if isinstance(lesson, Pair):
        pair = shortened_pair(lesson, tokenizer, max_tokens=max_tokens)
        before, kept = lesson.prompt, pair.prompt if pair is not None else None
    else:
        before, kept = tuple(lesson), shortened(lesson, tokenizer, max_tokens=max_tokens)
    if kept is None:
        return Fit.NOT
    return Fit.WHOLE if len(kept) == len(before) else Fit.SHORTENED


def _said(lesson: Sequence[Message] | Pair) -> Sequence[Message]:
    if not isinstance(lesson, Pair):
        return lesson
    answers = (Message(role="assistant", content=text) for text in (lesson.preferred, lesson.rejected))
    return (*lesson.prompt, *answers)


def _is_marked(conversation: Sequence[Message], tokenizer: Any) -> bool:
    """Tell whether patient or twin say one of the model's own marks (`<|im_end|>`, `</s>`), as exports leave them.

    A tokenizer takes it for what it is wherever it stands: the twin would learn to stop in the middle of an answer.
    """
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})  # Llama 3 names most of its own only here
    marks = {*getattr(tokenizer, "all_special_tokens", ()), *(str(each) for each in added.values() if each.special)}
    marks.discard("")
    return any(mark in each.content for each in conversation if each.role != "system" for mark in marks)


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error says."""
    return str(error).strip().partition("\n")[0][:300]
