"""A night on which runs of several twins wait for one place and share trainers; played as in kill_points."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bettertherapy_api import names
from tests.unit.operator.cast import tasks_of
from tests.unit.operator.kill_points import VIEWS, Stage, View
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
    twice: frozenset[tuple[str, str]]
    """What two pods that lived had to do."""
    most_at_once: int
    """Jobs that had not ended at the same time."""
    writes: int
    lives: int


def run_night(
    kill_after: Callable[[int], bool] = lambda number: False, *, view: View = "fresh", runs: int = 5, share: int = 3,
    places: int = 1, at: Mapping[int, Happening] | None = None, before: Happening = lambda night: None,
    unjudged: str = "",
) -> Morning:  # fmt: skip
    """Play it; the operator is killed after each write for which `kill_after` says so. `at` are what people do when the
    cast has acted so often, and `before` what was there before. The judge of the twins with the letters `unjudged` is
    missing."""
    night = Night(kill_after, view=view, runs=runs, share=share, places=places, at=at or {})
    night.unjudged = unjudged
    before(night)
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
        self._share, self._places = share, places
        self._at = defaultdict(list, {act: [happening] for act, happening in at.items()})
        self._acts = 0
        self.jobs: list[tuple[str, ...]] = []
        self._works_on: dict[str, set[tuple[str, str]]] = {}
        """Pod's UID → what it has to do."""
        self.twice: set[tuple[str, str]] = set()
        self.most_at_once = 0
        self.unjudged = ""
        """Letters of the twins whose gate names a judge that isn't there: their runs begin when it is."""
        self.api.listeners.append(self._watch)
        act = self.cast.act

        def act_and_happen() -> None:
            self._acts += 1
            act()
            for happening in self._at.pop(self._acts, []):
                happening(self)
            if self._at:
                self.changed.set()  # time goes on

        self.cast.act = act_and_happen  # type: ignore[method-assign]

    def _watch(self, event: str, thing: Manifest) -> None:
        if thing["kind"] == "Pod" and event == "ADDED":
            self._note_pod(thing)
        if thing["kind"] != "Job":
            return
        if event == "ADDED":
            self.jobs.append(tuple(task.run for task in tasks_of(thing)))
        open_jobs = [
            each for each in self.api.kinds("Job").values() if not (each.get("status") or {}).get("conditions")
        ]
        self.most_at_once = max(self.most_at_once, len(open_jobs))

    def _note_pod(self, pod: Manifest) -> None:
        uid, component = pod["metadata"]["uid"], pod["metadata"]["labels"][names.LABEL_COMPONENT]
        if component not in ("trainer", "examiner") or uid in self._works_on:
            return
        job = self.api.kinds("Job")[pod["metadata"]["ownerReferences"][0]["name"]]
        self._works_on[uid] = {(component, task.run) for task in tasks_of(job)}
        for other in self.api.kinds("Pod").values():
            theirs = self._works_on.get(other["metadata"]["uid"], set())
            if other["status"]["phase"] == "Running" and other["metadata"]["uid"] != uid:
                self.twice |= theirs & self._works_on[uid]

    def drop(self, run: str, *, pods_linger: int = 4) -> None:
        """Delete a run as `kubectl delete ft` does, if it is there; its pods have some time to end."""
        self.runs.pop(run, None)
        key = Key(FINE_TUNE_RUN.kind, NAMESPACE, run)
        if key not in self.api.objects:
            return
        pods = [
            pod for pod in self.api.kinds("Pod").values() if pod["metadata"]["labels"].get(names.LABEL_RUN) == run
        ]  # fmt: skip
        self.api.drop(key)
        for pod in pods:
            self.api.put(pod)

        def end(night: Night) -> None:
            for pod in pods:
                gone = Key("Pod", NAMESPACE, pod["metadata"]["name"])
                live = night.api.objects.get(gone)
                if live is not None and live["metadata"]["uid"] == pod["metadata"]["uid"]:
                    night.api.drop(gone)
            night.changed.set()

        self._at[self._acts + pods_linger].append(end)

    async def _story(self) -> None:
        world = Played(self.api)
        world.hears = False
        ways = {"maxConcurrentRuns": self._places, "runsPerTrainer": self._share}
        world.start_pool(store={"uri": "pvc://adapters/store"}, fineTune=ways)
        for run, letter in self.runs.items():
            nowhere = {"gate": {"judgeRef": {"poolRef": {"name": "judges"}, "model": "assessor"}}}
            gate = nowhere if letter in self.unjudged else {}
            world.start_twin(f"dr-{letter}", systemPrompt=f"You are Dr. {letter}.", **gate)
            self.api.put(run_of(run, f"dr-{letter}"))
        await self._until("all runs have ended", self._all_ended, seconds=1500)
        await self._quiet()

    def _all_ended(self) -> bool:
        found = self.api.kinds("FineTuneRun")
        judged = [each for name, each in found.items() if self.runs.get(name, "?") not in self.unjudged]
        return all("completionTime" in (each.get("status") or {}) for each in judged)

    def morning(self) -> Morning:
        """Return what became of it."""
        return Morning(
            statuses={name: each["status"] for name, each in self.api.kinds("FineTuneRun").items()},
            taken_up=dict(self.cast.taken_up), jobs=tuple(self.jobs), twice=frozenset(self.twice),
            most_at_once=self.most_at_once, writes=len(self.api.writes), lives=self.lives,
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


def disturbed(seed: int) -> tuple[Morning, set[str]]:
    """Play a night in which one or two runs are deleted and the operator is killed up to three times, drawn by a seed;
    returns what was deleted too."""
    draw = random.Random(seed)
    victims = draw.sample([f"r{letter}" for letter in LETTERS], draw.choice([1, 1, 2]))
    at: dict[int, Happening] = {draw.randint(1, 24): lambda night, run=run: night.drop(run) for run in victims}  # type: ignore[misc]
    kills = set(draw.sample(range(1, 200), draw.choice([0, 0, 1, 3])))
    morning = run_night(lambda done: done in kills, view=draw.choice(VIEWS), at=at)
    return morning, set(victims)
