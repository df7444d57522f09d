"""On which engine pods each twin is to be: a pure plan from pods, twins and what was planned before.

What is wanted, in this order: no more twins in use on a pod than its engine has LoRA slots; pods that hold about as
many twins and about as much load as one another; like ranks together, since an engine computes a batch by the highest
rank in it; and as few moves as that takes, since a moved twin is loaded anew.

How. It is consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016: whoever has a place keeps it
unless the place is over its bound) where the bound is that of slots, count and load at once, and the next place is not
the next on a ring but the emptiest that fits. Three steps:

1. *Keep*: a twin stays on the pods that it had, if they are there.
2. *Fill*: what has no place gets one, greatest first (longest processing time first, Graham 1969), on the least filled
   pod within the bounds; among equals a rendezvous hash decides, so that nothing depends on the order of the input.
   Ranks have homes: pods in the order of the ranks that they hold are cut in proportion to what each rank weighs.
3. *Repair*: single moves, and exchanges of two twins of different rank, each of which must lower what is beyond the
   bounds (slots before count before load before rank), with the homes of ranks as they are after it. As that can't go
   on forever, the plan of a plan is itself. At most one pod's share of twins is moved at once; what is left is for the
   next plan.

A pod that is there and not ready keeps its twins, and others stand in for it until it is back. One that is slower than
the others gives its twins away, at most one pod's share at once as with any repair, as long as those that stay have
enough slots and are enough (`emptied`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

COUNT_TOLERANCE: Final = 0.1
"""A pod may hold this part more or fewer twins than the average, and one more, before something moves."""
LOAD_FACTOR: Final = 1.25
"""A pod may have this multiple of the average load; the miners use the same."""
HOT_SHARE: Final = 0.5
"""A twin with more of a pod's average load than this gets another pod, where it may have as many as it needs."""
HOT_LOAD: Final = 4000
"""Load below which a twin never needs a second pod: a batch of four costs an engine next to nothing."""
WORTH: Final = 0.25
"""Twins of too high a rank are moved off a pod where they are at most this part of what it holds."""
HOME_TOLERANCE: Final = 0.1
"""Part of a pod by which a rank may overhang into the next one without having a home there."""
MOST_EMPTIED: Final = 3
"""At most one in so many pods is emptied for being slow, and one where there are fewer."""


@dataclass(frozen=True, kw_only=True)
class EnginePod:
    """A place for twins."""

    uid: str
    slots: int
    """Adapters that its engine computes at once."""
    ready: bool = True
    slow: bool = False
    """Whether it is to give its twins away to faster ones."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a twin needs."""

    uid: str
    rank: int = 0
    """The highest of its adapters."""
    load: int | None = None
    """Thousandths of a request in flight, on average of late; 0: it is not in use. None: nobody measured."""
    replicas: int | None = None
    """On how many pods it is to be. None: on one, or on as many as its load needs."""

    @property
    def in_use(self) -> bool:
        """Whether it takes a slot; what was not measured may."""
        return self.load != 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where twins are to be."""

    pods: Mapping[str, tuple[str, ...]]
    """By twin: UIDs of pods, the preferred one first. Empty only where there is no pod."""
    displaced: int
    """Places given for those that pods took along which are gone or not ready."""
    moved: int
    """Places changed for a better balance."""
    settled: bool
    """Whether nothing more is to be moved; with `moves` 0 nobody looked."""


def place(
    pods: Iterable[EnginePod],
    twins: Iterable[Demand],
    previous: Mapping[str, Sequence[str]],
    *,
    moves: int | None = None,
    under_way: int = 0,
) -> Plan:
    """Return where each twin is to be, given where it was.

    `moves`: how many places may change for a better balance; by default one pod's share, less what is displaced and
    what is `under_way` from an earlier plan.
    """
    known = {pod.uid: pod for pod in sorted(pods, key=lambda each: each.uid)}
    wanted = {twin.uid: twin for twin in sorted(twins, key=lambda each: each.uid)}
    usable = {uid: pod for uid, pod in known.items() if pod.ready} or known
    if not usable:
        return Plan(pods=dict.fromkeys(wanted, ()), displaced=0, moved=0, settled=True)
    had = {uid: [pod for pod in dict.fromkeys(previous.get(uid, ())) if pod in known] for uid in wanted}
    shunned = emptied(usable.values(), wanted.values())
    places = len(usable) - len(shunned)
    copies = _copies(wanted.values(), {uid: sum(pod in usable for pod in had[uid]) for uid in wanted}, places)
    board = _Board(usable, wanted, copies, shunned)
    missing: list[tuple[Demand, int]] = []
    for uid, twin in wanted.items():
        stays = sorted((pod for pod in had[uid] if pod in usable), key=shunned.__contains__)[: copies[uid]]
        for pod in stays:
            board.put(twin, pod)
        missing.extend((twin, number) for number in range(copies[uid] - len(stays)))
    board.settle_homes()
    displaced = sum(1 for twin, _ in missing if previous.get(twin.uid))
    for twin, _ in sorted(
        missing, key=lambda each: (each[1], -_rank_class(each[0]), -(each[0].load or 0), each[0].uid)
    ):
        board.put(twin, board.best(twin))
    share = math.ceil(sum(copies.values()) / places)
    allowed = max(0, share - displaced - under_way) if moves is None else moves
    moved = board.repair(allowed)
    found = {uid: _ordered(had[uid], board.where[uid], usable, copies[uid], uid) for uid in wanted}
    return Plan(pods=found, displaced=displaced, moved=moved, settled=moves == 0 or board.is_settled())


def emptied(pods: Iterable[EnginePod], twins: Iterable[Demand]) -> frozenset[str]:
    """Return which slow pods give their twins away: as many as the rest can do without, in the order of their UIDs.

    A third of the ready pods at most (`MOST_EMPTIED`). The rest must have a slot for each twin in use, as far as all
    pods together have, and be as many as any one twin is to be on.
    """
    ready, listed = [pod for pod in pods if pod.ready], list(twins)
    most = max(1, len(ready) // MOST_EMPTIED)
    widest = max((min(twin.replicas or 1, len(ready)) for twin in listed), default=1)
    in_use = sum(min(twin.replicas or 1, len(ready)) for twin in listed if twin.in_use)
    needed = min(in_use, sum(pod.slots for pod in ready))
    found: set[str] = set()
    for pod in sorted(ready, key=lambda each: each.uid):
        rest = [each for each in ready if each.uid not in found and each.uid != pod.uid]
        fits = len(rest) >= widest and sum(each.slots for each in rest) >= needed
        if pod.slow and len(found) < most and fits:
            found.add(pod.uid)
    return frozenset(found)


def kept(twin: Demand, previous: Sequence[str], pods: Mapping[str, EnginePod]) -> tuple[str, ...] | None:
    """Return the twin's pods where it can stay on those that it has; None where it needs others."""
    usable = [uid for uid in dict.fromkeys(previous) if uid in pods and pods[uid].ready]
    needed = min(twin.replicas or 1, sum(pod.ready for pod in pods.values()))
    if len(usable) < max(1, needed):
        return None
    stays = usable[: twin.replicas]
    waiting = [uid for uid in dict.fromkeys(previous) if uid in pods and uid not in usable][: len(stays)]
    return tuple(uid for uid in dict.fromkeys(previous) if uid in stays or uid in waiting)


def _ordered(
    had_before: Sequence[str], now: Sequence[str], usable: Mapping[str, EnginePod], copies: int, twin: str
) -> tuple[str, ...]:
    """Return the twin's pods: those that it had in their order, those that are not ready among them, then new ones."""
    waiting = [pod for pod in had_before if pod not in usable][:copies]
    had = [pod for pod in had_before if pod in now or pod in waiting]
    return (*had, *sorted((pod for pod in now if pod not in had), key=lambda pod: _draw(twin, pod)))


def _copies(twins: Iterable[Demand], before: Mapping[str, int], pods: int) -> dict[str, int]:
    """Return on how many pods each twin is to be; `before`: on how many it was that can be asked."""
    listed = list(twins)
    share = max(HOT_LOAD, HOT_SHARE * sum(twin.load or 0 for twin in listed) / pods)
    found = {}
    for twin in listed:
        if twin.replicas is not None:
            found[twin.uid] = max(1, min(twin.replicas, pods))
            continue
        needed = max(1, min(pods, math.ceil((twin.load or 0) / share)))
        had = min(pods, before[twin.uid])
        # One more than it needs it keeps, so that a load at the border moves nothing.
        found[twin.uid] = had if needed < had <= needed + 1 and needed > 1 else needed
    return found


def _rank_class(twin: Demand) -> int:
    return twin.rank.bit_length() if twin.rank & (twin.rank - 1) else max(0, twin.rank.bit_length() - 1)


def _draw(twin: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{twin}\0{pod}".encode(), digest_size=8).digest()


@dataclass(slots=True, eq=False)
class _Place:
    """One pod and what is on it."""

    pod: EnginePod
    count: int = 0
    in_use: int = 0
    load: float = 0.0
    ranks: int = 0
    """Sum of the rank classes of what it holds."""
    top: int = 1 << 30
    """The highest rank class that is at home here."""
    spoiling: int = 0
    """Twins of a higher class than that."""
    shunned: bool = False
    """Whether all its twins are to go."""
    twins: dict[str, Demand] = field(default_factory=dict)
    by_class: Counter[int] = field(default_factory=Counter)

    @property
    def highest(self) -> int:
        """The highest rank class that it holds."""
        return max((each for each, count in self.by_class.items() if count > 0), default=0)


_Excess = tuple[int, int, int, float, int]
"""What is beyond the bounds: on a pod that is to be empty, by slots, by count, by load, by rank."""
_LEAVING, _SLOTS, _COUNT, _LOAD, _RANK = range(5)


class _Board:
    """All pods while a plan is made."""

    def __init__(
        self, pods: Mapping[str, EnginePod], twins: Mapping[str, Demand], copies: Mapping[str, int],
        shunned: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._places = {uid: _Place(pod, shunned=uid in shunned) for uid, pod in pods.items()}
        pods = {uid: pod for uid, pod in pods.items() if uid not in shunned}
        self._loads = {uid: (twin.load or 0) / copies[uid] for uid, twin in twins.items()}
        self._classes = {uid: _rank_class(twin) for uid, twin in twins.items()}
        self._twins, self._copies = twins, copies
        self.where: dict[str, list[str]] = {uid: [] for uid in twins}
        total, slots = sum(copies.values()), min(pod.slots for pod in pods.values())
        self._average = total / len(pods)
        self._load_average = sum(twin.load or 0 for twin in twins.values()) / len(pods)
        most = math.ceil(self._average * (1 + COUNT_TOLERANCE)) + 1
        fits = total <= sum(pod.slots for pod in pods.values())
        self._most = max(math.ceil(self._average), min(most, slots)) if fits else most
        self._least = max(0, math.floor(self._average * (1 - COUNT_TOLERANCE)) - 1)
        self._most_load = LOAD_FACTOR * self._load_average
        self._homes: dict[int, frozenset[str]] = {}

    def put(self, twin: Demand, pod: str) -> None:
        """Give the twin a place."""
        self._change(twin, self._places[pod], 1)
        self._places[pod].twins[twin.uid] = twin
        self.where[twin.uid].append(pod)

    def take(self, twin: Demand, pod: str) -> None:
        """Take a place away."""
        self._change(twin, self._places[pod], -1)
        del self._places[pod].twins[twin.uid]
        self.where[twin.uid].remove(pod)

    def _change(self, twin: Demand, place: _Place, by: int) -> None:
        place.count += by
        place.in_use += by * twin.in_use
        place.load += by * self._loads[twin.uid]
        place.ranks += by * self._classes[twin.uid]
        place.spoiling += by * (self._classes[twin.uid] > place.top)
        place.by_class[self._classes[twin.uid]] += by

    def settle_homes(self) -> None:
        """Cut the pods, in the order of the ranks that they hold, in proportion to what each rank weighs."""
        weights: dict[int, float] = {}
        for uid, twin in self._twins.items():
            busy = (twin.load or 0) / self._load_average if self._load_average else 0.0
            weights[self._classes[uid]] = (
                weights.get(self._classes[uid], 0.0) + self._copies[uid] / self._average + busy
            )
        open_ = [place for place in self._places.values() if not place.shunned]
        every = frozenset(place.pod.uid for place in open_)
        if len(weights) < 2 or len(every) < 2:
            self._homes = dict.fromkeys(weights, every)
            return
        order = sorted(open_, key=lambda each: (-(each.ranks / each.count if each.count else -1.0), each.pod.uid))
        per_pod, done = sum(weights.values()) / len(order), 0.0
        for rank_class in sorted(weights, reverse=True):
            start, done = done / per_pod, done + weights[rank_class]
            end = done / per_pod
            inset = min(HOME_TOLERANCE, (end - start) / 2)
            first = min(len(order) - 1, math.floor(start + inset))
            last = max(first, min(len(order) - 1, math.ceil(end - inset) - 1))
            self._homes[rank_class] = frozenset(place.pod.uid for place in order[first : last + 1])
        for uid, place in self._places.items():
            place.top = max((each for each, home in self._homes.items() if uid in home), default=0)
            place.spoiling = sum(count for each, count in place.by_class.items() if each > place.top)

    def best(self, twin: Demand) -> str:
        """Return the pod that takes one more copy of the twin."""
        homes, load = self._homes.get(self._classes[twin.uid], frozenset()), self._loads[twin.uid]
        has = self.where[twin.uid]
        ranked: dict[tuple[bool, bool, bool, bool, bool, int, float], list[str]] = {}
        for uid, place in self._places.items():
            if uid in has:
                continue
            key = (
                place.shunned,
                twin.in_use and place.in_use >= place.pod.slots,
                place.count >= self._most,
                load > 0 and place.load + load > self._most_load,
                uid not in homes,
                0 if uid in homes else max(0, self._classes[twin.uid] - place.highest),
                round(self._filled(place), 6),
            )
            ranked.setdefault(key, []).append(uid)
        return min(ranked[min(ranked)], key=lambda uid: _draw(twin.uid, uid))

    def _filled(self, place: _Place) -> float:
        return place.count / self._average + (place.load / self._load_average if self._load_average else 0.0)

    # --- repair

    def _excess(self, place: _Place) -> _Excess:
        if place.shunned:
            return place.count, 0, 0, 0.0, 0
        return (
            0,
            max(0, place.in_use - place.pod.slots),
            max(0, place.count - self._most) + max(0, self._least - place.count),
            round(max(0.0, place.load - self._most_load), 3),
            place.spoiling,
        )

    def is_settled(self) -> bool:
        """Tell whether no move makes it better."""
        return self._next_repair() is None

    def repair(self, allowed: int) -> int:
        """Move what lowers the excess, at most so many places; return how many were moved."""
        self.settle_homes()  # what was filled has its ranks too
        moved = 0
        while moved < allowed:
            steps = self._next_repair()
            if steps is None or moved + len(steps) > allowed:
                break
            self._apply(steps)
            moved += len(steps)
        return moved

    def _apply(self, steps: Sequence[tuple[Demand, str, str]]) -> None:
        for twin, source, target in steps:
            self.take(twin, source)
            self.put(twin, target)
        self.settle_homes()

    def _next_repair(self) -> list[tuple[Demand, str, str]] | None:
        """Return the next moves, if all is better after them: they may move the homes by which they were chosen."""
        steps = self._chosen_repair()
        if steps is None:
            return None
        before = _total(self._excess(place) for place in self._places.values())
        self._apply(steps)
        after = _total(self._excess(place) for place in self._places.values())
        self._apply([(twin, target, source) for twin, source, target in reversed(steps)])
        return steps if after < before else None

    def _chosen_repair(self) -> list[tuple[Demand, str, str]] | None:
        excess = {uid: self._excess(place) for uid, place in self._places.items()}
        for part in range(5):
            found = [
                uid for uid in excess if excess[uid][part] and (part < _RANK or self._is_worth_it(self._places[uid]))
            ]
            for uid in sorted(found, key=lambda uid: (-excess[uid][part], uid)):
                if (steps := self._relief(uid, part)) is not None:
                    return steps
        return None

    def _is_worth_it(self, place: _Place) -> bool:
        """Tell whether few twins of too high a rank slow many others down."""
        return place.spoiling <= WORTH * place.count

    def _relief(self, uid: str, part: int) -> list[tuple[Demand, str, str]] | None:
        place = self._places[uid]
        open_ = [each for each in self._places if not self._places[each].shunned]
        by_filling = sorted(open_, key=lambda each: (self._filled(self._places[each]), each))
        if part == _COUNT and place.count < self._least:
            pairs = [(donor, uid) for donor in reversed(by_filling) if self._places[donor].count > self._least]
        else:
            pairs = [(uid, target) for target in by_filling if target != uid]
        # Rather a twin whose rank is at home where it comes than one that spoils that pod.
        for at_home in (True, False):
            for source, target in pairs:
                vain: set[tuple[int, float, bool]] = set()  # what has no use for one twin has none for its equals
                for twin in self._candidates(source, part):
                    rank_class = self._classes[twin.uid]
                    alike = (rank_class, self._loads[twin.uid], twin.in_use)
                    fits = target in self._homes.get(rank_class, ())
                    if fits is not at_home or alike in vain or target in self.where[twin.uid]:
                        continue
                    if self._improves([(twin, source, target)]):
                        return [(twin, source, target)]
                    vain.add(alike)
        return self._exchange(uid) if part == _RANK else None

    def _candidates(self, source: str, part: int) -> list[Demand]:
        place = self._places[source]
        spoils = {uid: self._classes[uid] > place.top for uid in place.twins}
        if part == _RANK:
            chosen = [twin for uid, twin in place.twins.items() if spoils[uid]]
        elif part == _LEAVING:
            return sorted(place.twins.values(), key=lambda twin: (-self._loads[twin.uid], twin.uid))
        elif part == _SLOTS:
            chosen = [twin for twin in place.twins.values() if twin.in_use]
        elif part == _LOAD:
            chosen = [twin for uid, twin in place.twins.items() if self._loads[uid] > 0]
            return sorted(chosen, key=lambda twin: (not spoils[twin.uid], -self._loads[twin.uid], twin.uid))
        else:
            chosen = list(place.twins.values())
        return sorted(chosen, key=lambda twin: (not spoils[twin.uid], self._loads[twin.uid], _draw(twin.uid, source)))

    def _exchange(self, uid: str) -> list[tuple[Demand, str, str]] | None:
        """Return how a twin of too high a rank changes places with one of a lower."""
        vain: set[tuple[int, float, bool]] = set()
        for twin in self._candidates(uid, _RANK):
            alike = (self._classes[twin.uid], self._loads[twin.uid], twin.in_use)
            if alike in vain:
                continue
            vain.add(alike)
            for home in sorted(self._homes.get(self._classes[twin.uid], ())):
                if home == uid or home in self.where[twin.uid]:
                    continue
                others = sorted(self._places[home].twins.values(), key=lambda each: (self._classes[each.uid], each.uid))
                for other in others:
                    if self._classes[other.uid] > self._places[uid].top:
                        break
                    steps = [(twin, uid, home), (other, home, uid)]
                    if uid not in self.where[other.uid] and self._improves(steps):
                        return steps
        return None

    def _improves(self, steps: Sequence[tuple[Demand, str, str]]) -> bool:
        """Tell whether these moves lower what is beyond the bounds on the pods that they concern."""
        touched = [self._places[uid] for uid in {uid for _, source, target in steps for uid in (source, target)}]
        before = _total(self._excess(place) for place in touched)
        for twin, source, target in steps:
            self._change(twin, self._places[source], -1)
            self._change(twin, self._places[target], 1)
        after = _total(self._excess(place) for place in touched)
        for twin, source, target in steps:
            self._change(twin, self._places[source], 1)
            self._change(twin, self._places[target], -1)
        return after < before


def _total(each: Iterable[_Excess]) -> _Excess:
    leaving, slots, count, load, rank = zip(*each, strict=True)
    return sum(leaving), sum(slots), sum(count), round(sum(load), 3), sum(rank)
