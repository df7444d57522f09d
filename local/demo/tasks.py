"""What patients taught yesterday goes to a round's best miners as a signed task; one makes a FineTuneRun of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.round_view import RoundView
from demo import remembering
from demo.circle import Turn
from demo.curriculum import MOVED_CLINIC
from demo.doctors import Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE, STORE, STORE_CLAIM
from demo.kube import Json, Kube
from demo.miners import active_version

DELIVERIES: Final = "deliveries"
"""Of the store's claim."""
FEWEST: Final = 10
_TAKEN_S: Final = 30.0
_STARTED_S: Final = 15.0
_PAUSE_S: Final = 0.5
_EXEC_S: Final = 90.0


@dataclass(frozen=True)
class Yesterday:
    """What the ledger has of the day before."""

    conversations: int
    held_out: int
    """Of these, so many go to no miner: by them its version is examined."""


@dataclass(frozen=True)
class Handed:
    """A task that a miner took, as its FineTuneRun and the round tell of it."""

    task: str
    run: str
    stage: str
    pool: str
    lines: int
    parent: str | None
    made: str | None
    offered: int
    accepted: int


def offers(validator: str) -> Json:
    """Return the Validator's spec.fineTuneTasks: miners reach its gateway within the cluster."""
    return {
        "store": {"uri": f"pvc://{STORE_CLAIM}/{STORE}"},
        "offers": {
            "publicUrl": f"http://{names.gateway_name(validator)}.{NAMESPACE}.svc",
            "minInteractions": FEWEST,
            "deliveries": f"pvc://{STORE_CLAIM}/{DELIVERIES}",
        },
    }


def remember_yesterday(kube: Kube, doctor: Doctor, *, validator: str, miner: str) -> Yesterday:
    """Write a day of conversations into the ledger as yesterday's, each once; raises DemoError.

    A demo has no yesterday: what its patients said a moment ago is learned tomorrow. `miner` is who answered.
    """
    found = kube.get("doctortwin", doctor.twin, "-n", NAMESPACE) or {}
    told = {
        "twin": {"uid": found["metadata"]["uid"], "name": doctor.twin},
        "miner": miner,
        "adapter": active_version(kube, doctor.twin).digest,
        "atMs": round(noon_before(datetime.now(UTC)).timestamp() * 1000),
        "lines": MOVED_CLINIC.lines,
    }
    script = Path(remembering.__file__).read_text(encoding="utf-8")
    said = kube.kubectl(
        "exec", "-i", f"deployment/{names.gateway_name(validator)}", "-n", NAMESPACE, "-c", "gateway", "--", "python",
        "-c", script, stdin=json.dumps(told), timeout=_EXEC_S,
    )  # fmt: skip
    counted = json.loads(said.strip().rpartition("\n")[2])
    return Yesterday(conversations=counted["conversations"], held_out=counted["heldOut"])


def noon_before(now: datetime) -> datetime:
    """Return noon of the day before, in UTC: the day that a round hands out."""
    return (now - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)


def handed(kube: Kube, made: Json, doctor: Doctor, *, on_progress: Callable[[str], None]) -> Handed:
    """Return the task that a miner took, once its run is there; raises DemoError where none did."""
    counts = (made.get("status") or {}).get("tasks") or {}
    ends = time.monotonic() + _TAKEN_S
    while (run := _newest(kube, doctor)) is None:
        if time.monotonic() > ends:
            raise DemoError(
                f"No miner took a task: {counts.get('made', 0)} made, {counts.get('sent', 0)} answered, "
                f"{counts.get('accepted', 0)} accepted",
                evidence=kube.kubectl("get", "finetuneruns", "-n", NAMESPACE),
                remedy=f"`kubectl logs -l {names.LABEL_ROUND}={made['metadata']['name']} -n {NAMESPACE}` says why",
            )
        time.sleep(_PAUSE_S)
    ends = time.monotonic() + _STARTED_S
    while not (run.get("status") or {}).get("stage") and time.monotonic() < ends:
        on_progress(f"{run['metadata']['name']} is there")
        time.sleep(_PAUSE_S)
        run = _newest(kube, doctor) or run
    return handed_of(run, counts)


def handed_of(run: Json, counts: Mapping[str, int]) -> Handed:
    """Read a task's run, and the round's count of tasks."""
    spec, status = run["spec"], run.get("status") or {}
    return Handed(
        task=spec["task"]["id"], run=run["metadata"]["name"], stage=status.get("stage") or "waits",
        pool=spec["task"]["pool"], lines=spec["dataset"].get("interactions") or 0, parent=spec.get("parentDigest"),
        made=(status.get("artifact") or {}).get("digest"), offered=counts.get("sent", 0),
        accepted=counts.get("accepted", 0),
    )  # fmt: skip


def turn_of(
    doctor: Doctor, view: RoundView, weights: Mapping[int, float], *, called: Mapping[str, str], day: Yesterday,
    task: Handed,
) -> Turn:  # fmt: skip
    """Return the way round that the demo went: a round, its weights on the chain, and the task that followed.

    Raises:
        DemoError: the round scored nobody.
    """
    scored = [each for each in view.miners if each.score is not None]
    if not scored:
        raise DemoError("The round scored nobody", remedy=f"`kubectl twin round {view.name} -n {NAMESPACE}`")
    best = max(scored, key=lambda each: (weights.get(each.uid, 0.0), each.score or 0.0, -each.uid))
    return Turn(
        doctor=doctor.name, miners=len(view.miners), best=called.get(best.hotkey, f"UID {best.uid}"),
        best_percent=best.score or 0.0, weight_percent=100 * weights.get(best.uid, 0.0), round=view.name,
        conversations=day.conversations, held_out=day.held_out, task=task.task,
        taken_by=task.pool, offered=task.offered, accepted=task.accepted, lines=task.lines,
        stage=task.stage, parent=task.parent, made=task.made,
    )  # fmt: skip


def _newest(kube: Kube, doctor: Doctor) -> Json | None:
    found = kube.items("finetuneruns", "-n", NAMESPACE, "-l", f"{names.LABEL_TWIN}={doctor.twin}")
    of_tasks = [each for each in found if (each["spec"].get("task") or {}).get("id")]
    return max(of_tasks, key=lambda each: each["metadata"].get("creationTimestamp") or "", default=None)
