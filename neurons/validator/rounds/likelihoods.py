"""Log-probabilities from a vLLM of the validator's own: the same answer, under the announced adapter and without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp

from bettertherapy_api.names import served_name
from neurons.validator.rounds.weights_check import Measured

MAX_BYTES: Final = 8 << 20


class EngineLikelihoods:
    """Asks an OpenAI-compatible engine that has the base model and the twins' adapters, each under its served name."""

    def __init__(
        self,
        url: str,
        *,
        base: str,
        session: aiohttp.ClientSession,
        render: Callable[[Sequence[Any]], str],
        seconds: float = 60.0,
    ) -> None:
        """`base`: the base model's name there; `render` writes a conversation as the model reads it."""
        self._url, self._base, self._session, self._render = url.rstrip("/"), base, session, render
        self._seconds = seconds

    async def measure(self, *, twin: str, adapter: str, messages: Sequence[Any], answer: str) -> Measured | None:
        """See `Likelihoods`."""
        asked = self._render(messages)
        try:
            async with asyncio.timeout(self._seconds):
                announced = await self._logprobs(served_name(twin, adapter), asked, answer)
                base = await self._logprobs(self._base, asked, answer)
        except (TimeoutError, aiohttp.ClientError, OSError, LookupError, TypeError, ValueError):
            return None
        if not announced or len(announced) != len(base):
            return None
        return Measured(announced=announced, base=base)

    async def _logprobs(self, model: str, asked: str, answer: str) -> list[float]:
        """Return ln p of the answer's tokens, each after those before it. Raises what a failed request raises."""
        prompt = await self._tokens(model, asked + answer)
        begin = len(await self._tokens(model, asked))
        body = {
            "model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 0, "echo": True,
            "prompt_logprobs": 0,
        }  # fmt: skip
        document = await self._post("/v1/completions", body)
        values = document["choices"][0]["logprobs"]["token_logprobs"]
        return [float(value) for value in values[max(1, begin) : len(prompt)]]

    async def _tokens(self, model: str, text: str) -> list[int]:
        document = await self._post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
        return [int(each) for each in document["tokens"]]

    async def _post(self, path: str, body: object) -> Any:
        async with self._session.post(self._url + path, json=body, allow_redirects=False) as response:
            response.raise_for_status()
            if (response.content_length or 0) > MAX_BYTES:
                raise ValueError("the engine answers more than is read")
            return await response.json()
