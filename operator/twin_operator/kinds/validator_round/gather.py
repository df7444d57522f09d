"""Collects what a round's plan depends on, from the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from bettertherapy_api.round_progress import Candidate, ExaminedTask
from twin_operator.domain.objects import Round, Run, Twin, Unreadable, Validator
from twin_operator.domain.reasons import Reason
from twin_operator.domain.training_pool import choose_pool
from twin_operator.engine.apply import reported_by
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Key, Manifest
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN, VALIDATOR_ROUND
from twin_operator.kinds.validator_round.examinations import (
    build_examination_run,
    examination_run_name,
    examined,
    examines,
    may_be_examined,
)
from twin_operator.kinds.validator_round.facts import RoundFacts, read_facts
from twin_operator.kinds.validator_round.plan import RoundView
from twin_operator.kinds.watched import OF_ROUND
from twin_operator.kinds.world import World


def gather(world: World, made: Round) -> RoundView:
    """Return the round with its validator (the very one that it was made for) and what is observed of it."""
    named = world.validator(made.namespace, made.validator)
    validator = named if isinstance(named, Validator) and made.is_of_uid(named.uid) else None
    facts = facts_of_round(world, made)
    unwritten = validator is not None and made.started and not made.ended and facts.order is None
    return RoundView(
        round=made, validator=validator, obstacle=_obstacle(world, made, named, validator), facts=facts,
        unreadable=isinstance(named, Unreadable),
        examined=_examined(world, made, validator) if validator is not None and unwritten else (),
        examinations=tuple(_examinations(world, validator, facts)) if validator is not None else (),
        occupied=tuple(_occupied(world, validator, facts)) if validator is not None else (),
        named_last=validator is not None and bool(_candidates(facts)) and _is_last(world, made, validator),
    )  # fmt: skip


def _is_last(world: World, made: Round, validator: Validator) -> bool:
    """Tell whether no round of the validator is complete that started later."""
    return not any(
        other.complete and (other.status.start_time or "", other.name) > (made.status.start_time or "", made.name)
        for other in world.rounds_naming(made.namespace, validator.name)
        if other.uid != made.uid and other.is_of_uid(validator.uid)
    )


def _examined(world: World, made: Round, validator: Validator) -> tuple[ExaminedTask, ...]:
    entries = world.store.of_kind(FINE_TUNE_RUN.kind)
    runs = [each.value for each in entries if isinstance(each.value, Run) and each.value.namespace == made.namespace]
    named = [
        (candidate, _twin_of(world, made.namespace, candidate))
        for other in world.rounds_naming(made.namespace, validator.name)
        if other.uid != made.uid and other.is_of_uid(validator.uid)
        for candidate in _candidates(facts_of_round(world, other))
    ]
    return examined(runs, named, validator=validator.name)


def _examinations(world: World, validator: Validator, facts: RoundFacts) -> Iterator[Manifest]:
    """Yield the runs to make for what a round named: of this cluster's twins, as long as there is time."""
    now = datetime.now(UTC)
    for candidate in _candidates(facts):
        twin = _twin_of(world, validator.namespace, candidate)
        if not isinstance(twin, Twin) or twin.deleted or not may_be_examined(candidate, now=now):
            continue
        if world.store.get(_run_key(validator, candidate)) is not None:
            continue
        pool = choose_pool(twin, list(world.pool_refs(validator.namespace)))
        if (made := build_examination_run(candidate, validator, twin, pool)) is not None:
            yield made


def _occupied(world: World, validator: Validator, facts: RoundFacts) -> Iterator[str]:
    """Yield the names of runs that stand where an examination should, and examine something else."""
    for candidate in _candidates(facts):
        key = _run_key(validator, candidate)
        run = world.store.value(key)
        if isinstance(run, Run) and not examines(run, candidate, validator=validator.name):
            yield key.name


def _run_key(validator: Validator, candidate: Candidate) -> Key:
    return Key(FINE_TUNE_RUN.kind, validator.namespace, examination_run_name(candidate.task))


def _twin_of(world: World, namespace: str, candidate: Candidate) -> Twin | Unreadable | None:
    """Return the very twin that a candidate is for; None where it isn't of this namespace."""
    entry = world.store.entry(Key(DOCTOR_TWIN.kind, namespace, candidate.twin))
    if entry is None or entry.manifest["metadata"]["uid"] != candidate.twin_uid:
        return None
    return entry.value if isinstance(entry.value, (Twin, Unreadable)) else None


def _candidates(facts: RoundFacts) -> tuple[Candidate, ...]:
    return facts.progress.candidates if facts.progress is not None else ()


def facts_of_round(world: World, made: Round) -> RoundFacts:
    """Return what is observed of the round's own objects: an earlier round of its name has left others."""
    things = [entry.manifest for entry in world.store.find(OF_ROUND, (made.namespace, made.name))]
    own = [thing for thing in things if reported_by(thing, made.uid, kind=VALIDATOR_ROUND)]
    jobs = {thing["metadata"]["uid"] for thing in own if thing["kind"] == "Job"}
    return read_facts(made, [thing for thing in things if thing in own or _is_of(thing, jobs)])


def _is_of(thing: Manifest, jobs: set[str]) -> bool:
    return any(each["uid"] in jobs for each in thing["metadata"].get("ownerReferences") or [])


def _obstacle(
    world: World, made: Round, named: Validator | Unreadable | None, validator: Validator | None
) -> Finding | None:
    """Return why the round can't be held at the moment, or must wait; of no account once it has started."""
    if named is None:
        said = f"Validator {made.validator} does not exist in this namespace: create it, or delete the round"
        return Finding(Reason.VALIDATOR_NOT_FOUND, said)
    if isinstance(named, Unreadable):
        said = f"Validator {made.validator} can't be read by this operator: see its condition Ready"
        return Finding(Reason.OWNER_UNREADABLE, said)
    if validator is None:
        said = (
            f"the Validator {made.validator} that this round was made for is gone, and another bears its name: create "
            "the round again if it is for this one, else delete it"
        )
        return Finding(Reason.VALIDATOR_IS_ANOTHER, said)
    for other in world.rounds_naming(made.namespace, made.validator):
        if other.uid == made.uid or other.ended or not other.is_of_uid(validator.uid):
            continue
        if other.started or (other.created, other.name) < (made.created, made.name):
            said = f"round {other.name} goes first: a validator holds one round at a time"
            return Finding(Reason.ROUND_BUSY, said)
    return None
