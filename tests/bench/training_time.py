"""What of a trainer's time is no training: from the stage times that the trainers of the demo's runs recorded.

`python -m tests.bench.training_time`, or `training` as one of `python -m tests.bench`. Nothing is trained here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bettertherapy_api import names
from demo.errors import DemoError
from demo.installation import NAMESPACE
from demo.kube import Kube
from localcluster import Cluster
from localcluster.errors import LocalClusterError
from tests.bench import versions
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread

TARGET_PERCENT: Final = 40.0


@dataclass(frozen=True, kw_only=True)
class TrainerTime:
    """One trainer that did a whole run, in seconds."""

    run: str
    twin: str
    ended: datetime
    whole: float
    """From the container's start to its end, by the kubelet."""
    stages: Mapping[str, float]
    """data, train (steps among it), publish, evaluate; and steps, by the trainer's own clock."""

    @property
    def steps(self) -> float:
        """Optimiser steps."""
        return self.stages["steps"]

    @property
    def outside_percent(self) -> float:
        """What is no optimiser step, of the whole."""
        return 100 * (1 - self.steps / self.whole)

    def parts(self) -> dict[str, float]:
        """Return what it did besides the steps."""
        told = {name: self.stages.get(name, 0.0) for name in ("data", "train", "publish", "evaluate")}
        return {
            "Python's start and imports, and leaving": max(0.0, self.whole - sum(told.values())),
            "data": told["data"],
            "model and adapter brought up, checkpoints": max(0.0, told["train"] - self.steps),
            "publishing and fingerprint": told["publish"],
            "evaluation": told["evaluate"],
        }


def measure(options: Options) -> Result:
    """Read what is recorded; raises BenchmarkError when there is nothing."""
    cluster = Cluster("demo")
    if not cluster.running:
        raise BenchmarkError("the demo's cluster is down, so no run's times are there: run `make demo` first")
    kube = Kube(kubectl_program=str(cluster.bin("kubectl")), helm_program="helm", kubeconfig=cluster.kubeconfig_path)
    try:
        pods = kube.items("pods", "-n", NAMESPACE, "-l", f"{names.LABEL_COMPONENT}=trainer")
        software = versions.of_cluster(cluster) | versions.of_python()
    except (DemoError, LocalClusterError) as error:
        raise BenchmarkError(f"the demo's cluster doesn't say which runs it has had: {error}") from error
    times = sorted((time for pod in pods if (time := time_of(pod)) is not None), key=lambda each: each.ended)
    if not times:
        raise BenchmarkError(
            f"no run in the demo has recorded its times ({len(pods)} trainers' pods): let a doctor's day pass in it"
        )
    return Result(
        name="training",
        title="What of a trainer's time is no training",
        how=(
            f"From the stage times that {len(times)} trainers in the demo's cluster recorded ({_listed(times)}): "
            "SmolLM2-135M on a CPU, real FineTuneRuns from dataset to verdict. A trainer writes its stages' seconds as "
            "its container's last word; the container's start and end are the kubelet's, in whole seconds. Outside is "
            "all that is no optimiser step, the evaluation included. A twin's first run examines two versions; later "
            "ones know the parent's answers from the run before. Trainers that went on with another attempt's work, or "
            "were skipped, are left out."
        ),
        figures=tuple(_figures(times)),
        versions=software,
    )


def _figures(times: Sequence[TrainerTime]) -> Iterator[Figure]:
    twins: set[str] = set()
    first, later = [], []
    for each in times:
        (later if each.twin in twins else first).append(each)
        twins.add(each.twin)
    for subject, group in (("a twin's first run", first), ("a later run", later)):
        if not group:
            continue
        outside = Spread.of([each.outside_percent for each in group])
        yield Figure(
            subject=subject, figure="outside training steps", unit="% of its time", digits=0, spread=outside,
            target="≤ 40%", met=outside.maximum <= TARGET_PERCENT,
        )  # fmt: skip
        parts = [{"its time": each.whole, "training steps": each.steps, **each.parts()} for each in group]
        for part in parts[0]:
            seconds = Spread.of([each[part] for each in parts])
            yield Figure(subject=subject, figure=part, unit="s", digits=1, spread=seconds)


def _listed(times: Sequence[TrainerTime]) -> str:
    found = [each.run for each in times]
    return ", ".join(found) if len(found) <= 6 else f"{', '.join(found[-6:])} and {len(found) - 6} before them"


def time_of(pod: Mapping[str, Any]) -> TrainerTime | None:
    """Return what a trainer's pod recorded; None for one that has not done a whole run by itself."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ended = next(
        (
            each["state"]["terminated"]
            for each in statuses
            if each["name"] == "trainer" and "terminated" in each["state"]
        ),
        None,
    )
    if ended is None or ended.get("exitCode") != 0:
        return None
    try:
        stages = json.loads(ended.get("message") or "")["seconds"]
        began, over = (datetime.fromisoformat(ended[key]) for key in ("startedAt", "finishedAt"))
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(stages, dict) or not {"data", "steps", "train", "publish", "evaluate"} <= stages.keys():
        return None
    whole = (over - began).total_seconds()
    if whole <= 0:
        return None
    labels = pod["metadata"]["labels"]
    return TrainerTime(
        run=labels[names.LABEL_RUN], twin=labels[names.LABEL_TWIN], ended=over, whole=whole, stages=stages
    )


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["training", *sys.argv[1:]]))
