"""Bodies as clients send them, odd ones too: taken or refused in words, by the parsers themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.conversation import Manner, SystemPlace
from neurons.miner.asked import EngineRequest
from neurons.miner.chat import ChatRequest, parse_chat
from neurons.miner.completions import CompletionRequest, parse_completion, parse_embedding
from neurons.miner.errors import RequestError
from neurons.miner.responses import ResponsesRequest, parse_responses
from neurons.miner.sessions import session_of
from tests.unit.miner.engine_bodies import VERSION, body_of, twin_of

ASK = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"}
Parser = Callable[[bytes], EngineRequest]
PARSERS: tuple[Parser, ...] = (
    parse_chat, partial(parse_chat, images=True), parse_responses, partial(parse_responses, images=True),
    parse_completion, parse_embedding,
)  # fmt: skip
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "none"}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def chat(**fields: Any) -> ChatRequest:
    return parse_chat(json.dumps({"model": "indra", "messages": [ASK]} | fields).encode())


def completion(**fields: Any) -> CompletionRequest:
    return parse_completion(json.dumps({"model": "indra", "prompt": "x"} | fields).encode())


def response(**fields: Any) -> ResponsesRequest:
    return parse_responses(json.dumps({"model": "indra", "input": "Hi"} | fields).encode())


def embedding(**fields: Any) -> Any:
    return parse_embedding(json.dumps({"model": "indra"} | fields).encode())


# --- what a body is


def test_a_byte_order_mark_is_passed_over() -> None:
    body = b'\xef\xbb\xbf{"model":"indra","messages":[{"role":"user","content":"x"}]}'
    assert parse_chat(body).turns == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (rb"half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        (rb"\ude00 half", "\N{REPLACEMENT CHARACTER} half"),
        (rb"\ud83d\ud83d\ude00", "\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}"),
        (rb"\\ud83d \ud83dx", "\\ud83d \N{REPLACEMENT CHARACTER}x"),
        (rb"\"\ud83d\"", '"\N{REPLACEMENT CHARACTER}"'),
    ],
)
def test_half_an_emoji_that_a_client_cut_is_a_replacement_character(said: bytes, read: str) -> None:
    body = b'{"model":"indra","messages":[{"role":"user","content":"' + said + b'"}]}'
    assert parse_chat(body).turns == [{"role": "user", "content": read}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"model":"indra"}'.encode("utf-16"), "UTF-16"),
        ('{"model":"indra"}'.encode("utf-32-le"), "UTF-16 or UTF-32"),
        (b'{"model":"\xff"}', "not valid UTF-8 (at byte 10)"),
        (b'{"model":"\xed\xa0\xbd"}', "not valid UTF-8"),
        (b"[" * 5000, "nested too deep"),
        (b'{"model": 1e999}', "infinity"),
        (b'{"model": indra}', "(line 1, column 11)"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(body: bytes, words: str) -> None:
    for parse in PARSERS:
        with pytest.raises(RequestError) as caught:
            parse(body)
        assert caught.value.status == 400
        assert words in caught.value.message


@pytest.mark.parametrize("depth", [201, 300, 900])
def test_what_is_nested_too_deep_is_named(depth: int) -> None:
    deep = nested(depth)
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    flat = {"type": "function", "name": "f", "parameters": deep}
    for parse, fields, name in (
        (chat, {"tools": [tool]}, "tools"), (chat, {"metadata": deep}, "metadata"),
        (response, {"tools": [flat]}, "tools"), (response, {"input": [deep]}, "input"),
        (completion, {"structured_outputs": deep}, "structured_outputs"),
    ):  # fmt: skip
        with pytest.raises(RequestError) as caught:
            parse(**fields)
        assert (caught.value.status, caught.value.param) == (400, name)
        assert "nested" in caught.value.message


def test_what_is_nested_as_deep_as_allowed_is_written() -> None:
    flat = {"type": "function", "name": "f", "parameters": nested(198)}
    asked = response(tools=[flat])
    assert body_of(asked)["tools"][0]["function"]["parameters"] == nested(198)
    assert orjson.dumps([{"response": {"output": [], **asked.echo}}])


# --- what is wrong is named


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": 5}, "tools"),
        ({"tools": True}, "tools"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": ["f"]}, "tools"),
        ({"include": 5}, "include"),
        ({"include": "message.output_text.logprobs"}, "include"),
        ({"text": 5}, "text"),
        ({"text": {"format": "json"}}, "text"),
        ({"reasoning": "high"}, "reasoning"),
        ({"tool_choice": 5, "tools": [{"type": "function", "name": "f"}]}, "tool_choice"),
        ({"instructions": ["x"]}, "instructions"),
        ({"input": 5}, "input"),
        ({"input": ["x"]}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input"),
        ({"input": [{"role": "System", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": {"text": "x"}}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]}, "input"),
        ({"input": [ASK, {**CALL, "name": 5}]}, "input"),
        ({"input": [ASK, {**CALL, "arguments": {}}]}, "input"),
        ({"input": [ASK, CALL, {**OUTPUT, "call_id": None}]}, "input"),
        ({"input": [ASK, CALL, {**OUTPUT, "output": {"a": 1}}]}, "input"),
        ({"user": 7}, "user"),
    ],
)
def test_a_mistake_in_a_response_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        response(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"`{param}" in caught.value.message


@pytest.mark.parametrize("field", ["user", "safety_identifier", "prompt_cache_key"])
@pytest.mark.parametrize("value", [7, ["x"], True])
def test_a_name_of_the_conversation_that_is_no_text_is_refused(field: str, value: Any) -> None:
    for parse in (chat, response, completion):
        with pytest.raises(RequestError) as caught:
            parse(**{field: value})
        assert (caught.value.status, caught.value.param) == (400, field)


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2]], ["a", [1]], 5])
def test_token_ids_to_embed_are_refused_with_what_to_set(tokens: Any) -> None:
    with pytest.raises(RequestError, match="check_embedding_ctx_length=False") as caught:
        embedding(input=tokens)
    assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize("given", [None, "", [], [None], ["a", {}]])
def test_what_is_no_text_to_embed_is_refused(given: Any) -> None:
    with pytest.raises(RequestError, match="must be a text or a list of texts"):
        embedding(input=given)


# --- nulls


def test_nulls_within_say_as_little_as_nulls_without() -> None:
    switched = chat(chat_template_kwargs={"enable_thinking": None, "a": True})
    assert body_of(switched)["chat_template_kwargs"] == {"a": True}
    item = {"type": None, "id": None, "status": None, "role": "user", "content": "Hi"}
    asked = response(input=[item], text={"format": None, "verbosity": None}, reasoning={"effort": None})
    assert asked.turns == [ASK]
    assert not {"response_format", "reasoning_effort"} & asked.document.keys()


# --- a text and a call in one answer


def test_what_was_said_and_called_in_one_answer_is_one_message() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look it up."}]}
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    second = {**CALL, "call_id": "c2"}
    asked = response(input=[ASK, said, {"type": "reasoning", "summary": []}, CALL, second, OUTPUT])
    assert asked.turns == [
        ASK,
        {"role": "assistant", "content": "I look it up.", "tool_calls": [call, {**call, "id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "none"},
    ]
    assert response(input=[ASK, CALL]).turns[1] == {"role": "assistant", "content": None, "tool_calls": [call]}


# --- what keeps a stream from going on elsewhere


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs", "seed", "truncate_prompt_tokens"])
def test_a_zero_asks_for_something(name: str) -> None:
    assert chat(**{name: 0}).obstacle() == f"it has `{name}`"


@pytest.mark.parametrize("name", ["logprobs", "seed"])
def test_a_zero_asks_for_something_of_a_completion_too(name: str) -> None:
    assert completion(**{name: 0}).obstacle() == f"it has `{name}`"


def test_what_asks_for_nothing_is_no_obstacle() -> None:
    assert chat(logprobs=False, tools=[], echo=False, top_logprobs=0, seed=None).obstacle() is None
    assert completion(logprobs=None, seed=None).obstacle() is None


# --- which conversation it is


def session(asked: EngineRequest, client: str = "clinic", header: str | None = None) -> bytes:
    return session_of(asked, client=client, header=header)


def test_a_text_and_the_same_text_in_a_part_are_one_conversation() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert session(chat()) == session(chat(messages=parts)) == session(response())
    assert session(chat()) != session(chat(messages=[{"role": "user", "content": "Ho"}]))


@pytest.mark.parametrize("length", [64, 1024, 5000])
def test_names_that_begin_alike_are_not_one(length: int) -> None:
    one, other = "x" * length + "a", "x" * length + "b"
    assert session(chat(), client=one) != session(chat(), client=other)
    assert session(chat(user=one)) != session(chat(user=other))
    assert session(chat(), header=one) != session(chat(), header=other)


def test_texts_to_complete_that_begin_alike_are_not_one_conversation() -> None:
    examples = "Example. " * 80
    assert session(completion(prompt=examples + "I cough.")) != session(completion(prompt=examples + "My knee hurts."))
    assert session(completion(prompt=["a", "b"])) != session(completion(prompt=["a", "c"]))
    assert session(completion(prompt="a", user="7")) == session(completion(prompt="ab", user="7"))


# --- any JSON

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4)
WORDS = st.sampled_from(
    ["user", "system", "assistant", "tool", "text", "refusal", "image_url", "input_text", "output_text", "input_image",
     "function", "function_call", "function_call_output", "message", "reasoning", "json_schema", "data:image/png,", "x"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["type", "role", "content", "text", "refusal", "image_url", "url", "detail", "name", "function", "arguments",
     "tool_calls", "tool_call_id", "function_call", "call_id", "output", "id", "parameters", "format", "effort",
     "include_usage", "enable_thinking", "schema"]
)  # fmt: skip
ANY = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["messages", "input", "instructions", "prompt", "tools", "tool_choice", "include", "text", "reasoning", "metadata",
     "stream", "stream_options", "logprobs", "top_logprobs", "prompt_logprobs", "n", "best_of", "echo", "seed", "stop",
     "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "response_format", "user",
     "safety_identifier", "prompt_cache_key", "chat_template_kwargs", "modalities", "background", "truncation",
     "functions", "function_call", "store", "add_generation_prompt", "structured_outputs"]
)  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": WORDS, "content": ANY}, optional={"type": WORDS | ANY, "tool_calls": ANY, "name": ANY}
    ),
    max_size=3,
)  # fmt: skip
BODIES = st.builds(
    lambda some, base: base | some,
    st.dictionaries(FIELDS, ANY, max_size=3),
    st.fixed_dictionaries(
        {"model": st.just("indra")}, optional={"messages": MESSAGES, "input": MESSAGES | ANY, "prompt": ANY}
    ),
)  # fmt: skip
STRICT = Manner(system=SystemPlace.FIRST_USER_TURN, alternate=True, user_first=True)


def read(parse: Parser, data: bytes) -> EngineRequest | RequestError:
    try:
        return parse(data)
    except RequestError as error:
        return error


@settings(max_examples=400, deadline=None)
@given(BODIES | ANY)
def test_any_json_is_taken_or_refused_in_words(body: Any) -> None:
    """No body makes a parser fail, nor what is done with what it took."""
    data = json.dumps(body).encode()
    for parse in PARSERS:
        asked = read(parse, data)
        if isinstance(asked, RequestError):
            assert (asked.status, bool(asked.to_bytes())) == (400, True)
            continue
        session(asked)
        asked.wants_usage()
        asked.is_at_its_length(3)
        for manner in (Manner(), STRICT):
            sent = body_of(asked, system_prompt="Rules.", manner=manner)
            assert sent["model"] == VERSION.served_name
            if asked.obstacle() is None:
                assert asked.continued(twin_of("Rules."), VERSION, manner, said="It", tokens=1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_in_words(data: bytes) -> None:
    for parse in PARSERS:
        with pytest.raises(RequestError):
            parse(b'{"model":"' + data)
