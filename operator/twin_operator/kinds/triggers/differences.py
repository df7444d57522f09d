"""What differs between an object before and after: the tests of the table's rows."""

from __future__ import annotations

from typing import Final

from twin_operator.domain.answering import may_answer
from twin_operator.domain.objects import Twin, Unreadable
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.engine.store import Entry
from twin_operator.kinds.triggers.change import Change, pool_key, status_of
from twin_operator.kinds.watched import Report


def always(change: Change) -> bool:
    """Any change."""
    return True


def exists(change: Change) -> bool:
    """It is there."""
    return change.new is not None


def asks_differently(change: Change) -> bool:
    """A new object, one that goes, or a new spec or labels."""
    if change.old is None or change.new is None:
        return True
    before, after = change.old.manifest["metadata"], change.new.manifest["metadata"]
    return any(before.get(each) != after.get(each) for each in ("generation", "uid", "deletionTimestamp", "labels"))


def is_started_otherwise(change: Change) -> bool:
    """A pool whose engines are started for other adapters than before."""
    before, after = (status_of(each).get("tuning") or {} for each in (change.old, change.new))
    return before.get("running") != after.get("running")


_DECIDES: Final = (
    "promotedVersion", "specDigest", "canaryVersion", "canaryWeightPercent", "pendingVersion", "refusedVersions",
)  # fmt: skip
"""Fields of a twin's status that decide what its pools hold and what its runs say."""


def answers_differently(change: Change) -> bool:
    """Another version of the twin should answer, or is being tried."""
    if asks_differently(change) or isinstance(change.entry.value, Twin) != isinstance(
        change.old.value if change.old else None, Twin
    ):
        return True
    before, after = (status_of(each) for each in (change.old, change.new))
    return any(before.get(each) != after.get(each) for each in _DECIDES)


_TOLD: Final = frozenset(
    {"conditions", "observedGeneration", "activeVersion", "previousVersion", "history", "pods", "baseline"}
)
"""Fields of a twin's status that say what was seen. Nothing is decided by them: said once, they are said again."""


def only_tells_differently(change: Change) -> bool:
    """A twin's status says something else of what was seen, as the operator writes it; all the rest is the same."""
    if change.old is None or change.new is None or asks_differently(change):
        return False
    if change.old.manifest["metadata"].get("annotations") != change.new.manifest["metadata"].get("annotations"):
        return False
    before, after = (status_of(each) for each in (change.old, change.new))
    return all(before.get(each) == after.get(each) for each in (before.keys() | after.keys()) - _TOLD)


def exists_and_does_more_than_tell(change: Change) -> bool:
    """It is there, and not only its status says something else of what was seen."""
    return exists(change) and not only_tells_differently(change)


def may_answer_differently(change: Change) -> bool:
    """Other weights may answer under the twin's name, it is another doctor's, or it came or went."""
    return _answering(change.old) != _answering(change.new)


def is_taken_back(change: Change) -> bool:
    """Another version may not answer, of a twin of which no more than that can be read."""
    before, after = (each.value if each is not None else None for each in (change.old, change.new))
    former = before.taken_back if isinstance(before, Unreadable) else None
    return isinstance(after, Unreadable) and after.taken_back != former


def serves_differently(change: Change) -> bool:
    """A pod came, went, became ready or is so no more, or got an address."""
    return _serving(change.old) != _serving(change.new)


def has_other_trouble(change: Change) -> bool:
    """A pod or a Deployment is in other trouble, and its pool has no engine that could answer."""
    key = pool_key(change)
    return change_of_value(change) and key is not None and not change.world.facts(key.namespace, key.name).ready


def opens_or_closes(change: Change) -> bool:
    """A Deployment has its first ready pod, or its last one is gone."""
    before, after = ((each.value.ready > 0) if each is not None else False for each in (change.old, change.new))
    return before != after


def renews_its_pods(change: Change) -> bool:
    """A Deployment's pods bring tokens or don't, or the last of those that don't is gone."""
    before, after = (
        (each.value.brings_tokens, each.value.seen and each.value.updated == each.value.current == each.value.wanted)
        if each is not None
        else (False, False)
        for each in (change.old, change.new)
    )
    return before != after


def change_of_value(change: Change) -> bool:
    """What is read out of it differs."""
    return (change.old.value if change.old else None) != (change.new.value if change.new else None)


def reports_of_its_pod(change: Change) -> bool:
    """An agent says something else of its pod or of its engine."""
    return _pod_part(change.old) != _pod_part(change.new)


def stands_differently(change: Change) -> bool:
    """A miner says something else of its place on the subnet, or of requests that no engine is there for."""
    return _miner_part(change.old) != _miner_part(change.new)


def sees_differently(change: Change) -> bool:
    """A gateway says something else of its subnet, or says the same anew: what it said long ago would not count."""
    return _gateway_part(change.old) != _gateway_part(change.new)


def hears_or_not(change: Change) -> bool:
    """An engine's chat template takes conversations, or does so no more."""
    before, after = (_template_refusal(each) for each in (change.old, change.new))
    return before != after


def starts_or_ends(change: Change) -> bool:
    """A run came, started, ended or went."""
    before, after = (status_of(each) for each in (change.old, change.new))
    missing = change.old is None or change.new is None
    return missing or any(before.get(each) != after.get(each) for each in ("completionTime", "startTime"))


_SHARED: Final = ("startTime", "completionTime", "artifact", "trainer", "trains", "examiner", "examines")
"""Fields of a run's status that those look at with which it shares a Job."""


def shares_differently(change: Change) -> bool:
    """A run came, went, or got to where those must hear of it that share a Job with it."""
    before, after = (status_of(each) for each in (change.old, change.new))
    missing = change.old is None or change.new is None
    going = "deletionTimestamp" in change.entry.manifest["metadata"]
    return missing or going or any(before.get(each) != after.get(each) for each in _SHARED)


def takes_others_along(change: Change) -> bool:
    """A run that starts takes others out of the line."""
    before, after = (status_of(each).get("trains") for each in (change.old, change.new))
    return bool(after) and before != after


def comes_or_goes(change: Change) -> bool:
    """It is made or deleted."""
    return change.old is None or change.new is None


_OF_ROUND: Final = ("startTime", "completionTime", "resultsDigest", "weights", "failure", "validatorUID")
"""Fields of a round's status that its validator and the rounds beside it look at."""


def rounds_on(change: Change) -> bool:
    """A round came, went, started or ended, or something became of its weights."""
    before, after = (status_of(each) for each in (change.old, change.new))
    missing = change.old is None or change.new is None
    return missing or any(before.get(each) != after.get(each) for each in _OF_ROUND)


def leaves_a_place(change: Change) -> bool:
    """A run that had not ended ended or went, or waits again, or in another pool."""
    if change.old is None or "completionTime" in status_of(change.old):
        return False
    if change.new is None or "completionTime" in status_of(change.new):
        return True
    if "startTime" in status_of(change.old) and "startTime" not in status_of(change.new):
        return True
    before, after = (status_of(each).get("pool") for each in (change.old, change.new))
    return before is not None and before != after


def _answering(entry: Entry | None) -> object:
    value = entry.value if entry is not None else None
    if isinstance(value, Twin):
        return value.uid, value.deleted, value.spec.doctor, may_answer(value)
    return value


def _serving(entry: Entry | None) -> object:
    pod = entry.value if entry is not None else None
    return (pod.uid, pod.ready, pod.leaving, pod.ip) if isinstance(pod, PodFacts) else None


def _pod_part(entry: Entry | None) -> object:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return (report.pod, report.ready, report.draining, report.engine) if report is not None else None


def _miner_part(entry: Entry | None) -> object:
    return entry.value.miner if entry is not None and isinstance(entry.value, Report) else None


def _gateway_part(entry: Entry | None) -> object:
    return entry.value.gateway if entry is not None and isinstance(entry.value, Report) else None


def _template_refusal(entry: Entry | None) -> str | None:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return report.engine.template_refusal if report is not None else None
