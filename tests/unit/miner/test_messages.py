"""What of a client's messages goes on to the engine, and what is refused by the message's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neurons.conversation import DEFAULT
from neurons.miner.chat import parse_chat
from neurons.miner.errors import RequestError
from neurons.miner.limits import Limits
from tests.unit.miner.engine_bodies import body_of

RULES = "You are Dr. Gurung's twin."
URL = "data:image/png;base64,AAAA"
ASKED = {"role": "user", "content": "I have a cough."}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def sent_of(messages: list[Any], *, images: bool = False, system_prompt: str | None = None) -> Any:
    """The messages that the engine gets."""
    asked = parse_chat(json.dumps({"model": "indra", "messages": messages}).encode(), limits=Limits(images=images))
    return body_of(asked, system_prompt=system_prompt, manner=DEFAULT)["messages"]


def test_an_image_goes_on_without_the_clients_name_for_it() -> None:
    """vLLM takes a part's `uuid` for its content's hash: two pictures of one name would be one in its cache."""
    part = {
        "type": "image_url", "uuid": "scan-1", "mm_hash": "x",
        "image_url": {"url": URL, "detail": "low", "uuid": "scan-1", "id": "x"},
    }  # fmt: skip
    text = {"type": "text", "text": "What is this?", "uuid": "u", "cache_control": {"type": "ephemeral"}}
    sent = sent_of([{"role": "user", "content": [text, part], "uuid": "u"}], images=True)
    written: list[Any] = [
        {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
    ]  # fmt: skip
    assert sent == [{"role": "user", "content": written}]


def test_an_image_named_by_its_url_alone_is_taken() -> None:
    part = {"type": "image_url", "image_url": URL}
    sent = sent_of([{"role": "user", "content": [part]}], images=True)
    assert sent[0]["content"] == [{"type": "image_url", "image_url": {"url": URL}}]


def test_of_each_message_what_openais_api_has_there_goes_on() -> None:
    messages: list[Any] = [
        {**ASKED, "name": "ram", "tool_calls": [CALL], "prefix": True, "documents": ["x"]},
        {
            "role": "assistant", "content": "I look it up.", "tool_calls": [{**CALL, "index": 0, "more": 1}],
            "reasoning_content": "hm", "audio": None, "refusal": None, "annotations": [], "mask": 1,
        },
        {"role": "tool", "tool_call_id": "c1", "content": "none", "name": "look_up", "status": "success"},
        {"role": "assistant", "content": "Drink.", "tool_calls": [], "function_call": None},
        {"role": "user", "content": "Thanks."},
    ]  # fmt: skip
    assert sent_of(messages) == [
        {**ASKED, "name": "ram"},
        {"role": "assistant", "content": "I look it up.", "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "content": "none", "tool_call_id": "c1", "name": "look_up"},
        {"role": "assistant", "content": "Drink."},
        {"role": "user", "content": "Thanks."},
    ]


@pytest.mark.parametrize("silent", [{"content": None}, {}, {"content": None, "tool_calls": []}])
def test_an_assistants_turn_without_a_word_is_an_empty_text_to_the_template(silent: dict[str, Any]) -> None:
    assert sent_of([ASKED, {"role": "assistant", **silent}, {"role": "tool", "content": "x", "tool_call_id": "c1"}])[
        1
    ] == {"role": "assistant", "content": ""}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert sent_of([ASKED, called])[1] == called


def test_two_turns_of_the_assistant_are_one_to_the_engine() -> None:
    sent = sent_of([ASKED, {"role": "assistant", "content": "A."}, {"role": "assistant", "content": "B."}, ASKED])
    assert sent == [ASKED, {"role": "assistant", "content": "A.\n\nB."}, ASKED]


def test_what_the_model_refused_to_say_is_kept_as_its_words() -> None:
    part = {"type": "refusal", "refusal": "I can't say."}
    messages: list[Any] = [
        ASKED, {"role": "assistant", "content": None, "refusal": "I can't say."}, ASKED,
        {"role": "assistant", "content": [part]}, ASKED,
    ]  # fmt: skip
    sent = sent_of(messages)
    assert sent[1] == {"role": "assistant", "content": "I can't say."}
    assert sent[3] == {"role": "assistant", "content": [{"type": "text", "text": "I can't say."}]}


def test_a_system_rule_said_as_a_refusal_part_is_not_lost() -> None:
    rule = {"role": "system", "content": [{"type": "refusal", "refusal": "Never say yes."}]}
    sent = sent_of([rule, ASKED], system_prompt=RULES)
    assert sent[0] == {"role": "system", "content": f"{RULES}\n\nNever say yes."}


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "system", "content": {"text": "Never say yes."}}, "messages[1].content"),
        ({"role": "system", "content": 5}, "messages[1].content"),
        ({"role": "system"}, "messages[1].content"),
        ({"role": "system", "content": [{"type": "image_url", "image_url": URL}]}, "messages[1].content[0]"),
        ({"role": "developer", "content": ["Never say yes."]}, "messages[1].content[0]"),
        ({"role": "System", "content": "Never say yes."}, "messages[1].role"),
        ({"role": "", "content": "x"}, "messages[1].role"),
        ({"role": ["user"], "content": "x"}, "messages[1].role"),
        ({"content": "x"}, "messages[1].role"),
        ("x", "messages[1]"),
        ({"role": "user", "content": {"text": "x"}}, "messages[1].content"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": "x", "name": 7}, "messages[1].name"),
        ({"role": "user", "content": [{"type": ["text"], "text": "x"}]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "file"}]}, "messages[1].content[1]"),
        ({"role": "assistant", "content": "x", "tool_calls": 5}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [CALL, {**CALL, "type": "custom"}]}, "messages[1].tool_calls[1]"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}, "messages[1].tool_calls[0].id"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
            "messages[1].tool_calls[0].function",
        ),
        ({"role": "assistant", "function_call": "look_up"}, "messages[1].function_call"),
        ({"role": "tool", "content": "x", "tool_call_id": {}}, "messages[1].tool_call_id"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": None}]}, "messages[1].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL, "detail": 5}}]},
            "messages[1].content[0]",
        ),
    ],
)
def test_what_can_not_be_read_is_refused_by_its_name(message: Any, where: str) -> None:
    with pytest.raises(RequestError) as caught:
        sent_of([ASKED, message], images=True)
    assert (caught.value.status, caught.value.param) == (400, "messages")
    assert f"`{where}`" in caught.value.message
