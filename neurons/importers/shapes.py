"""The shapes that datasets are published in, each read into our fields; nothing is dropped in silence.

    openai      {"messages": [{"role": …, "content": …}], …}: OpenAI's fine-tuning files
    sharegpt    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "system": …}
    alpaca      {"instruction": …, "input": …, "output": …, "system": …, "history": [[…, …]]}
    preference  {"prompt": …, "chosen": …, "rejected": …}: TRL's, plain or with messages, with or without `prompt`

A reader takes one object and returns the fields of docs/datasets.md, or raises Refused; it never quotes a content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

Fields = dict[str, Any]


class Shape(StrEnum):
    """A shape that is read."""

    OPENAI = "openai"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PREFERENCE = "preference"


class Refused(Exception):  # noqa: N818 - said of the line
    """A line can't be imported; the message says why, and never what stands in it."""


_ROLES: Final[Mapping[str, str]] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "patient": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "bot": "assistant", "model": "assistant", "chatbot": "assistant", "doctor": "assistant", "agent": "assistant",
}  # fmt: skip
_TOOLS: Final = frozenset(
    {"tool", "function", "ipython", "function_call", "function_response", "observation", "tool_call", "tool_response"}
)
_COMMON: Final = frozenset({"id", "consent", "rating", "correction"})
"""Fields of ours that somebody may have added to another shape: they keep their meaning."""


def openai(document: Mapping[str, Any]) -> Fields:
    """Read OpenAI's chat JSONL."""
    if "messages" not in document and {"input", "preferred_output"} <= document.keys():
        raise Refused("OpenAI's shape of preferences (`input`, `preferred_output`); convert it to `prompt`, `chosen`")
    if "messages" not in document and "body" in document:
        raise Refused("OpenAI's batch shape (`custom_id`, `body`); take `body` out, and the answer of its results")
    if "mapping" in document:
        raise Refused("ChatGPT's export (`mapping`); convert it to `messages`")
    _only(document, {"messages"} | _COMMON, ignored={"parallel_tool_calls"})
    for name in ("tools", "functions"):
        if document.get(name):
            raise Refused(f"`{name}`: calls of tools can't be learned")
    return {"messages": _messages(document.get("messages"), "messages"), **_ours(document)}


def sharegpt(document: Mapping[str, Any]) -> Fields:
    """Read ShareGPT's conversations, also under `conversation` or `items`, also with `role` and `content`."""
    names = [name for name in ("conversations", "conversation", "items") if name in document]
    if len(names) != 1:
        raise Refused("`conversations` is missing" if not names else f"both `{names[0]}` and `{names[1]}`")
    _only(document, {names[0], "system"} | _COMMON, ignored=_BESIDE)
    if document.get("tools"):
        raise Refused("`tools`: calls of tools can't be learned")
    turns = _messages(document[names[0]], names[0])
    system = _optional_text(document.get("system"), "system")
    return {"messages": _with_system(system, turns), **_ours(document)}


def alpaca(document: Mapping[str, Any]) -> Fields:
    """Read Alpaca's `instruction`, `input`, `output`, with LLaMA-Factory's `system` and `history`."""
    _only(document, {"instruction", "input", "output", "system", "history"} | _COMMON, ignored=_BESIDE)
    asked = _text(document, "instruction")
    answer = _text(document, "output")
    extra = _optional_text(document.get("input"), "input")
    if extra is not None and extra.strip().lower() not in _NO_INPUT:
        asked = f"{asked}\n\n{extra}"
    turns: list[Fields] = []
    history = document.get("history") or []
    if not isinstance(history, list):
        raise Refused("`history` is no list of pairs")
    for number, pair in enumerate(history, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise Refused(f"`history`, entry {number}: not a pair of texts")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": _with_system(_optional_text(document.get("system"), "system"), turns), **_ours(document)}


def preference(document: Mapping[str, Any]) -> Fields:  # noqa: PLR0912 - a branch for each way it is published
    """Read TRL's preferences: plain, conversational, and those whose prompt stands in both answers ("implicit")."""
    _only(document, {"prompt", "chosen", "rejected", "system"} | _COMMON, ignored=_BESIDE | _SCORES)
    for name in ("rating", "correction"):
        if document.get(name) not in (None, ""):
            raise Refused(f"a pair of answers has no `{name}`")
    if document.get("tools"):
        raise Refused("`tools`: calls of tools can't be learned")
    for name in ("chosen", "rejected"):
        if name not in document:
            raise Refused(f"`{name}` is missing")
    chosen, rejected, prompt = document["chosen"], document["rejected"], document.get("prompt")
    system = _optional_text(document.get("system"), "system")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is not None and any(mark in text for mark in _TRANSCRIPT for text in (chosen, rejected)):
            raise Refused("`chosen` or `rejected` is a whole conversation as one text; take `prompt` out, or split it")
        if isinstance(prompt, list):
            turns = _messages(prompt, "prompt")
        elif isinstance(prompt, str):
            if _TRANSCRIPT[0] in prompt:
                raise Refused("`prompt` is a whole conversation as one text (HH-RLHF's); split it into messages")
            turns = [{"role": "user", "content": prompt}]
        elif _TRANSCRIPT[0] in chosen:
            turns, chosen, rejected = _transcripts(chosen, rejected)
        else:
            raise Refused("`prompt` is missing")
        return _pair(system, turns, chosen, rejected, document)
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        raise Refused("`chosen` and `rejected` are neither both texts nor both lists of messages")
    good, bad = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    if not good or not bad:
        raise Refused(f"`{'chosen' if not good else 'rejected'}` holds no message")
    if good[-1]["role"] != "assistant" or bad[-1]["role"] != "assistant":
        raise Refused("`chosen` and `rejected` don't both end with an answer")
    if good[:-1] != bad[:-1]:
        raise Refused("`chosen` and `rejected` differ before the last answer, so that they answer different questions")
    asked = _asked(prompt)
    before = good[:-1]
    if asked and before and before[-len(asked) :] != asked:
        raise Refused("`prompt` isn't what `chosen` and `rejected` begin with")
    return _pair(system, before or asked, good[-1]["content"], bad[-1]["content"], document)


SHAPES: Final[Mapping[Shape, Callable[[Mapping[str, Any]], Fields]]] = {
    Shape.OPENAI: openai,
    Shape.SHAREGPT: sharegpt,
    Shape.ALPACA: alpaca,
    Shape.PREFERENCE: preference,
}

_NO_INPUT: Final = frozenset({"", "<noinput>", "n/a", "none", "nan"})
_TRANSCRIPT: Final = ("\n\nHuman:", "\n\nAssistant:")
_BESIDE: Final = frozenset(
    {"text", "tools", "source", "dataset", "category", "language", "lang", "model", "idx", "index", "hash", "topic",
     "skip_prompt_formatting", "title", "views", "avatarUrl", "custom_instruction", "conversation_id", "split", "uuid",
     "prompt_id", "difficulty", "tags", "type", "task", "meta", "metadata", "weight"}
)  # fmt: skip
"""What publishers put beside a conversation, about it. It is left away, and the report says so."""
_SCORES: Final = frozenset(
    {"score_chosen", "score_rejected", "chosen_rating", "rejected_rating", "chosen_model", "rejected_model", "messages",
     "margin", "chosen_score", "rejected_score", "chosen-rating", "rejected-rating", "chosen-model", "rejected-model"}
)  # fmt: skip


def left_away(shape: Shape, document: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields about a conversation, not of it, that are not imported."""
    known = {"parallel_tool_calls"} if shape is Shape.OPENAI else set(_BESIDE)
    if shape is Shape.PREFERENCE:
        known |= _SCORES
    return frozenset(name for name in document if name in known)


def _only(document: Mapping[str, Any], known: set[str] | frozenset[str], *, ignored: set[str] | frozenset[str]) -> None:
    """Refuse a field that isn't known: it may be what matters, a consent under another name."""
    strange = sorted(set(document) - known - ignored - {"tools", "functions"})
    if not strange:
        return
    named = f"`{strange[0]}`" if strange[0].isascii() and strange[0].isidentifier() and len(strange[0]) <= 32 else "one"
    raise Refused(f"a field is unknown ({named}); take it out, or choose another --from")


def _messages(turns: Any, name: str) -> list[Fields]:
    if isinstance(turns, str):
        raise Refused(f"`{name}` is a text; expected a list of messages")
    if not isinstance(turns, list):
        raise Refused(f"`{name}` is missing" if turns is None else f"`{name}` is no list of messages")
    return [_message(turn, f"`{name}`, message {number}") for number, turn in enumerate(turns, start=1)]


def _message(turn: Any, where: str) -> Fields:
    if not isinstance(turn, dict):
        raise Refused(f"{where}: no object")
    said = turn.get("from", turn.get("role"))
    role = said.strip().lower() if isinstance(said, str) else None
    if role in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
        raise Refused(f"{where}: a call of a tool or its result, which can't be learned")
    if role is None or role not in _ROLES:
        raise Refused(f"{where}: who speaks is {'not said' if role is None else 'none of system, user, assistant'}")
    if turn.get("weight") == 0:
        raise Refused(f"{where}: weight 0 (not to be learned); the trainer learns every answer. Cut the line before it")
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list):
        content = _parts(content, where)
    if content is not None and not isinstance(content, str):
        raise Refused(f"{where}: what is said is no text")
    if turn.get("refusal") and not content:
        content = turn["refusal"] if isinstance(turn["refusal"], str) else content
    return {"role": _ROLES[role], "content": content}


def _parts(parts: list[Any], where: str) -> str:
    texts = []
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise Refused(f"{where}: a picture, sound or file, which can't be learned")
        texts.append(part["text"])
    return "\n\n".join(texts)


def _with_system(system: str | None, turns: list[Fields]) -> list[Fields]:
    if system is None or not system.strip():
        return turns
    if turns and turns[0]["role"] == "system":
        raise Refused("a `system` beside a system message; nobody can tell which one counts")
    return [{"role": "system", "content": system}, *turns]


def _pair(system: str | None, turns: list[Fields], good: Any, bad: Any, document: Mapping[str, Any]) -> Fields:
    return {"messages": _with_system(system, turns), "preferred": good, "rejected": bad, **_ours(document)}


def _asked(prompt: Any) -> list[Fields]:
    if prompt is None or prompt == "":
        return []
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _messages(prompt, "prompt")


def _transcripts(chosen: str, rejected: str) -> tuple[list[Fields], str, str]:
    """Split Anthropic's HH-RLHF: both texts hold the whole conversation and differ in the last answer."""
    good, bad = _transcript(chosen), _transcript(rejected)
    if good[-1]["role"] != "assistant" or bad[-1]["role"] != "assistant":
        raise Refused("`chosen` and `rejected` don't both end with an answer")
    if good[:-1] != bad[:-1]:
        raise Refused("`chosen` and `rejected` differ before the last answer, so that they answer different questions")
    return good[:-1], good[-1]["content"], bad[-1]["content"]


def _transcript(text: str) -> list[Fields]:
    human, assistant = _TRANSCRIPT
    turns: list[Fields] = []
    head, *rest = text.split(human)
    if head.strip() or not rest:
        raise Refused("a conversation as one text that doesn't begin with Human")
    for part in rest:
        asked, *answers = part.split(assistant)
        turns.append({"role": "user", "content": asked.strip()})
        turns += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return turns


def _ours(document: Mapping[str, Any]) -> Fields:
    found = {name: document[name] for name in _COMMON if document.get(name) is not None}
    if isinstance(found.get("id"), int) and not isinstance(found["id"], bool):
        found["id"] = str(found["id"])  # many number their lines
    return found


def _text(document: Mapping[str, Any], name: str) -> str:
    if name not in document:
        raise Refused(f"`{name}` is missing")
    if not isinstance(document[name], str):
        raise Refused(f"`{name}` is no text")
    return str(document[name])


def _optional_text(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise Refused(f"`{name}` is no text")
