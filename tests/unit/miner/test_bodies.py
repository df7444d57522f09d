"""Bodies as clients send them, odd ones too: taken or refused in words, by the parsers themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from functools import partial, reduce
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
from neurons.miner.limits import Limits
from neurons.miner.responses import ResponsesRequest, parse_responses
from neurons.miner.sessions import session_of
from tests.unit.loop_holds import LONGEST_SECONDS, measured_holds
from tests.unit.miner.engine_bodies import VERSION, body_of, twin_of

ASK = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"}
Parser = Callable[[bytes], EngineRequest]
SEEING = Limits(images=True)
PARSERS: tuple[Parser, ...] = (
    parse_chat, partial(parse_chat, limits=SEEING), parse_responses, partial(parse_responses, limits=SEEING),
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


@pytest.mark.parametrize(
    "piece", [rb"\"", rb"\n", b'"', b"\\", b"[", b"{", b'"[', b"[],"], ids=lambda piece: piece.decode()
)
def test_a_body_that_is_no_json_is_told_so_in_time_that_grows_with_its_length_alone(piece: bytes) -> None:
    """Whoever may ask could stop a miner or a gateway with one body else: it is read on the event loop."""
    began = time.thread_time()
    with pytest.raises(RequestError):
        parse_chat(b'{"model":"' + piece * (64 * 1024 // len(piece)))
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 30_000,
        b'{"a":"' + b"\\" * 60_001,
        b'{"model":"indra","tools":[' + b"[[]]," * 60_000 + b"1]}",
        b'{"model":"indra","tools":' + b"[" * 190 + b"[]," * 60_000 + b"1" + b"]" * 190 + b"}",
        b"[" * 300_000,
    ],
    ids=["quotes in a text without an end", "backslashes", "wide", "deep and wide", "brackets"],
)
def test_no_body_keeps_a_miner_from_others_answers_while_it_is_read(body: bytes) -> None:
    for parse in PARSERS:
        with contextlib.suppress(RequestError), measured_holds() as holds:
            asyncio.run(read_in_a_loop(parse, body))
        assert holds.seconds < LONGEST_SECONDS, (parse, holds)


async def read_in_a_loop(parse: Parser, body: bytes) -> None:
    parse(body)


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


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs", "seed"])
def test_a_zero_asks_for_something(name: str) -> None:
    assert chat(**{name: 0}).obstacle() == f"it has `{name}`"


@pytest.mark.parametrize("name", ["logprobs", "seed"])
def test_a_zero_asks_for_something_of_a_completion_too(name: str) -> None:
    assert completion(**{name: 0}).obstacle() == f"it has `{name}`"


def test_an_answer_after_an_assistants_turn_does_not_go_on_elsewhere() -> None:
    """What was said would be a second turn of the assistant's, which templates refuse or lay otherwise."""
    talk = [{"role": "user", "content": "A cough."}, {"role": "assistant", "content": "Since when?"}]
    assert chat(messages=talk).obstacle() == "its last message is the assistant's"
    assert chat(messages=talk[:1]).obstacle() is None


def test_what_asks_for_nothing_is_no_obstacle() -> None:
    assert chat(logprobs=False, tools=[], echo=False, top_logprobs=0, seed=None).obstacle() is None
    assert completion(logprobs=None, seed=None).obstacle() is None


@pytest.mark.parametrize(
    ("ask", "fields", "param"),
    [
        (chat, {"n": 17}, "n"),
        (chat, {"n": 16_384.0}, "n"),
        (chat, {"n": "16384"}, "n"),  # engines read it as a number
        (chat, {"n": True}, "n"),
        (completion, {"n": 17, "best_of": 17}, "n"),
        (completion, {"prompt": ["x"] * 17}, "prompt"),
        (completion, {"prompt": ["x"] * 2, "n": 9}, "prompt"),
        (chat, {"stop": ["a"] * 65}, "stop"),
        (completion, {"stop": ["a"] * 65}, "stop"),
        (response, {"stop": ["a"] * 65}, "stop"),
        (chat, {"bad_words": ["a"] * 65}, "bad_words"),
        (embedding, {"input": ["x"] * 2049}, "input"),
    ],
)
def test_one_request_does_not_ask_for_what_would_keep_an_engine_from_all_others(
    ask: Callable[..., EngineRequest], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        ask(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_as_much_as_clients_send_is_taken() -> None:
    assert chat(n=16, stop=["a", "b", "c", "d"]).document["n"] == 16
    assert chat(n=2.0).document["n"] == 2
    assert len(completion(prompt=["x"] * 8, n=2).prompts) == 8
    embedding(input=["x"] * 2048)


def test_a_length_that_is_written_as_a_fraction_counts() -> None:
    asked = chat(max_tokens=8.0)
    assert asked.counted(3) == {"max_tokens": 5}
    assert [asked.is_at_its_length(tokens) for tokens in (7, 8)] == [False, True]
    assert chat(max_tokens=1e300).continued(twin_of(), VERSION, Manner(), said="It", tokens=1)


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
# What every route takes, with a value for every field; the fuzzing puts anything in any place.
FUNCTION = {"name": "look_up", "description": "x", "parameters": {"type": "object"}, "strict": False}
IMAGE = "data:image/png;base64,AAAA"
SAMPLING: dict[str, Any] = {
    "model": "indra", "stream": True, "temperature": 0.5, "top_p": 1, "seed": 1, "stop": ["x"], "top_k": 1, "user": "u",
    "safety_identifier": "s", "prompt_cache_key": "c", "metadata": {"a": "b"}, "store": False,
}  # fmt: skip
CHAT: dict[str, Any] = SAMPLING | {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}], "name": "x"},
        {"role": "user", "content": [
            {"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}
        ]},
        {"role": "assistant", "content": None, "refusal": None, "function_call": {"name": "f", "arguments": "{}"},
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "none"},
    ],
    "stream_options": {"include_usage": True}, "max_tokens": 4, "min_tokens": 1, "n": 1, "logprobs": True,
    "top_logprobs": 1, "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}, "modalities": ["text"],
    "chat_template_kwargs": {"enable_thinking": False}, "structured_outputs": {"choice": ["a"]},
    "add_generation_prompt": True,
}  # fmt: skip
RESPONSE: dict[str, Any] = SAMPLING | {
    "instructions": "Be brief.", "max_output_tokens": 4, "tools": [{"type": "function", **FUNCTION}],
    "input": [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": IMAGE, "detail": "low"}
        ]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "x"}, {"type": "refusal", "refusal": "x"}]},
        {"type": "reasoning", "summary": []}, CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "none"}]},
    ],
    "tool_choice": {"type": "function", "name": "look_up"}, "include": ["message.output_text.logprobs"],
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}, "reasoning": {"effort": "low"},
    "truncation": "auto", "stream_options": {"include_obfuscation": False}, "background": False, "top_logprobs": 1,
    "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip
COMPLETION: dict[str, Any] = SAMPLING | {
    "prompt": ["a", "b"], "max_tokens": 4, "n": 1, "best_of": 1, "echo": False, "logprobs": 1,
    "response_format": {"type": "text"}, "stream_options": {"include_usage": True},
}  # fmt: skip
EMBEDDING: dict[str, Any] = {"model": "indra", "input": ["a", "b"], "encoding_format": "float", "user": "u"}
ROUTES: tuple[tuple[Parser, dict[str, Any]], ...] = (
    (partial(parse_chat, limits=SEEING), CHAT), (partial(parse_responses, limits=SEEING), RESPONSE),
    (parse_completion, COMPLETION), (parse_embedding, EMBEDDING),
)  # fmt: skip
Path = tuple[str | int, ...]


def places(value: Any, at: Path = ()) -> list[Path]:
    """Every place in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for name, one in inner for place in places(one, (*at, name)))]


def changed(value: Any, at: Path, new: Any) -> Any:
    """The document with another value at a place."""
    if not at:
        return new
    if isinstance(value, dict) and at[0] in value:
        return value | {at[0]: changed(value[at[0]], at[1:], new)}
    if isinstance(value, list) and at[0] in range(len(value)):
        return [changed(one, at[1:], new) if number == at[0] else one for number, one in enumerate(value)]
    return value


def bodies(document: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The document, with anything in up to three places."""
    changes = st.lists(st.tuples(st.sampled_from(places(document)), ANY), max_size=3)
    return changes.map(lambda made: reduce(lambda body, change: changed(body, *change), made, document))


STRICT = Manner(system=SystemPlace.FIRST_USER_TURN, user_first=True)


def read(parse: Parser, data: bytes) -> EngineRequest | RequestError:
    try:
        return parse(data)
    except RequestError as error:
        return error


@pytest.mark.parametrize(("parse", "document"), ROUTES, ids=["chat", "response", "completion", "embedding"])
def test_a_body_with_every_field_is_taken(parse: Parser, document: dict[str, Any]) -> None:
    assert body_of(parse(json.dumps(document).encode()))["model"] == VERSION.served_name


@pytest.mark.parametrize(("parse", "document"), ROUTES, ids=["chat", "response", "completion", "embedding"])
def test_any_json_is_taken_or_refused_in_words(parse: Parser, document: dict[str, Any]) -> None:
    """No body makes a parser fail, nor what is done with what it took."""

    @settings(max_examples=300, deadline=None)
    @given(bodies(document))
    def check(body: Any) -> None:
        asked = read(parse, json.dumps(body).encode())
        if isinstance(asked, RequestError):
            assert (asked.status, bool(asked.to_bytes())) == (400, True)
            return
        session(asked)
        asked.wants_usage()
        asked.is_at_its_length(3)
        assert orjson.dumps(getattr(asked, "echo", None))
        for manner in (Manner(), STRICT):
            sent = body_of(asked, system_prompt="Rules.", manner=manner)
            assert sent["model"] == VERSION.served_name
            if asked.obstacle() is None:
                assert asked.continued(twin_of("Rules."), VERSION, manner, said="It", tokens=1)

    check()


@pytest.mark.parametrize("value", [5, True, "x", [5], {"a": [1]}, [[]], [{"type": ["text"]}]])
@pytest.mark.parametrize(("parse", "document"), ROUTES, ids=["chat", "response", "completion", "embedding"])
def test_a_value_of_another_kind_in_any_place_is_taken_or_refused(
    parse: Parser, document: dict[str, Any], value: Any
) -> None:
    for place in places(document):
        asked = read(parse, json.dumps(changed(document, place, value)).encode())
        assert body_of(asked) if isinstance(asked, EngineRequest) else asked.status == 400, place


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_in_words(data: bytes) -> None:
    for parse in PARSERS:
        with pytest.raises(RequestError):
            parse(b'{"model":"' + data)
