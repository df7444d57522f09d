"""More patients at once than one engine takes: the operator adds a second one, and takes it away when they are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from demo import pages
from demo.doctors import QUESTION, Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE, POOL
from demo.kube import Json, Kube, troubled_pods
from demo.patients import Patients
from demo.stage import Stage

LEAST: Final = 1
MOST: Final = 2
PATIENTS: Final = 16
_TOKENS: Final = 12
SCALING: Final[Json] = {
    "mode": "Operator", "min": LEAST, "max": MOST, "waitingPerReplica": 4,
    # Of patients who wait alone: two twins are busy on four slots however many ask.
    "slotPressurePercent": 1000,
    # Half a minute instead of five: somebody watches.
    "stabilizationSeconds": 30,
}  # fmt: skip
_DECIDED_S: Final = 90.0
_STARTED_S: Final = 420.0
_SHRUNK_S: Final = 240.0
_POLL_S: Final = 0.5


def show(stage: Stage, doctor: Doctor) -> None:
    """Have the pool scaled by the operator, send it more patients than it takes, and print why it did what it did.

    Raises:
        DemoError: Prometheus is missing, the pool did not grow or shrink in time, or a patient got no answer.
    """
    kube, timeline = stage.kube, stage.timeline
    if stage.prometheus is None:
        raise DemoError(
            "Without a Prometheus the operator scales nothing",
            remedy="give the demo one that scrapes the cluster: --prometheus URL",
        )
    with scaled_by_the_operator(kube):
        with Patients(
            doctor.twin, [QUESTION], namespace=NAMESPACE, kubeconfig=kube.kubeconfig, number=PATIENTS, tokens=_TOKENS
        ) as patients:
            began = time.monotonic()
            with timeline.step(f"{PATIENTS} patients at once: wait until the operator wants {MOST} engines"):
                _await(kube, lambda pool: desired(pool) == MOST, seconds=_DECIDED_S, what=f"no wish for {MOST} engines")
            timeline.note(f"{time.monotonic() - began:.1f} s after the first question")
            with timeline.step("wait for the second engine to answer beside the first"):
                _await(kube, lambda pool: ready(pool) == MOST, seconds=_STARTED_S, what=f"no {MOST} engines ready")
        with timeline.step("the patients have gone: wait until one engine is left"):
            shrunk = _await(
                kube, lambda pool: desired(pool) == LEAST and engines(pool) == LEAST, seconds=_SHRUNK_S,
                what=f"not back at {LEAST} engine",
            )  # fmt: skip
    pages.print_scaling(
        timeline.console, "Why the pool grew and shrank (status.scalingHistory, times in UTC):", history(shrunk)
    )
    answered = sum(patients.answers.values())
    timeline.note(f"{answered} questions were answered, {len(patients.failures)} were not")
    if patients.failures or not answered:
        raise DemoError(
            f"{len(patients.failures)} of {answered + len(patients.failures)} questions got no answer",
            evidence="\n".join(sorted(set(patients.failures))[:5]),
            remedy=f"`kubectl describe minerpool {POOL} -n {NAMESPACE}`; running the demo again asks anew",
        )


@contextmanager
def scaled_by_the_operator(kube: Kube) -> Iterator[None]:
    """Hand the pool's size to the operator, and take it back."""
    _patch(kube, SCALING)
    try:
        yield
    finally:
        _patch(kube, None)


def desired(pool: Json) -> int | None:
    """Return how many engines the operator wants."""
    return _number(pool, "desiredReplicas")


def engines(pool: Json) -> int | None:
    """Return how many engines there are."""
    return _number(pool, "replicas")


def ready(pool: Json) -> int | None:
    """Return how many of them are ready."""
    return _number(pool, "readyReplicas")


def history(pool: Json) -> list[Json]:
    """Return the decisions, the oldest first."""
    return list(reversed((pool.get("status") or {}).get("scalingHistory") or []))


def _number(pool: Json, field: str) -> int | None:
    found: Any = (pool.get("status") or {}).get(field)
    return None if found is None else int(found)


def _patch(kube: Kube, scaling: Json | None) -> None:
    kube.patch("minerpool", POOL, {"spec": {"autoscaling": scaling}}, namespace=NAMESPACE)


def _await(kube: Kube, came: Callable[[Json], bool], *, seconds: float, what: str) -> Json:
    """Return the pool once it is so. Raises DemoError, with what the pool says of itself."""
    deadline = time.monotonic() + seconds
    while True:
        pool = kube.get("minerpool", POOL, "-n", NAMESPACE) or {}
        if came(pool):
            return pool
        if time.monotonic() > deadline:
            said = [
                f"{each['type']}={each['status']} {each['reason']}: {each['message']}"
                for each in (pool.get("status") or {}).get("conditions") or []
            ]
            raise DemoError(
                f"After {seconds:.0f} s {what}",
                evidence="\n".join([*said, troubled_pods(kube, NAMESPACE)]),
                remedy=f"`kubectl describe minerpool {POOL} -n {NAMESPACE}` says why; docs/scaling.md what it means",
            )
        time.sleep(_POLL_S)
