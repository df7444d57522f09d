"""What one request may ask of an engine that others wait for, and which parts of messages pass: refused by its name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from neurons.miner import settings
from neurons.miner.asked import EngineRequest
from neurons.miner.chat import parse_chat
from neurons.miner.completions import parse_completion
from neurons.miner.errors import RequestError
from neurons.miner.limits import Limits
from neurons.miner.responses import parse_responses
from neurons.validator.gateway.request import parse as parse_at_gateway

ASK = {"role": "user", "content": "Hi"}
BACKTRACKING = "(a{1,200}){1,200}"
Ask = Callable[..., EngineRequest]


def chat(limits: Limits | None = None, **fields: Any) -> EngineRequest:
    return parse_chat(json.dumps({"model": "indra", "messages": [ASK]} | fields).encode(), **_given(limits))


def completion(limits: Limits | None = None, **fields: Any) -> EngineRequest:
    return parse_completion(json.dumps({"model": "indra", "prompt": "x"} | fields).encode(), **_given(limits))


def response(limits: Limits | None = None, **fields: Any) -> EngineRequest:
    return parse_responses(json.dumps({"model": "indra", "input": "Hi"} | fields).encode(), **_given(limits))


def _given(limits: Limits | None) -> dict[str, Any]:
    return {} if limits is None else {"limits": limits}


def schema(**more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", **more}}}


def in_format(given: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": given}}}


def in_tool(given: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": given}}]}


TOO_MUCH: list[tuple[Ask, dict[str, Any], str]] = [
    (chat, {"messages": [ASK] * 1025}, "messages"),
    (chat, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 1025}]}, "messages"),
    (response, {"input": [ASK] * 1025}, "input"),
    (response, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * 1025}]}, "input"),
    (chat, {"n": 17}, "n"),
    (completion, {"n": 17}, "n"),
    (chat, {"ignore_eos": True}, "ignore_eos"),
    (chat, {"ignore_eos": 1}, "ignore_eos"),
    (completion, {"ignore_eos": True}, "ignore_eos"),
    (chat, {"min_tokens": 100_000}, "min_tokens"),
    (chat, {"stop": ["a" * 257]}, "stop"),
    (chat, {"stop": "a" * 257}, "stop"),
    (completion, {"bad_words": ["a" * 257]}, "bad_words"),
    (chat, {"stop_token_ids": list(range(1025))}, "stop_token_ids"),
    (chat, {"allowed_token_ids": list(range(1025))}, "allowed_token_ids"),
    (chat, {"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    (chat, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (completion, {"logprobs": 21}, "logprobs"),
    (chat, {"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools"),
    (chat, {"chat_template_kwargs": {str(i): 1 for i in range(17)}}, "chat_template_kwargs"),
    (chat, {"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
    (completion, {"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
    (chat, {"structured_outputs": {"grammar": "root ::= root"}}, "structured_outputs"),
    (chat, {"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs"),
    (chat, {"structured_outputs": {"whitespace_pattern": "a*"}}, "structured_outputs"),
    (chat, {"structured_outputs": {"_backend": "outlines", "json": {}}}, "structured_outputs"),
    (chat, {"structured_outputs": {"choice": ["a"] * 257}}, "structured_outputs"),
    (chat, {"structured_outputs": {"json": json.dumps(schema())}}, "structured_outputs"),
    (chat, {"response_format": {"type": "structural_tag", "structures": []}}, "response_format"),
    (chat, {"response_format": {"type": "regex", "pattern": "a"}}, "response_format"),
    (response, {"text": {"format": {"type": "grammar"}}}, "text"),
    (chat, in_format(schema(maxLength=10**9)), "response_format"),
    (chat, in_format({"type": "array", "minItems": 5000}), "response_format"),
    (chat, in_format(schema(pattern=BACKTRACKING)), "response_format"),
    (chat, in_format(schema(pattern="a" * 257)), "response_format"),
    (chat, in_format(schema(pattern="(?:[{1}]{9}){1,200}x{2}{200}{200}")), "response_format"),
    (chat, in_format(schema(pattern=r"((\({60}){60}x){60}")), "response_format"),
    (chat, in_format(schema(pattern=r"[]a]{5000}")), "response_format"),
    (chat, in_format(schema(pattern=r"(a{64}){64}b")), "response_format"),
    (chat, in_format(schema(pattern=r"a{0}{99999999999999999999}")), "response_format"),
    (chat, in_format({"patternProperties": {BACKTRACKING: {}}}), "response_format"),
    (chat, in_format({"enum": [str(i) for i in range(5000)]}), "response_format"),
    (chat, in_tool(schema(maxLength=10**9)), "tools"),
    (response, {"tools": [{"type": "function", "name": "f", "parameters": schema(maxLength=10**9)}]}, "tools"),
    (chat, {"structured_outputs": {"json": schema(maxItems=10**9)}}, "structured_outputs"),
]


@pytest.mark.parametrize(("ask", "fields", "param"), TOO_MUCH)
def test_what_would_hold_up_everybodys_answers_is_refused_by_its_name(
    ask: Ask, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        ask(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert f"`{param}" in refused.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [ASK] * 1024},
        {"n": 16, "ignore_eos": False, "min_tokens": 16, "max_tokens": 100_000},
        {"logprobs": True, "top_logprobs": 20},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"structured_outputs": {"json": schema(pattern="^[a-z]{1,40}$", maxLength=40)}},
        {"response_format": {"type": "json_object"}},
        in_format(schema(pattern="^[A-Z]{2}[0-9]{6}$", maxLength=200)),
        in_format(schema(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")),
        in_format(schema(pattern=r"^\(?[0-9]{3}\)?[ -]?[0-9]{3}-[0-9]{4}( x[0-9]{1,5})?$")),
        in_format(schema(pattern=r"^([a-z0-9-]{1,63}[.]){1,5}[a-z]{2,63}$")),
        in_format({"type": "object", "properties": {"maxLength": {"type": "integer"}, "pattern": {"type": "string"}}}),
        in_tool(schema(maxLength=4096)),
    ],
)
def test_what_clients_ask_every_day_is_taken(fields: dict[str, Any]) -> None:
    chat(**fields)


ALLOWED = Limits(answers=128, messages=5000, patterns=True, ignore_eos=True, tokens=100)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 128},
        {"messages": [ASK] * 5000},
        {"ignore_eos": True, "min_tokens": 5000},
        {"structured_outputs": {"regex": "[0-9]{1,3}"}},
        {"structured_outputs": {"grammar": "root ::= [a-z]+"}},
        {"max_tokens": 100},
    ],
)
def test_what_a_pool_allows_is_taken(fields: dict[str, Any]) -> None:
    chat(ALLOWED, **fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 129}, "n"),
        ({"structured_outputs": {"regex": BACKTRACKING}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a{1000}"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a" * 257}}, "structured_outputs"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
    ],
)
def test_what_a_pool_allows_has_its_bounds_too(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        chat(ALLOWED, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_response_is_told_by_the_name_that_it_used() -> None:
    with pytest.raises(RequestError) as refused:
        response(ALLOWED, max_output_tokens=101)
    assert refused.value.param == "max_output_tokens"


PARTS: list[dict[str, Any]] = [
    {"type": "image_embeds", "image_embeds": "AAAA"},
    {"type": "audio_embeds", "audio_embeds": "AAAA"},
    {"type": "video_embeds", "video_embeds": "AAAA"},
    {"type": "prompt_embeds", "prompt_embeds": "AAAA"},
    {"type": "image_pil", "image_pil": "AAAA"},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}},
    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    {"type": "file", "file": {"file_data": "AAAA"}},
    {"image_url": "data:image/png;base64,AAAA"},
    {"type": "thinking", "thinking": "x"},
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: str(part.get("type")))
@pytest.mark.parametrize("limits", [Limits(), Limits(images=True)], ids=["text", "images"])
def test_no_part_passes_but_texts_and_the_images_that_a_pool_allows(part: dict[str, Any], limits: Limits) -> None:
    with pytest.raises(RequestError) as refused:
        chat(limits, messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])
    assert (refused.value.status, refused.value.param) == (400, "messages")


@pytest.mark.parametrize("part", [*PARTS, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}])
def test_a_validators_gateway_takes_texts_alone(part: dict[str, Any]) -> None:
    body = {"model": "indra", "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(RequestError) as refused:
        parse_at_gateway(json.dumps(body).encode())
    assert (refused.value.status, refused.value.param) == (400, "messages")


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"ignore_eos": True}, {"structured_outputs": {"regex": "a"}}, {"messages": [ASK] * 1025}]
)
def test_a_validators_gateway_has_the_same_limits(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        parse_at_gateway(json.dumps({"model": "indra", "messages": [ASK], **fields}).encode())
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        in_tool({"enum": ["{1}" * 100] * 4000, "pattern": "{1," * 80}),
        in_format({"anyOf": [{"pattern": "a{1}" * 60}] * 1000}),
        {"messages": [{"role": "u"}] * 30_000},
    ],
    ids=["a tool", "a format", "tiny messages"],
)
def test_a_look_at_the_largest_body_takes_a_moment(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "indra", "messages": [ASK], **fields}).encode()
    began = time.thread_time()
    with pytest.raises(RequestError):
        partial(parse_chat)(body[:-1] + b', "ignore_eos": true}')
    assert time.thread_time() - began < 0.25


def test_a_pools_limits_are_read_from_the_command_line_and_the_environment() -> None:
    flags = ["--images", "--patterns", "--ignore-eos", "--max-messages=9", "--max-answers=2", "--max-tokens=7"]
    given = settings.parse(["--pool", "p", *flags], {}).limits
    assert given == Limits(images=True, patterns=True, ignore_eos=True, messages=9, answers=2, tokens=7)
    assert settings.parse(["--pool", "p"], {"PATTERNS": "1", "IGNORE_EOS": "true"}).limits == Limits(
        patterns=True, ignore_eos=True
    )
    assert settings.parse(["--pool", "p"], {}).limits == Limits()
