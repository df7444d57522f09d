"""The demo's last step: yesterday in the ledger, a task taken, and the circle drawn of what really happened."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.round_view import MinerLine, RoundView
from bettertherapy_api.validator import ValidatorSpec
from demo import gateway, remembering, tasks
from demo.circle import WIDTH, Turn, circle
from demo.curriculum import LEARNER, MOVED_CLINIC
from demo.doctors import DOCTORS
from demo.errors import DemoError
from neurons.ledger import Ledger
from tests.unit.demo.test_rounds import kube_of

TWIN = {"uid": "11111111-1111-4111-8111-111111111111", "name": LEARNER.twin}
NOW = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
TASK = "22222222-2222-4222-8222-222222222222"
RUN: dict[str, Any] = {
    "metadata": {"name": f"task-{TASK}", "creationTimestamp": "2026-12-01T09:31:00Z"},
    "spec": {
        "twinRef": {"name": LEARNER.twin}, "parentDigest": DIGEST,
        "task": {"id": TASK, "pool": "clinic", "validator": "5F", "deadline": "2026-12-02T00:00:00Z"},
        "dataset": {"uri": "https://x", "digest": DIGEST, "interactions": 21},
    },
    "status": {"stage": "Running"},
}  # fmt: skip
TURN = Turn(
    doctor="Dr. Indra Gurung", miners=3, best="clinic", best_percent=91.0, weight_percent=49.6, round="front-desk-1",
    conversations=24, held_out=3, task=TASK, taken_by="clinic", offered=2, accepted=1, lines=21, stage="Running",
    parent=DIGEST,
)  # fmt: skip


def told() -> dict[str, Any]:
    at_ms = round(tasks.noon_before(NOW).timestamp() * 1000)
    return {"twin": TWIN, "miner": "5" + "A" * 47, "adapter": DIGEST, "atMs": at_ms, "lines": MOVED_CLINIC.lines}


def sent(url: str) -> dict[str, int]:
    """Run it as it is sent to the pod."""
    done = subprocess.run(
        [sys.executable, "-c", Path(remembering.__file__).read_text(encoding="utf-8")], input=json.dumps(told()),
        capture_output=True, text=True, check=True, env={**os.environ, "LEDGER_URL": url},
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


async def test_the_ledger_remembers_yesterday_once_and_a_round_would_hand_it_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with await Ledger.open(url):
        pass
    said = [await asyncio.to_thread(sent, url) for _ in range(2)]
    assert said[0] == said[1]
    assert said[0]["conversations"] == len(MOVED_CLINIC.lines)
    async with await Ledger.open(url) as ledger:
        made = await ledger.task_dataset(
            twin_uid=TWIN["uid"], day=date(2026, 11, 30), zone="UTC", choose=lambda lines, _: lines
        )
        unlearned = made.left_out.get("dislikedWithoutCorrection", 0)
        assert made.lines + unlearned == said[0]["conversations"] - said[0]["heldOut"]
        assert made.lines >= tasks.FEWEST


def test_the_validator_offers_tasks_and_takes_what_comes_of_them_from_its_first_moment() -> None:
    spec = ValidatorSpec.model_validate(gateway.validator()["spec"])
    assert spec.fine_tune_tasks is not None
    assert spec.fine_tune_tasks.offers is not None
    assert spec.fine_tune_tasks.offers.public_url == "http://front-desk-gateway.doctors.svc"
    assert spec.fine_tune_tasks.offers.deliveries is not None


def test_a_task_that_was_taken_is_told_by_its_run_and_the_rounds_counts(tmp_path: Path) -> None:
    kube = kube_of(tmp_path, f"print({json.dumps(json.dumps({'items': [RUN]}))})")
    made = {"metadata": {"name": "r"}, "status": {"tasks": {"made": 2, "sent": 2, "accepted": 1}}}
    found = tasks.handed(kube, made, DOCTORS[0], on_progress=lambda _: None)
    assert found == tasks.Handed(
        task=TASK, run=f"task-{TASK}", stage="Running", pool="clinic", lines=21, parent=DIGEST, made=None, offered=2,
        accepted=1,
    )  # fmt: skip


def test_where_nobody_took_one_the_demo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_TAKEN_S", 0.0)
    kube = kube_of(tmp_path, """print('{"items": []}')""")
    with pytest.raises(DemoError, match="No miner took a task: 2 made, 1 answered, 0 accepted"):
        tasks.handed(
            kube, {"metadata": {"name": "r"}, "status": {"tasks": {"made": 2, "sent": 1}}}, DOCTORS[0],
            on_progress=lambda _: None,
        )  # fmt: skip


def test_the_turn_names_who_has_most_weight() -> None:
    def line(uid: int, hotkey: str, score: float | None) -> MinerLine:
        return MinerLine(uid=uid, hotkey=hotkey, score=score)

    view = RoundView(
        name="front-desk-1", uid="u", validator="5V", seed=1, items=6, startTime="2026-12-01T09:00:00Z",
        miners=(line(1, "5A", 90.0), line(2, "5B", 90.0), line(3, "5C", None)),
    )  # fmt: skip
    day = tasks.Yesterday(24, 3)
    found = tasks.turn_of(
        DOCTORS[0], view, {1: 0.4, 2: 0.6}, called={"5B": "second"}, day=day, task=tasks.handed_of(RUN, {"sent": 2})
    )
    assert (found.best, found.best_percent, found.weight_percent, found.miners) == ("second", 90.0, 60.0, 3)
    with pytest.raises(DemoError, match="scored nobody"):
        tasks.turn_of(
            DOCTORS[0], view.model_copy(update={"miners": ()}), {}, called={}, day=day, task=tasks.handed_of(RUN, {})
        )  # fmt: skip


@pytest.mark.parametrize(
    "turn",
    [
        TURN,
        replace(TURN, made=DIGEST, parent=None),
        replace(TURN, doctor="Dr. " + "x" * 90, best="b" * 90, taken_by="m" * 90, round="r" * 90, stage="s" * 90),
    ],
)
def test_the_circle_fits_a_terminal_and_says_what_happened(turn: Turn) -> None:
    drawn = circle(turn)
    assert max(map(len, drawn.splitlines())) <= WIDTH
    assert "24 conversations yesterday" in drawn
    assert "21 lines for miners" in drawn
    assert "49.6%" in drawn
    assert ("not made yet" in drawn) is (turn.made is None)


def test_the_circle_needs_no_more_than_ascii() -> None:
    assert circle(TURN).isascii()
