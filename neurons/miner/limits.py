"""What one request may ask of an engine: how much at once, and which of the things that hold up everybody's answers.

An engine compiles a grammar for each form that an answer must have, on the thread that serves all others: a regular
expression of a few characters, or a schema with large counts in it, keeps it busy for minutes. So the first are a
pool's to allow, and the second have bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from neurons.miner.errors import RequestError, bad_request

MOST_WORDS: Final = 64
"""Of each list of words to stop at or to leave out: an engine looks for each of them at each token."""
MOST_WORD_CHARACTERS: Final = 256
MOST_IDS: Final = 1024
"""Tokens that are named one by one."""
MOST_LOGPROBS: Final = 20
"""As at OpenAI's: of each token so many others are told, and an answer has thousands of tokens."""
MOST_TOOLS: Final = 128
MOST_SWITCHES: Final = 16
"""Of `chat_template_kwargs`."""
MOST_FORCED_TOKENS: Final = 1024
"""That an answer may be made to have (`min_tokens`) where the pool doesn't let answers ignore their end."""
MOST_CHOICES: Final = 256
MOST_SCHEMA_PLACES: Final = 4096
"""Objects, lists and values of one schema."""
MOST_SCHEMA_COUNT: Final = 4096
"""In `maxLength` and its like: grammars grow with them."""
MOST_PATTERN: Final = 256
MOST_GRAMMAR: Final = 16 * 1024
_MOST_STEPS: Final = 512
"""Of a pattern once its counted repetitions are written out: `(a{9}){9}` has 81."""
_PIECE: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(?:,(\d*))?\}|.", re.DOTALL)
"""An escape, a set of characters, a counted repetition (the groups), or one character."""
_FORMS: Final = frozenset({"json", "json_object", "choice", "disable_any_whitespace", "disable_additional_properties"})
_PATTERNED: Final = {
    "regex": MOST_PATTERN, "grammar": MOST_GRAMMAR, "structural_tag": MOST_GRAMMAR, "whitespace_pattern": MOST_PATTERN,
}  # fmt: skip
_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
_COUNTS: Final = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
_ASK_POOL: Final = "this pool takes none (miner.limits.{field} of its MinerPool)"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a pool lets one request have; the defaults are for patients whom nobody knows."""

    images: bool = False
    """Images in messages, as data URLs."""
    messages: int = 1024
    """Messages, their parts and their calls of tools, together."""
    answers: int = 16
    """To one request: an engine runs them all at once, beside everybody else's."""
    tokens: int | None = None
    """That may be asked for an answer; None: as many as the engine's context holds."""
    patterns: bool = False
    """Regular expressions and grammars that answers must follow."""
    ignore_eos: bool = False
    """Answers that go on after their end, as benchmarks want them."""


def check_amounts(
    document: Mapping[str, Any], limits: Limits, *, prompts: int = 1, called: Mapping[str, str] | None = None
) -> None:
    """Refuse what would keep an engine from everybody else's requests; raises RequestError (400).

    `called`: how the client's route calls fields that were translated.
    """
    names = called or {}
    _check_answers(document.get("n", 1), limits, prompts=prompts)
    _check_lengths(document, limits, names)
    for name in ("stop", "bad_words"):
        _check_words(name, document.get(name))
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        if isinstance(given := document.get(name), list | dict) and len(given) > MOST_IDS:
            raise bad_request(f"`{name}` may hold {MOST_IDS} tokens at most", param=name)
    for name in ("top_logprobs", "logprobs", "prompt_logprobs"):
        if _number(document.get(name)) > MOST_LOGPROBS:
            raise bad_request(f"`{name}` may be {MOST_LOGPROBS} at most", param=name)
    for name in ("tools", "functions"):
        _check_tools(name, document.get(name))
    if isinstance(switches := document.get("chat_template_kwargs"), dict) and len(switches) > MOST_SWITCHES:
        message = f"`chat_template_kwargs` may hold {MOST_SWITCHES} switches at most"
        raise bad_request(message, param="chat_template_kwargs")
    if (form := document.get("response_format")) is not None:
        _check_format(names.get("response_format", "response_format"), form, limits)
    if (outputs := document.get("structured_outputs")) is not None:
        _check_outputs("structured_outputs", outputs, limits)


def check_messages(messages: Iterable[Any], limits: Limits, *, name: str = "messages") -> None:
    """Refuse a conversation of more pieces than are read; raises RequestError (400)."""
    pieces = 0
    for message in messages:
        pieces += 1
        if isinstance(message, dict):
            for part in (message.get("content"), message.get("tool_calls")):
                if isinstance(part, list):
                    pieces += max(0, len(part) - 1)
        if pieces > limits.messages:
            raise bad_request(
                f"`{name}` may hold {limits.messages} messages, parts and calls of tools at most: leave out the oldest",
                param=name, code="too_many_messages",
            )  # fmt: skip


def _check_answers(answers: Any, limits: Limits, *, prompts: int) -> None:
    if isinstance(answers, bool) or not isinstance(answers, int | float) or answers > limits.answers:
        raise bad_request(f"`n` must be a number, {limits.answers} at most", param="n")
    if prompts * answers > max(limits.answers, 1):
        raise bad_request(f"{limits.answers} answers at most are given at once: send fewer texts", param="prompt")


def _check_lengths(document: Mapping[str, Any], limits: Limits, names: Mapping[str, str]) -> None:
    if limits.tokens is not None:
        for name in ("max_tokens", "max_completion_tokens"):
            if _number(document.get(name)) > limits.tokens:
                shown = names.get(name, name)
                raise bad_request(f"`{shown}` may be {limits.tokens} at most in this pool", param=shown)
    if limits.ignore_eos:
        return
    if document.get("ignore_eos") not in (None, False):
        message = f"`ignore_eos` is not taken: {_ASK_POOL.format(field='ignoreEos')}"
        raise bad_request(message, param="ignore_eos", code="not_taken")
    if _number(document.get("min_tokens")) > MOST_FORCED_TOKENS:
        raise bad_request(f"`min_tokens` may be {MOST_FORCED_TOKENS} at most", param="min_tokens")


def _check_words(name: str, words: Any) -> None:
    if isinstance(words, str):
        words = [words]
    if not isinstance(words, list):
        return
    if len(words) > MOST_WORDS:
        raise bad_request(f"`{name}` may hold {MOST_WORDS} texts at most", param=name)
    if any(isinstance(word, str) and len(word) > MOST_WORD_CHARACTERS for word in words):
        raise bad_request(f"texts of `{name}` may have {MOST_WORD_CHARACTERS} characters at most", param=name)


def _check_tools(name: str, tools: Any) -> None:
    if not isinstance(tools, list):
        return
    if len(tools) > MOST_TOOLS:
        raise bad_request(f"`{name}` may hold {MOST_TOOLS} at most", param=name)
    for number, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict):
            _check_schema(f"{name}[{number}]", function.get("parameters"), param=name)


def _check_format(name: str, form: Any, limits: Limits) -> None:
    param = name.partition(".")[0]
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "structural_tag":
        if not limits.patterns:
            raise _no_patterns(name, param)
        return
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise bad_request(f"`{name}.type` must be one of {', '.join(sorted(_FORMATS))}", param=param)
    schema = form.get("json_schema")
    if isinstance(schema, dict):
        _check_schema(name, schema.get("schema"), param=param)


def _check_outputs(name: str, outputs: Any, limits: Limits) -> None:
    if not isinstance(outputs, dict):
        raise bad_request(f"`{name}` must be an object", param=name)
    given = {member: value for member, value in outputs.items() if value is not None}
    for member, most in _PATTERNED.items():
        if member not in given:
            continue
        if not limits.patterns:
            raise _no_patterns(f"{name}.{member}", name)
        if not isinstance(given[member], str) or len(given[member]) > most:
            raise bad_request(f"`{name}.{member}` must be a text of {most} characters at most", param=name)
        if member == "regex":
            _check_pattern(f"{name}.{member}", given[member], param=name)
    if unknown := given.keys() - _FORMS - _PATTERNED.keys():
        raise bad_request(f"`{name}.{min(unknown)[:64]}` is not known: remove it", param=name, code="unknown_field")
    choice = given.get("choice")
    if choice is not None and (not isinstance(choice, list) or not 0 < len(choice) <= MOST_CHOICES):
        raise bad_request(f"`{name}.choice` must be a list of 1 to {MOST_CHOICES} texts", param=name)
    schema = given.get("json")
    if schema is not None and not isinstance(schema, dict):
        raise bad_request(f"`{name}.json` must be the schema itself, as an object", param=name)
    _check_schema(f"{name}.json", schema, param=name)


def _check_schema(name: str, schema: Any, *, param: str) -> None:
    """Look through a schema for what grows a grammar; a walk of bounded length."""
    left, places = [schema], 0
    while left:
        value = left.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        places += 1 + len(inner)
        if places > MOST_SCHEMA_PLACES:
            raise bad_request(f"the schema of `{name}` has more than {MOST_SCHEMA_PLACES} places", param=param)
        if isinstance(value, dict):
            for count in _COUNTS:
                if _number(value.get(count)) > MOST_SCHEMA_COUNT:
                    raise bad_request(f"`{count}` in `{name}` may be {MOST_SCHEMA_COUNT} at most", param=param)
            if isinstance(pattern := value.get("pattern"), str):
                _check_pattern(name, pattern, param=param)
            if isinstance(patterned := value.get("patternProperties"), dict):
                for pattern in patterned:
                    _check_pattern(name, pattern, param=param)
        left.extend(each for each in inner if isinstance(each, dict | list))


def _check_pattern(name: str, pattern: str, *, param: str) -> None:
    if len(pattern) > MOST_PATTERN:
        raise bad_request(f"a pattern in `{name}` may have {MOST_PATTERN} characters at most", param=param)
    if _steps(pattern) > _MOST_STEPS:
        raise bad_request(
            f"a pattern in `{name}` has more than {_MOST_STEPS} steps once its repetitions are written out: write * or "
            "+ instead",
            param=param,
        )


def _steps(pattern: str) -> int:
    """Return how many steps a pattern has once its counted repetitions are written out, at most those of its text."""
    sums, last = [0], 0
    """Of the group that is open now, and of those around it; the last is what a repetition would repeat."""
    for piece in _PIECE.finditer(pattern):
        counts = [int(count) for count in piece.groups() if count]
        if counts:
            times = max(counts)
            sums[-1] += last * (times - 1) if times else 0
            last *= max(times, 1)
        elif piece[0] == "(":
            sums.append(0)
            last = 0
        elif piece[0] == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = 1
            sums[-1] += 1
        if sums[-1] > _MOST_STEPS:
            return sums[-1]
    return sum(sums)


def _no_patterns(place: str, param: str) -> RequestError:
    message = f"`{place}` is not taken: of regular expressions and grammars {_ASK_POOL.format(field='patterns')}"
    return bad_request(message, param=param, code="not_taken")


def _number(value: Any) -> float:
    """Return a count, 0 for what is none: what an engine can't read it refuses itself."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
