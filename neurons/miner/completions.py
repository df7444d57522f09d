"""`/v1/completions` and `/v1/embeddings`: texts without a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson

from neurons import engine_fields
from neurons.conversation import BETWEEN, Manner
from neurons.miner.asked import (
    SWALLOWED,
    EngineRequest,
    check_fields,
    first_asked,
    parse_object,
    take_identity,
    take_model,
    take_stream,
)
from neurons.miner.errors import bad_request
from neurons.miner.limits import Limits, check_amounts
from neurons.miner.tables import TwinRoute, VersionRoute
from neurons.receipts.digests import question_of_prompt

_COMPLETION: Final = engine_fields.COMPLETION | SWALLOWED | {"best_of", "echo"}
_EMBEDDING: Final = engine_fields.EMBEDDING | SWALLOWED
_OBSTACLES: Final = ("seed", "logprobs", "response_format", "structured_outputs")
_MOST_EMBEDDED: Final = 2048
"""As at OpenAI's."""


@dataclass(slots=True, kw_only=True)
class CompletionRequest(EngineRequest):
    """A text to go on with. The twin's system prompt stands before it: a doctor's rules hold on every route."""

    PATH: ClassVar[str] = "/v1/completions"
    DEFAULT_TOKENS: ClassVar[int | None] = 16

    prompts: list[str]

    def to_bytes(self, twin: TwinRoute, version: VersionRoute, manner: Manner) -> bytes:
        """Return the body for the engine."""
        return self._body(twin, version, {})

    def continued(self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, said: str, tokens: int) -> bytes:
        """Return the body that goes on after what was said."""
        return self._body(twin, version, self.counted(tokens), said)

    def obstacle(self) -> str | None:
        """Return the field that keeps its stream from going on at another engine."""
        if len(self.prompts) > 1:
            return "`prompt` holds several texts"
        if self.document.get("n", 1) != 1:
            return "`n` is more than 1"
        name = first_asked(self.document, _OBSTACLES)
        return f"it has `{name}`" if name is not None else None

    def question(self) -> str | None:
        """Return the digest of the prompt as the client sent it."""
        return question_of_prompt(self.document["prompt"])

    def _body(self, twin: TwinRoute, version: VersionRoute, more: dict[str, Any], said: str = "") -> bytes:
        rules = twin.system_message["content"] + BETWEEN if twin.system_message is not None else ""
        prompts = [rules + prompt + said for prompt in self.prompts]
        prompt = prompts[0] if isinstance(self.document["prompt"], str) else prompts
        return orjson.dumps({**self.document, "model": version.served_name, "prompt": prompt, **more})


def parse_completion(body: bytes, *, limits: Limits | None = None) -> CompletionRequest:
    """Check a body; raises RequestError (400)."""
    document = parse_object(body)
    check_fields(document, _COMPLETION)
    twin = take_model(document)
    prompt = document.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        # Token ids would go past the doctor's rules.
        raise bad_request("`prompt` must be a text or a list of texts", param="prompt")
    check_amounts(document, limits or Limits(), prompts=len(prompts))
    if document.pop("echo", False) is not False:
        raise bad_request("`echo` is not taken: put the prompt before the answer yourself", param="echo")
    answers = document.get("n", 1)
    if document.pop("best_of", answers) != answers:
        raise bad_request("`best_of` is not taken: ask for `n` answers and choose", param="best_of")
    stream = take_stream(document)
    identity = take_identity(document)
    return CompletionRequest(
        twin=twin,
        stream=stream,
        document=document,
        identity=identity,
        # The whole of it: where a longer prompt goes on with a shorter one can't be told from two that begin alike.
        beginning=orjson.dumps(prompts),
        prompts=prompts,
    )


@dataclass(slots=True, kw_only=True)
class EmbeddingRequest(EngineRequest):
    """Texts to embed, by engines that can."""

    PATH: ClassVar[str] = "/v1/embeddings"

    def to_bytes(self, twin: TwinRoute, version: VersionRoute, manner: Manner) -> bytes:
        """Return the body for the engine."""
        return orjson.dumps({**self.document, "model": version.served_name})

    def continued(self, twin: TwinRoute, version: VersionRoute, manner: Manner, *, said: str, tokens: int) -> bytes:
        """An embedding is no stream."""
        raise NotImplementedError


def parse_embedding(body: bytes) -> EmbeddingRequest:
    """Check a body; raises RequestError (400)."""
    document = parse_object(body)
    check_fields(document, _EMBEDDING)
    twin = take_model(document)
    given = document.get("input")
    texts = given if isinstance(given, list) else [given]
    if any(isinstance(text, int | list) for text in texts):
        raise bad_request(
            "`input` holds token ids, and they are another model's: send texts. LangChain's OpenAIEmbeddings does with "
            "check_embedding_ctx_length=False",
            param="input",
        )
    if not given or not all(isinstance(text, str) for text in texts):
        raise bad_request("`input` must be a text or a list of texts", param="input")
    if len(texts) > _MOST_EMBEDDED:
        raise bad_request(f"`input` may hold {_MOST_EMBEDDED} texts at most", param="input")
    identity = take_identity(document)
    return EmbeddingRequest(twin=twin, stream=False, document=document, identity=identity)
