"""What tenants may name: images, classes, places and engine flags within bounds that the platform's team sets.

The chart renders the same bounds into admission policies, which say no before anything is stored. Here they count once
more, since a policy can be absent, or younger than what is stored: what is out of bounds is not begun, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from bettertherapy_api.addresses import is_link_local
from bettertherapy_api.finetune_run import CandidateSpec, FineTuneRunSpec
from bettertherapy_api.miner_pool import MinerPoolSpec
from bettertherapy_api.validator import ValidatorSpec
from twin_operator.domain.objects import Pool, Run, Twin, Validator
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding
from twin_operator.settings import Images

ENGINE_FLAGS: Final = (
    "--async-scheduling", "--no-async-scheduling", "--block-size", "--calculate-kv-scales", "--chat-template",
    "--chat-template-content-format", "--cpu-offload-gb", "--disable-custom-all-reduce", "--disable-sliding-window",
    "--dtype", "--enable-auto-tool-choice", "--enable-chunked-prefill", "--no-enable-chunked-prefill",
    "--enable-expert-parallel", "--enable-prefix-caching", "--no-enable-prefix-caching", "--enforce-eager",
    "--no-enforce-eager", "--fully-sharded-loras", "--generation-config", "--gpu-memory-utilization",
    "--kv-cache-dtype", "--kv-cache-memory-bytes", "--limit-mm-per-prompt", "--long-prefill-token-threshold",
    "--lora-dtype", "--max-cpu-loras", "--max-logprobs", "--max-long-partial-prefills", "--max-num-batched-tokens",
    "--max-num-partial-prefills", "--max-num-seqs", "--max-seq-len-to-capture", "--model-impl",
    "--no-enable-log-requests", "--num-gpu-blocks-override", "--pipeline-parallel-size",
    "--prefix-caching-hash-algo", "--quantization", "--reasoning-parser", "--scheduling-policy", "--seed",
    "--stream-interval", "--swap-space", "--tensor-parallel-size", "--tokenizer-mode", "--tool-call-parser",
)  # fmt: skip
"""Those that set how fast and how exactly an engine computes. None opens a port, loads other weights or code, writes
what is asked anywhere, or names a file outside the engine's image but a chat template."""


class Bounds(BaseModel):
    """Lists of what may be named. A `*` at the end of an entry stands for any rest; an empty list allows nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    images: tuple[str, ...] = ()
    """Beside the operator's own."""
    host_paths: tuple[str, ...] = ()
    runtime_classes: tuple[str, ...] = ("nvidia",)
    priority_classes: tuple[str, ...] = ()
    stores: tuple[str, ...] = ("pvc://*", "s3://*", "gs://*", "az://*")
    """Where adapters, items and datasets may lie."""
    models: tuple[str, ...] = ("hf://*", "pvc://*", "s3://*", "gs://*", "az://*", "file:///*")
    claims: tuple[str, ...] = ()
    """Claims that a run may read its dataset from, beside that of its pool's store."""
    endpoints: tuple[str, ...] = ("http://*", "https://*")
    engine_flags: tuple[str, ...] = ENGINE_FLAGS


_CLAIM: Final = re.compile(r"pvc://([^/]+)")
_FLAG: Final = re.compile(r"--[A-Za-z][A-Za-z0-9_.-]*(=|$)")


def allows(patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether a list of bounds allows a name."""
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns)


def flag_of(argument: str) -> str | None:
    """Return the flag that an argument of an engine sets, as vLLM's documentation writes it; None for no flag.

    What comes behind a dot is a part of its value: `--limit-mm-per-prompt.image=1`.
    """
    if _FLAG.match(argument) is None:
        return None
    return re.split(r"[=.]", argument, maxsplit=1)[0].replace("_", "-")


def pool_out_of_bounds(pool: Pool, bounds: Bounds, images: Images) -> Finding | None:
    """Return the first thing that a pool's spec names and may not."""
    return _finding(_of_pool(pool.spec, bounds, _own(images)))


def run_out_of_bounds(
    run: Run, pool: Pool | None, bounds: Bounds, images: Images, *, validator: Validator | None = None
) -> Finding | None:
    """Return the first thing that a run's spec names and may not; `pool` is the one that it would run in.

    While there is none, nothing is said of its dataset: which claim it may read follows from the pool. `validator` is
    the one that a candidate names: what its gateway laid down may be examined, and nothing else that is called so.
    """
    return _finding(_of_run(run.spec, bounds, _own(images), pool=pool, validator=validator))


def adapter_out_of_bounds(twin: Twin, bounds: Bounds) -> Finding | None:
    """Return what is wrong with the place of the adapter that a twin's spec names: no engine is told to fetch it."""
    adapter = twin.spec.adapter
    return _finding(_places(bounds.stores, "stores", ("spec.adapter.uri", adapter.uri if adapter else None)))


def twin_out_of_bounds(twin: Twin, bounds: Bounds) -> Finding | None:
    """Return the first thing that a twin's spec names and may not: no trainer or examiner is told to read or ask it."""
    return adapter_out_of_bounds(twin, bounds) or _finding(_of_gate(twin, bounds))


def validator_out_of_bounds(validator: Validator, bounds: Bounds, images: Images) -> Finding | None:
    """Return the first thing that a validator's spec names and may not."""
    return _finding(_of_validator(validator.spec, bounds, _own(images)))


def _finding(refusals: Iterator[str]) -> Finding | None:
    first = next(refusals, None)
    return None if first is None else Finding(Reason.OUT_OF_BOUNDS, first)


def _own(images: Images) -> tuple[str, ...]:
    return images.neuron, images.engine_cpu, images.engine_gpu, images.trainer_cpu, images.trainer_gpu


def _of_pool(spec: MinerPoolSpec, bounds: Bounds, own: tuple[str, ...]) -> Iterator[str]:
    tune, cache = spec.fine_tune, spec.cache
    yield from _named(
        (*own, *bounds.images), "images", ("spec.engine.image", spec.engine.image),
        ("spec.miner.image", spec.miner.image), ("spec.fineTune.image", tune.image if tune else None),
    )  # fmt: skip
    yield from _named(bounds.host_paths, "hostPaths", ("spec.cache.hostPath", cache.host_path if cache else None))
    yield from _named(bounds.runtime_classes, "runtimeClasses", ("spec.runtimeClassName", spec.runtime_class_name))
    yield from _named(
        bounds.priority_classes, "priorityClasses",
        ("spec.engine.pod.priorityClassName", spec.engine.pod.priority_class_name if spec.engine.pod else None),
        ("spec.miner.pod.priorityClassName", spec.miner.pod.priority_class_name if spec.miner.pod else None),
        ("spec.fineTune.priorityClassName", tune.priority_class_name if tune else None),
    )  # fmt: skip
    yield from _places(bounds.models, "models", ("spec.baseModel.uri", spec.base_model.uri))
    items = tune.safety_set_ref.uri if tune and tune.safety_set_ref else None
    yield from _places(
        bounds.stores, "stores", ("spec.store.uri", spec.store.uri if spec.store else None),
        ("spec.fineTune.safetySetRef.uri", items),
    )  # fmt: skip
    yield from _endpoint(bounds, "spec.engine.endpoint", spec.engine.endpoint)
    mlflow = tune.tracking.mlflow if tune and tune.tracking else None
    yield from _endpoint(bounds, "spec.fineTune.tracking.mlflow.endpoint", mlflow.endpoint if mlflow else None)
    yield from _flags(bounds, spec.engine.args or [])


def _of_gate(twin: Twin, bounds: Bounds) -> Iterator[str]:
    gate = twin.spec.gate
    if gate is None:
        return
    items, judge = gate.eval_set_ref, gate.judge_ref
    yield from _places(bounds.stores, "stores", ("spec.gate.evalSetRef.uri", items.uri if items else None))
    yield from _endpoint(bounds, "spec.gate.judgeRef.endpoint", judge.endpoint if judge else None)


def _of_validator(spec: ValidatorSpec, bounds: Bounds, own: tuple[str, ...]) -> Iterator[str]:
    gateway, tasks, judge = spec.gateway, spec.fine_tune_tasks, spec.scoring.judge if spec.scoring else None
    yield from _named((*own, *bounds.images), "images", ("spec.gateway.image", gateway.image))
    priority = gateway.pod.priority_class_name if gateway.pod else None
    yield from _named(bounds.priority_classes, "priorityClasses", ("spec.gateway.pod.priorityClassName", priority))
    pages = gateway.pages.store.uri if gateway.pages and gateway.pages.store else None
    yield from _places(
        bounds.stores, "stores", ("spec.fineTuneTasks.store.uri", tasks.store.uri if tasks else None),
        ("spec.fineTuneTasks.offers.deliveries", tasks.offers.deliveries if tasks and tasks.offers else None),
        ("spec.gateway.pages.store.uri", pages),
    )  # fmt: skip
    yield from _endpoint(bounds, "spec.scoring.judge.endpoint", judge.endpoint if judge else None)


def _of_run(
    spec: FineTuneRunSpec, bounds: Bounds, own: tuple[str, ...], *, pool: Pool | None, validator: Validator | None
) -> Iterator[str]:
    yield from _named((*own, *bounds.images), "images", ("spec.image", spec.image))
    yield from _named(bounds.priority_classes, "priorityClasses", ("spec.priorityClassName", spec.priority_class_name))
    if (candidate := spec.candidate) is not None:
        yield from _delivered(candidate, validator)
        if candidate.held_out is not None and pool is not None:
            yield from _dataset("spec.candidate.heldOut.uri", candidate.held_out.uri, bounds, pool)
    if pool is not None:
        yield from _dataset("spec.dataset.uri", spec.dataset.uri, bounds, pool)


def _delivered(candidate: CandidateSpec, validator: Validator | None) -> Iterator[str]:
    """Whoever names another folder would have weights of his own examined as a miner's."""
    folder = validator.delivered(candidate.task, candidate.digest) if validator is not None else None
    if folder is None:
        yield (
            f"spec.candidate is said to be of Validator {candidate.validator}, which takes no deliveries here "
            "(its spec.fineTuneTasks.offers.deliveries)"
        )
    elif candidate.delivered != folder:
        yield (
            f"spec.candidate.delivered is {candidate.delivered}, and what is delivered to Validator "
            f"{candidate.validator} for that task lies at {folder}"
        )


def _dataset(field: str, uri: str, bounds: Bounds, pool: Pool) -> Iterator[str]:
    if uri.startswith(("http://", "https://")):  # of a validator's task; its schema says what it may be
        if is_link_local(uri):
            yield f"{field} is a link-local address, where clouds hand out keys"
        return
    yield from _places(bounds.stores, "stores", (field, uri))
    claim, own_claim = _CLAIM.match(uri), _CLAIM.match(pool.store_uri or "")
    if claim is None or (own_claim is not None and claim[1] == own_claim[1]) or allows(bounds.claims, claim[1]):
        return
    yield (
        f"{field} is on claim {claim[1]}, and a run reads from the claim of its pool's store alone"
        f"{f' ({own_claim[1]})' if own_claim else ''}: put the dataset there, {_ask('claims')}"
    )


def _named(allowed: tuple[str, ...], bound: str, *fields: tuple[str, str | None]) -> Iterator[str]:
    for field, value in fields:
        if value is not None and not allows(allowed, value):
            yield f"{field} is {value}, which tenants may not use here: {_choices(allowed)}, {_ask(bound)}"


def _places(allowed: tuple[str, ...], bound: str, *fields: tuple[str, str | None]) -> Iterator[str]:
    """As it stands and as it is once decoded: what lies beneath an allowed folder must not lead out of it."""
    for field, value in fields:
        if value is None:
            continue
        if not allows(allowed, value) or not allows(allowed, unquote(value)):
            yield f"{field} is {value}, a place that tenants may not use here: {_choices(allowed)}, {_ask(bound)}"
        elif re.search(r"(^|/)[.][.]?(/|$)", unquote(value)):
            yield f"{field} is {value}, which leads out of its folder: write the place without %2e"


def _endpoint(bounds: Bounds, field: str, endpoint: str | None) -> Iterator[str]:
    if endpoint is None:
        return
    if is_link_local(endpoint):
        yield f"{field} is a link-local address, where clouds hand out keys, or one written as a number: use a name"
    yield from _named(bounds.endpoints, "endpoints", (field, endpoint))


def _flags(bounds: Bounds, arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        flag = flag_of(argument)
        if flag is None:
            yield (
                f"spec.engine.args holds {argument!r}, which is no flag: write each argument in one element, as --flag "
                "or --flag=value"
            )
        elif not allows(bounds.engine_flags, flag):
            yield f"spec.engine.args holds {flag}, which tenants may not set here: remove it, {_ask('engineFlags')}"


def _choices(allowed: tuple[str, ...]) -> str:
    if not allowed:
        return "leave it out"
    return f"choose among {', '.join(allowed[:6])}{' and others' if len(allowed) > 6 else ''}"


def _ask(bound: str) -> str:
    return f"or ask the platform's team to add it to tenants.{bound} of the operator's chart"
