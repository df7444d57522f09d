"""Fine-tune runs in words: how far one is, what its gate found, what follows. Pure: no requests, no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kubectl_twin.api import Json
from kubectl_twin.views import condition

_AT: Final = {
    "StageStarting": "starting",
    "StageData": "reading the data",
    "StageTrain": "training",
    "StagePublish": "publishing the adapter",
    "StageEvaluate": "examining the new version beside the one that serves",
    "StageDone": "ending",
    "PodStarting": "starting",
    "JobStarting": "starting",
}


@dataclass(frozen=True)
class Metric:
    """One metric of a gate, in percent."""

    name: str
    value: int
    baseline: int | None
    threshold: int | None
    interval: tuple[int, int] | None
    """Confidence interval of value minus baseline."""
    margin: int | None = None
    """What may be lost, in percentage points."""
    shown: bool | None = None
    """Whether it is shown that no more was lost."""


@dataclass(frozen=True)
class Grader:
    """One of a judge's graders, and how it did on answers whose truth is known; kappa in percent."""

    model: str
    wording: str
    kappa: int
    low: int
    """Lower end of kappa's interval."""
    known: int


@dataclass(frozen=True)
class Clear:
    """One part of how clear the answers are, in percent: it counts for nothing."""

    part: str
    answers: int
    value: int
    baseline: int


@dataclass(frozen=True)
class Judging:
    """How the items of a gate were scored."""

    scored_by: tuple[tuple[str, int], ...]
    """Ways, each with how many items."""
    ungraded: int
    graders: tuple[Grader, ...]
    criteria: int
    agreed: int
    clarity: tuple[Clear, ...]


@dataclass(frozen=True)
class Gate:
    """What a gate found."""

    verdict: str
    samples: int
    message: str | None
    metrics: tuple[Metric, ...]
    judging: Judging | None = None
    """None where nothing was scored, or by an earlier release."""


def is_over(run: Json) -> bool:
    """Tell whether the run has ended, whichever way."""
    return "completionTime" in (run.get("status") or {})


def under_way(runs: Sequence[Json]) -> Json | None:
    """Return the run that goes on, or else the one that waits its turn; None when all have ended."""
    open_runs = [run for run in runs if not is_over(run)]
    started = [run for run in open_runs if "startTime" in (run.get("status") or {})]
    return next(iter(started or open_runs), None)


def is_skipped(run: Json) -> bool:
    """Tell whether there was too little new data to train on."""
    return (run.get("status") or {}).get("stage") == "Skipped"


def stage_text(run: Json) -> str:
    """Return what the run is at, as words."""
    queued, running = condition(run, "Queued"), condition(run, "Running")
    if running is not None and not is_over(run):
        reason = running.get("reason", "")
        return _AT.get(reason) or f"{reason}: {running.get('message', '')}"
    if queued is not None and queued.get("status") == "True":
        return f"waits: {queued.get('message', '')}"
    return "starting" if not is_over(run) else str((run.get("status") or {}).get("stage") or "ended")


def progress_text(run: Json) -> str:
    """Return how far it is: stage, percent, steps, loss and remaining time, as far as they are known."""
    status = run.get("status") or {}
    parts = [stage_text(run)]
    if (percent := status.get("progressPercent")) is not None:
        parts.append(f"{percent}%")
    if status.get("steps"):
        parts.append(f"step {status.get('step', 0)} of {status['steps']}")
    if (loss := status.get("lossMilli")) is not None:
        parts.append(f"loss {loss / 1000:.3f}")
    if (seconds := status.get("remainingSeconds")) is not None:
        parts.append(f"about {span(seconds)} left")
    return " · ".join(parts)


def span(seconds: float) -> str:
    """Return a duration in the two largest units that matter: 45 s, 3 min, 2 h 5 min, 3 d."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(minutes / 1440)} d"


def gate_of(found: Json | None) -> Gate | None:
    """Read a run's status.eval or a twin's status.lastGate; None for none."""
    if not found:
        return None
    return Gate(
        verdict=found["verdict"],
        samples=found.get("samples", 0),
        message=found.get("message"),
        metrics=tuple(_metric(each) for each in found.get("metrics") or []),
        judging=_judging(found.get("judging")),
    )


def _judging(found: Json | None) -> Judging | None:
    if not found:
        return None
    return Judging(
        scored_by=tuple((way, count) for way, count in (found.get("scoredBy") or {}).items() if count),
        ungraded=found.get("ungraded", 0),
        graders=tuple(
            Grader(each["model"], each["wording"], each["kappaPercent"], each["lowPercent"], each["knownAnswers"])
            for each in found.get("graders") or []
        ),
        criteria=found.get("criteria", 0),
        agreed=found.get("agreed", 0),
        clarity=tuple(
            Clear(each["part"], each["answers"], each["valuePercent"], each["baselinePercent"])
            for each in found.get("clarity") or []
        ),
    )


def _metric(found: Json) -> Metric:
    ends = found.get("intervalPercent") or []
    return Metric(
        name=found["name"],
        value=found["valuePercent"],
        baseline=found.get("baselinePercent"),
        threshold=found.get("thresholdPercent"),
        interval=(ends[0], ends[1]) if len(ends) == 2 else None,
        margin=found.get("marginPercent"),
        shown=found.get("shown"),
    )


def gate_text(gate: Gate) -> str:
    """Return a gate in one line: verdict, items, metrics."""
    parts = [f"{gate.verdict} on {gate.samples} items"]
    for metric in gate.metrics:
        before = f" (before {metric.baseline}%)" if metric.baseline is not None else ""
        parts.append(f"{metric.name} {metric.value}%{before}")
    return " · ".join(parts)


def trouble(run: Json) -> str | None:
    """Return why a run that is over made no version, as a sentence; None when it made one."""
    status, name = run.get("status") or {}, run["metadata"]["name"]
    if is_skipped(run):
        found = condition(run, "DataReady") or {}
        return f"{name} was skipped: {found.get('message') or 'too little new data'}"
    failure = status.get("failure")
    if failure and not status.get("verdict"):
        again = " Another run may succeed." if failure.get("retryable") else ""
        return f"{name} failed ({failure['class']}): {failure['message']}.{again}".replace("..", ".")
    return None


def is_of_task(run: Json) -> bool:
    """Tell whether a validator's task asked for the run's version: it is rolled out only where it is chosen."""
    spec = run.get("spec") or {}
    return spec.get("task") is not None or spec.get("candidate") is not None


def what_follows(run: Json, twin: Json) -> str:
    """Return what becomes of the version of a run that was judged, and what a person can do."""
    status, name = run.get("status") or {}, twin["metadata"]["name"]
    verdict = status.get("verdict")
    if verdict == "Reject":
        return "The new version did worse, or lies below a floor, and won't answer; the version that serves goes on."
    if verdict == "Inconclusive":
        return "That the new version is no worse was not shown, so it won't answer; the version that serves goes on."
    if is_of_task(run):
        return (
            "It passed. That of a validator's task answers only where it is chosen: "
            f"`kubectl twin approve {name} --digest {(status.get('artifact') or {}).get('digest')}`, or `reject`."
        )
    if (twin["spec"].get("gate") or {}).get("approval") == "Doctor":
        return f"It waits for the doctor: `kubectl twin review {name}`, then `kubectl twin approve {name}` or `reject`."
    if (twin["spec"].get("rollout") or {}).get("steps"):
        return f"It passed and is tried on a share of the patients first: `kubectl twin status {name}` follows it."
    return f"It passed and takes over once every pod has verified it: `kubectl twin status {name}` follows it."
