"""Whether the wanted adapter is in every pod, and whose weights answer under its name: pure checks, and their words."""

from __future__ import annotations

from typing import Final

from bettertherapy_api.report import Proof
from bettertherapy_api.routing import Version
from twin_operator.domain.appearances import ARTIFACT
from twin_operator.domain.proof import SAME_MILLI_NATS
from twin_operator.domain.reasons import Reason
from twin_operator.domain.twin_view import Failure, TwinView
from twin_operator.engine.conditions import Chain, Finding


def adapter_failed(view: TwinView) -> Finding | None:
    """The wanted adapter failed on some pod."""
    failures = view.failures()
    if not failures:
        return None
    worst = next((failure for failure in failures if not failure.retryable), failures[0])
    return _failed(worst, len(failures))


def adapter_failed_for_good(view: TwinView) -> Finding | None:
    """The wanted adapter failed, and no agent goes on trying."""
    return None if any(failure.retryable for failure in view.failures()) else adapter_failed(view)


def artifact_failed(view: TwinView) -> Finding | None:
    """The artifact itself is at fault, before an engine was asked to load it."""
    failures = [failure for failure in view.failures() if failure.reason in ARTIFACT]
    return _failed(failures[0], len(failures)) if failures else None


def pods_disagree(view: TwinView) -> Finding | None:
    """Two ready pods of a pool answer differently under the wanted adapter's name; none has a record to go by."""
    found = view.disagreement()
    if found is None:
        return None
    pool, apart = found
    one, other = apart.pods
    return Finding(
        Reason.FINGERPRINT_MISMATCH,
        f"pods {one} and {other} of MinerPool {pool} answer differently as {wanted_name(view)}: the log-probabilities "
        f"of the standard questions are {apart.milli_nats / 1000:.2f} nats apart on average, and up to "
        f"{SAME_MILLI_NATS / 1000:.2f} may be noise. Delete both pods, so that they load it anew, and publish it with "
        f"a fingerprint, which tells which of them is wrong",
    )


def not_on_every_pod(view: TwinView) -> Finding | None:
    """Some ready pod that is to hold the wanted adapter has not verified it."""
    ready = [(pool.pool.name, name) for pool in view.counting for name in pool.ready_holders]
    verified = {(pool.pool.name, name) for pool in view.counting for name in pool.holds(_as_version(view))}
    return None if ready and verified.issuperset(ready) else Finding(Reason.LOADING, progress(view))


def weights_unproven(view: TwinView) -> Finding | None:
    """A ready pod has verified the wanted adapter without proof of whose weights it is; the pod may say why."""
    unproven = view.unproven()
    if not unproven:
        return None
    ready = sum(len(pool.ready_holders) for pool in view.counting)
    pod, held = next(((pod, held) for pod, held in unproven.items() if held.message), next(iter(unproven.items())))
    why = f"pod {pod}: {held.message}" if held.message else (
        f"pod {pod} measured none: publish it with a fingerprint, as the trainer does"
    )  # fmt: skip
    return Finding(
        Reason.UNPROVEN,
        f"digest and root of {wanted_name(view)} are confirmed on all {ready} ready pods, but on {len(unproven)} of "
        f"them nothing proves whose weights answer; {why}",
    )


WRONG_WEIGHTS: Final = Chain[TwinView]("AdaptersVerified", adapter_failed, pods_disagree)


def proof_of(view: TwinView) -> str:
    """Return what the pods' verdicts rest on, where all of them rest on something."""
    ready = sum(len(pool.ready_holders) for pool in view.counting)
    first = sum(held.rests_on() is Proof.FIRST_LOAD for held in view.ready_reports().values())
    if first == 0:
        return f"digest, root and fingerprint of {wanted_name(view)} are confirmed on all {ready} ready pods"
    return (
        f"digest and root of {wanted_name(view)} are confirmed on all {ready} ready pods; no fingerprint is recorded, "
        f"so {first} of them compare its answers with those of the first load"
    )


def wanted_name(view: TwinView) -> str:
    """Return the name under which the wanted version is served."""
    return view.wanted.served_name if view.wanted else view.twin.spec.base_model.name


def progress(view: TwinView) -> str:
    """Return how far the wanted version is, in pods."""
    desired, loaded, verified = view.counts()
    name = wanted_name(view)
    slow = [
        pod for pool in view.counting for pod in pool.ready_holders if (pool.pool.name, pod) not in view.wanted_reports
    ]
    waiting = f"; pod {slow[0]} has not reported it yet" if slow and view.wanted else ""
    return f"{name} is verified on {verified} and loaded on {loaded} of {desired} pods{waiting}"


def failure_message(failure: Failure, count: int) -> str:
    """Return one pod's failure in words, with how many more there are."""
    others = f" (and on {count - 1} more)" if count > 1 else ""
    again = "; the agent keeps trying" if failure.retryable else ""
    return f"pod {failure.pod} of MinerPool {failure.pool}{others}: {failure.message}{again}"


def _failed(failure: Failure, count: int) -> Finding:
    return Finding(failure.reason, failure_message(failure, count))


def _as_version(view: TwinView) -> Version:
    digest = view.wanted.digest if view.wanted else None
    return Version(served_name=wanted_name(view), digest=digest, weight_percent=100)
