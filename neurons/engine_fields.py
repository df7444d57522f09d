"""Which fields of a request reach an engine, by its route: the miner writes no others, the agent passes no others on.

An allow-list. vLLM's requests have fields for other weights, other machines' caches and code, and each release adds
some; and embeddings in place of words (`prompt_embeds`) would show a model what nobody could read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# fmt: off
_SAMPLING: Final = frozenset(
    {
        "model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "n", "stop", "seed",
        "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "response_format",
        # vLLM's own
        "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids", "include_stop_str_in_output",
        "ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens", "bad_words",
        "allowed_token_ids", "structured_outputs",
    }
)
CHAT: Final = _SAMPLING | {
    "messages", "top_logprobs", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "functions",
    "function_call", "reasoning_effort",
    "add_generation_prompt", "continue_final_message", "include_reasoning", "chat_template_kwargs", "return_token_ids",
    "return_tokens_as_token_ids",
}
COMPLETION: Final = _SAMPLING | {"prompt", "return_tokens_as_token_ids"}
"""The latter is how an agent whose endpoint is another pool's agents takes its proofs."""
EMBEDDING: Final = frozenset({"model", "input", "encoding_format", "dimensions", "truncate_prompt_tokens"})
TOKENIZE: Final = frozenset(
    {"model", "messages", "prompt", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
     "add_special_tokens"}
)
# fmt: on
BY_PATH: Final[Mapping[str, frozenset[str]]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/embeddings": EMBEDDING,
    "/tokenize": TOKENIZE,
}
