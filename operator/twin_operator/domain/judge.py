"""The judge that a twin's gate names: where its examiner finds it, or why it may not be asked.

A version that judged itself, or was judged by what it was trained from, would be found good by its own blind spots. By
names alone that can't be told of a server elsewhere; of the pools of this namespace it can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bettertherapy_api import names
from bettertherapy_api.addresses import is_link_local
from bettertherapy_api.doctor_twin import JudgeRef
from twin_operator.domain.objects import Pool, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.versions import wanted_version
from twin_operator.engine.conditions import Finding

KEY = "key"
"""Of the Secret that gate.judgeRef.secretRef names."""
_HOST = re.compile(r"https?://([^/:]+)")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A judge that may be asked; whether it counts its calibration tells."""

    ref: JudgeRef
    endpoint: str
    """Up to and with /v1."""
    models: tuple[str, ...]
    secret: str | None = None
    """Name of the Secret with its key."""
    key: str = KEY
    """Which of the Secret's keys it is."""
    version: str | None = None
    """What answers under the models' names, where that is known: another one has to be calibrated anew."""


@dataclass(frozen=True)
class _Refused:
    why: str


def judge_of(twin: Twin, *, pools: Iterable[Pool], twin_named: Callable[[str], Twin | None]) -> Judge | Finding | None:
    """Return the judge, or why it may not be asked; None where the gate names none.

    `pools` are those of the twin's namespace; `twin_named` gives a twin of it.
    """
    ref = twin.spec.gate.judge_ref if twin.spec.gate is not None else None
    if ref is None:
        return None
    pools = tuple(pools)
    models = (ref.model,) if ref.second_model is None else (ref.model, ref.second_model)
    if (why := _judges_itself(twin, models)) is not None:
        found: Judge | str = why
    elif ref.pool_ref is not None:
        found = _of_pool(twin, ref, models, pools, twin_named)
    else:
        found = _elsewhere(twin, ref, models, pools, twin_named)
    if isinstance(found, str):
        return Finding(Reason.NO_JUDGE, f"the judge of gate.judgeRef is not asked: {found}")
    return found


def _elsewhere(
    twin: Twin, ref: JudgeRef, models: tuple[str, ...], pools: Iterable[Pool],
    twin_named: Callable[[str], Twin | None],
) -> Judge | str:  # fmt: skip
    """Return the judge at an endpoint, or why it may not be asked."""
    endpoint = ref.endpoint or ""
    if is_link_local(endpoint):
        return "its endpoint is a link-local address, or one written as a number"
    served = next((each for each in pools if _is_miner(endpoint, each)), None)
    version = None
    if served is not None:
        found = _served(twin, models, served, pools, twin_named)
        if isinstance(found, _Refused):
            return found.why
        version = found
    return Judge(
        ref=ref, endpoint=endpoint, models=models, version=version,
        secret=ref.secret_ref.name if ref.secret_ref is not None else None,
    )  # fmt: skip


def _of_pool(
    twin: Twin, ref: JudgeRef, models: tuple[str, ...], pools: Iterable[Pool],
    twin_named: Callable[[str], Twin | None],
) -> Judge | str:  # fmt: skip
    """Return the judge that a pool serves, or why it may not be asked."""
    named = ref.pool_ref.name if ref.pool_ref is not None else ""
    pool = next((each for each in pools if each.name == named), None)
    if pool is None:
        return f"MinerPool {named} does not exist, or can't be read"
    version = _served(twin, models, pool, pools, twin_named)
    if isinstance(version, _Refused):
        return version.why
    if ref.secret_ref is None and pool.spec.miner.access_secret_ref is not None:
        return (
            f"MinerPool {pool.name} has clients' tokens of your own (spec.miner.accessSecretRef): put one of them "
            f"under `{KEY}` into a Secret, and name it in gate.judgeRef.secretRef"
        )
    of_user = ref.secret_ref
    return Judge(
        ref=ref, endpoint=f"http://{names.miner_name(pool.name)}.{pool.namespace}.svc/v1", models=models,
        secret=of_user.name if of_user is not None else names.access_secret_name(pool.name),
        key=KEY if of_user is not None else names.ACCESS_CLIENT, version=version,
    )  # fmt: skip


def _served(
    twin: Twin, models: Iterable[str], pool: Pool, pools: Iterable[Pool], twin_named: Callable[[str], Twin | None]
) -> str | _Refused:  # fmt: skip
    """Return which versions a pool's miners answer with under the models' names, or why they may not judge."""
    if (why := _same_base(twin, pool, pools)) is not None:
        return _Refused(why)
    versions = []
    for model in models:
        judge = twin_named(model)
        if judge is None or not judge.spec.pool_selector.matches(dict(pool.labels)):
            return _Refused(
                f"MinerPool {pool.name} serves no DoctorTwin {model}: a pool's models are the twins that it serves"
            )
        if judge.spec.fine_tune is not None:
            return _Refused(
                f"DoctorTwin {model} is fine-tuned (spec.fineTune): a judge has to stay what it was when it was "
                "calibrated"
            )
        versions.append(wanted_version(judge).served_name)
    return ",".join(versions)


def _judges_itself(twin: Twin, models: Iterable[str]) -> str | None:
    own = re.compile(rf"{re.escape(twin.name)}(-[0-9a-f]{{8}})?")
    for model in models:
        if own.fullmatch(model):
            return f"{model} is the twin itself, and no version judges itself"
        if model == twin.spec.base_model.name:
            return f"{model} is the base model that the twin was trained from"
    return None


def _same_base(twin: Twin, pool: Pool, pools: Iterable[Pool]) -> str | None:
    """Return that a pool serves what the twin was trained from: by its name, or from where a pool has it."""
    own = twin.spec.base_model.name
    if pool.spec.base_model.name == own:
        return f"MinerPool {pool.name} serves {own}, which the twin was trained from"
    of_own = {each.spec.base_model.uri for each in pools if each.spec.base_model.name == own}
    if pool.spec.base_model.uri in of_own:
        return f"MinerPool {pool.name} serves {own}, which the twin was trained from, as {pool.spec.base_model.name}"
    return None


def _is_miner(endpoint: str, pool: Pool) -> bool:
    """Tell whether an endpoint is the address of a pool's miners."""
    found = _HOST.match(endpoint)
    name = names.miner_name(pool.name)
    long = f"{name}.{pool.namespace}"
    host = found[1].casefold() if found is not None else ""
    # Whatever the cluster's own domain is.
    return host in (name, long, f"{long}.svc") or host.startswith(f"{long}.svc.")
