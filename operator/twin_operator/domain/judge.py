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


def judge_of(twin: Twin, *, pools: Iterable[Pool], twin_named: Callable[[str], Twin | None]) -> Judge | Finding | None:
    """Return the judge, or why it may not be asked; None where the gate names none.

    `pools` are those of the twin's namespace; `twin_named` gives a twin of it.
    """
    ref = twin.spec.gate.judge_ref if twin.spec.gate is not None else None
    if ref is None:
        return None
    models = (ref.model,) if ref.second_model is None else (ref.model, ref.second_model)
    if (why := _judges_itself(twin, models)) is not None:
        found: Judge | str = why
    elif ref.pool_ref is not None:
        found = _of_pool(twin, ref, models, pools, twin_named)
    else:
        found = _elsewhere(twin, ref, models, pools)
    if isinstance(found, str):
        return Finding(Reason.NO_JUDGE, f"the judge of gate.judgeRef is not asked: {found}")
    return found


def _elsewhere(twin: Twin, ref: JudgeRef, models: tuple[str, ...], pools: Iterable[Pool]) -> Judge | str:
    """Return the judge at an endpoint, or why it may not be asked."""
    endpoint = ref.endpoint or ""
    if is_link_local(endpoint):
        return "its endpoint is a link-local address, or one written as a number"
    served = next((each for each in pools if _is_miner(endpoint, each)), None)
    if served is not None and (why := _same_base(twin, served)) is not None:
        return why
    return Judge(
        ref=ref, endpoint=endpoint, models=models, secret=ref.secret_ref.name if ref.secret_ref is not None else None
    )


def _of_pool(
    twin: Twin, ref: JudgeRef, models: tuple[str, ...], pools: Iterable[Pool],
    twin_named: Callable[[str], Twin | None],
) -> Judge | str:  # fmt: skip
    """Return the judge that a pool serves, or why it may not be asked."""
    named = ref.pool_ref.name if ref.pool_ref is not None else ""
    pool = next((each for each in pools if each.name == named), None)
    if pool is None:
        return f"MinerPool {named} does not exist, or can't be read"
    if (why := _same_base(twin, pool)) is not None:
        return why
    versions = []
    for model in models:
        judge = twin_named(model)
        if judge is None or not judge.spec.pool_selector.matches(dict(pool.labels)):
            return f"MinerPool {pool.name} serves no DoctorTwin {model}: a pool's models are the twins that it serves"
        if judge.spec.fine_tune is not None:
            return (
                f"DoctorTwin {model} is fine-tuned (spec.fineTune): a judge has to stay what it was when it was "
                "calibrated"
            )
        versions.append(wanted_version(judge).served_name)
    if ref.secret_ref is None and pool.spec.miner.access_secret_ref is not None:
        return (
            f"MinerPool {pool.name} has clients' tokens of your own (spec.miner.accessSecretRef): put one of them "
            f"under `{KEY}` into a Secret, and name it in gate.judgeRef.secretRef"
        )
    of_user = ref.secret_ref
    return Judge(
        ref=ref, endpoint=f"http://{names.miner_name(pool.name)}.{pool.namespace}.svc/v1", models=models,
        secret=of_user.name if of_user is not None else names.access_secret_name(pool.name),
        key=KEY if of_user is not None else names.ACCESS_CLIENT, version=",".join(versions),
    )  # fmt: skip


def _judges_itself(twin: Twin, models: Iterable[str]) -> str | None:
    own = re.compile(rf"{re.escape(twin.name)}(-[0-9a-f]{{8}})?")
    for model in models:
        if own.fullmatch(model):
            return f"{model} is the twin itself, and no version judges itself"
        if model == twin.spec.base_model.name:
            return f"{model} is the base model that the twin was trained from"
    return None


def _same_base(twin: Twin, pool: Pool) -> str | None:
    if pool.spec.base_model.name != twin.spec.base_model.name:
        return None
    return f"MinerPool {pool.name} serves {twin.spec.base_model.name}, which the twin was trained from"


def _is_miner(endpoint: str, pool: Pool) -> bool:
    """Tell whether an endpoint is the address of a pool's miners."""
    found = _HOST.match(endpoint)
    name = names.miner_name(pool.name)
    long = f"{name}.{pool.namespace}"
    known = {name, long, f"{long}.svc", f"{long}.svc.cluster.local", f"{long}.svc.cluster.local."}
    return found is not None and found[1].casefold() in known
