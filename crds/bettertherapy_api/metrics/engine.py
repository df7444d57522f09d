"""Series of others that are read here: vLLM's, which the agent passes on, and what Prometheus says of its targets."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.metrics.series import Kind, Process, Reader, Series

_OWN: Final = ("model_name", "engine")


def _gauge(
    name: str, text: str, *labels: str, unit: str = "", read_by: tuple[Reader, ...] = (Reader.DASHBOARDS,)
) -> Series:
    return Series(
        name=f"vllm:{name}", kind=Kind.GAUGE, of=Process.ENGINE, help=text, labels=labels or _OWN, unit=unit,
        read_by=read_by,
    )  # fmt: skip


def _counter(name: str, text: str, *, read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"vllm:{name}_total", kind=Kind.COUNTER, of=Process.ENGINE, help=text, labels=_OWN,
        read_by=(*read_by, Reader.DASHBOARDS),
    )  # fmt: skip


RUNNING: Final = _gauge(
    "num_requests_running", "Sequences that the engine decodes now.",
    read_by=(Reader.AUTOSCALER, Reader.PILOT, Reader.DASHBOARDS),
)  # fmt: skip
WAITING: Final = _gauge(
    "num_requests_waiting", "Sequences that wait for a place.",
    read_by=(Reader.AUTOSCALER, Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
KV_CACHE: Final = _gauge(
    "kv_cache_usage_perc", "Share of the KV cache that is taken, 0 to 1.", unit="ratio",
    read_by=(Reader.AUTOSCALER, Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
LORA_REQUESTS: Final = _gauge(
    "lora_requests_info",
    "In labels: adapters that run and wait, and for how many there are slots. The value is when it was so.",
    "running_lora_adapters", "waiting_lora_adapters", "max_lora", read_by=(Reader.TOP,),
)  # fmt: skip
GENERATED_TOKENS: Final = _counter("generation_tokens", "Tokens that the engine wrote.", read_by=(Reader.PILOT,))
PROMPT_TOKENS: Final = _counter("prompt_tokens", "Tokens that the engine read.")
UP: Final = Series(
    name="up", kind=Kind.GAUGE, of=Process.PROMETHEUS, help="1 while Prometheus can read the target.",
    read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
SERIES: Final = (RUNNING, WAITING, KV_CACHE, LORA_REQUESTS, GENERATED_TOKENS, PROMPT_TOKENS, UP)
