"""A night on which several twins' runs wait for one place and share trainers and examiners, played as in kill_points."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bettertherapy_api import names
from tests.unit.operator.cast import tasks_of
from tests.unit.operator.kill_points import Stage, View
from tests.unit.operator.played import Played
from tests.unit.operator.samples import NAMESPACE, digest
from tests.unit.operator.virtual_time import play
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.resources import FINE_TUNE_RUN

LETTERS = "bcdef"
Happening = Callable[["Night"], None]


@dataclass(frozen=True, kw_only=True)
class Morning:
    """What became of the night."""

    statuses: Mapping[str, Manifest]
    taken_up: Mapping[tuple[str, str], int]
    """(trainer or examiner, run) → how many pods had it to do."""
    jobs: tuple[tuple[str, ...], ...]
    """The runs of each Job that was made, in the order in which they were."""
    most_at_once: int
    """Jobs that had not ended at the same time."""
    writes: int
    lives: int


@dataclass
class Happenings:
    """What people do once the cast has been asked to act so often."""

    at: Mapping[int, Happening] = field(default_factory=dict)


def run_night(
    kill_after: Callable[[int], bool] = lambda number: False, *, view: View = "fresh", runs: int = 5, share: int = 3,
    places: int = 1, at: Mapping[int, Happening] | None = None,
) -> Morning:  # fmt: skip
    """Play it; the operator is killed after each write for which `kill_after` says so."""
    night = Night(kill_after, view=view, runs=runs, share=share, places=places, at=at or {})
    play(night.run())
    return night.morning()


class Night(Stage):
    """One pool, and as many twins with a run each, which all come at once."""

    def __init__(
        self, kill_after: Callable[[int], bool], *, view: View, runs: int, share: int, places: int,
        at: Mapping[int, Happening],
    ) -> None:  # fmt: skip
        self.runs = {f"r{letter}": letter for letter in LETTERS[:runs]}
        super().__init__(kill_after, view=view, trained=dict(self.runs))
        self._share, self._places, self._at = share, places, dict(at)
        self._acts = 0
        self.jobs: list[tuple[str, ...]] = []
        self.most_at_once = 0
        self.api.listeners.append(self._watch)
        act = self.cast.act

        def act_and_happen() -> None:
            self._acts += 1
            act()
            happening = self._at.pop(self._acts, None)
            if happening is not None:
                happening(self)

        self.cast.act = act_and_happen  # type: ignore[method-assign]

    def _watch(self, event: str, thing: Manifest) -> None:
        if thing["kind"] != "Job":
            return
        if event == "ADDED":
            self.jobs.append(tuple(task.run for task in tasks_of(thing)))
        open_jobs = [each for each in self.api.kinds("Job").values() if not (each.get("status") or {}).get("conditions")]
        self.most_at_once = max(self.most_at_once, len(open_jobs))

    def drop(self, run: str) -> None:
        """Delete a run as `kubectl delete ft` does, if it is there."""
        self.runs.pop(run, None)
        key = Key(FINE_TUNE_RUN.kind, NAMESPACE, run)
        if key in self.api.objects:
            self.api.drop(key)

    async def _story(self) -> None:
        world = Played(self.api)
        world.hears = False
        ways = {"maxConcurrentRuns": self._places, "runsPerTrainer": self._share}
        world.start_pool(store={"uri": "pvc://adapters/store"}, fineTune=ways)
        for run, letter in self.runs.items():
            world.start_twin(f"dr-{letter}", systemPrompt=f"You are Dr. {letter}.")
            self.api.put(run_of(run, f"dr-{letter}"))
        await self._until("all runs have ended", self._all_ended, seconds=1500)
        await self._quiet()

    def _all_ended(self) -> bool:
        found = self.api.kinds("FineTuneRun")
        return all("completionTime" in (each.get("status") or {}) for each in found.values())

    def morning(self) -> Morning:
        """Return what became of it."""
        return Morning(
            statuses={name: each["status"] for name, each in self.api.kinds("FineTuneRun").items()},
            taken_up=dict(self.cast.taken_up), jobs=tuple(self.jobs), most_at_once=self.most_at_once,
            writes=len(self.api.writes), lives=self.lives,
        )  # fmt: skip


def run_of(name: str, twin: str, **spec: Any) -> Manifest:
    """Return a run as a person applies it."""
    return {
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "twinRef": {"name": twin}, "parentDigest": digest("a"),
            "dataset": {"uri": f"pvc://adapters/store/{twin}/interactions"}, "seed": 7, **spec,
        },
    }  # fmt: skip


def chosen(seed: int, writes: int, *, kills: int) -> Sequence[int]:
    """Return kill points: numbers of writes, by a seed."""
    return sorted(random.Random(seed).sample(range(1, writes + 1), kills))  # noqa: S311
