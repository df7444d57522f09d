"""What the digests of a receipt are over. `docs/receipts.md` is the specification; anybody can compute them anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurons.receipts.canonical import canonical, sha256


def question_of_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of a chat's question: of `{"messages": [...]}`, as the client sent them.

    Members of a message that are null are left out, except `content`: clients disagree whether they send them.
    """
    kept = [
        {name: value for name, value in message.items() if value is not None or name == "content"}
        if None in message.values()
        else message
        for message in messages
    ]
    return sha256(canonical({"messages": kept}))


def question_of_text(text: str) -> str:
    """Return the digest of a conversation that is one message of the user's."""
    return question_of_messages([{"role": "user", "content": text}])


def question_of_prompt(prompt: str | Sequence[str]) -> str:
    """Return the digest of a text to go on with: of `{"prompt": …}`."""
    return sha256(canonical({"prompt": prompt}))


def question_of_input(given: Mapping[str, Any]) -> str:
    """Return the digest of a response's question: of `{"input": …, "instructions": …}`, the latter if it was given."""
    names = [name for name in ("input", "instructions") if given.get(name) is not None]
    return sha256(canonical({name: given[name] for name in names}))


def answer_of(texts: Sequence[str]) -> str:
    """Return the digest of an answer.

    One choice: of its text's UTF-8 bytes, as `sha256sum` would say. Several: of the canonical list of their texts.
    """
    return sha256(texts[0].encode() if len(texts) == 1 else canonical(list(texts)))
