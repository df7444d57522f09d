"""One validator: gather → plan → apply → report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from bettertherapy_api import names
from bettertherapy_api.validator import ValidatorStatus
from twin_operator.domain.answering import KnownTwin, fitting, kept, known_twin
from twin_operator.domain.appearances import conditions_said
from twin_operator.domain.bounds import Bounds, validator_out_of_bounds
from twin_operator.domain.objects import Round, Twin, Unreadable, Validator
from twin_operator.domain.reasons import Reason
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine import metrics
from twin_operator.engine.apply import ApplyOutcome, Owner, Refusal
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.reconcile import Reconciler, Report, Tools
from twin_operator.engine.resources import CONFIG_MAP, CRON_JOB, Key, Manifest
from twin_operator.engine.status import StatusFields
from twin_operator.engine.store import Entry
from twin_operator.engine.times import moment
from twin_operator.kinds.resources import DOCTOR_TWIN, VALIDATOR, VALIDATOR_ROUND
from twin_operator.kinds.validator.facts import facts_of
from twin_operator.kinds.validator.made_once import MadeOnce
from twin_operator.kinds.validator.notices import validator_notices
from twin_operator.kinds.validator.plan import PODS_OF, Gathered, plan_children, plan_status
from twin_operator.kinds.validator.rounds import RoundsSeen, next_round, too_many
from twin_operator.kinds.validator.subnet import sight
from twin_operator.kinds.validator.twins_configmap import twins_in
from twin_operator.kinds.watched import OF_VALIDATOR, OWNER, ROUNDS
from twin_operator.settings import Images


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of the children."""

    gathered: Gathered
    """What is observed after they were applied: it is looked at again before anything is said."""
    outcome: ApplyOutcome
    look_again: float | None
    """Seconds after which a Secret may have come or gone."""


class ValidatorReconciler(Reconciler[Gathered, tuple[Manifest, ...], Applied]):
    """Brings Validators to what their specs ask."""

    kind = VALIDATOR.kind
    fields = StatusFields.of(ValidatorStatus, conditions=conditions_said("Validator"))

    def __init__(self, tools: Tools, *, images: Images, bounds: Bounds | None = None) -> None:
        super().__init__(tools)
        self._images = images
        self._bounds = bounds or Bounds()
        self._made_once = MadeOnce(tools.api)

    def gone(self, entry: Entry) -> None:
        """Forget what was known of its Secrets."""
        self._made_once.forget(entry.manifest["metadata"]["uid"])
        _forget(entry.key.namespace, entry.key.name)

    def unreadable(self, entry: Entry) -> Sequence[Condition] | None:
        """Say of a validator that can't be read that its children stay as they are."""
        return conditions_of(self.kind, entry.value) if isinstance(entry.value, Unreadable) else None

    async def gather(self, entry: Entry) -> Gathered:
        """Collect what is observed of the validator, and the twins that it answers for."""
        return self._gather(entry.value)

    def _gather(self, validator: Validator) -> Gathered:
        told = self.store.entry(_twins_key(validator))
        known = (
            told.derived((twins_in, validator.uid), lambda: twins_in(told.manifest, owner=validator.uid))
            if told is not None
            else {}
        )
        entries = self.store.find_any(OF_VALIDATOR, (validator.namespace, validator.name))
        twins, unread = self._twins(validator, known)
        facts, now = facts_of(validator, entries), datetime.now(UTC)
        return Gathered(
            validator=validator, facts=facts, seen=sight(validator, facts, now=now),
            rounds=RoundsSeen(
                rounds=self._rounds(validator), making=facts.making_rounds, next_at=next_round(validator, now=now)
            ),
            answering=fitting(twins, known=known), unread=unread, told=len(known),
            out_of_bounds=validator_out_of_bounds(validator, self._bounds, self._images),
        )  # fmt: skip

    def _rounds(self, validator: Validator) -> tuple[Round, ...]:
        """Return the rounds of this very validator, oldest first."""
        found = self.store.find(ROUNDS, (validator.namespace, validator.name))
        own = [each.value for each in found if isinstance(each.value, Round) and each.value.is_of_uid(validator.uid)]
        return tuple(sorted(own, key=lambda each: (each.created, each.name)))

    def _twins(self, validator: Validator, known: dict[str, KnownTwin]) -> tuple[list[KnownTwin], tuple[str, ...]]:
        """Return what is to be told of the twins, and the names of those of which nothing can be."""
        twins, unread = [], []
        with_pages = validator.spec.gateway.pages is not None
        for entry in self.store.of_kind(DOCTOR_TWIN.kind, namespace=validator.namespace):
            metadata = entry.manifest["metadata"]
            if "deletionTimestamp" in metadata:
                continue
            if isinstance(twin := entry.value, Twin):
                twins.append(entry.derived((known_twin, with_pages), partial(known_twin, twin, with_pages=with_pages)))
            elif isinstance(twin, Unreadable) and metadata["uid"] in known:
                twins.append(kept(known[metadata["uid"]], twin, with_pages=with_pages))
            else:
                unread.append(metadata["name"])
        return twins, tuple(sorted(unread))

    def plan(self, gathered: Gathered, now: datetime) -> tuple[Manifest, ...]:
        """Return the validator's children."""
        return plan_children(gathered, self._images)

    async def apply(self, entry: Entry, gathered: Gathered, plan: tuple[Manifest, ...]) -> Applied:
        """Make what is made once, then apply each child by itself.

        A pod that comes before its Secrets would wait for the kubelet to try again, up to two minutes.
        """
        owner = Owner.of(entry.manifest)
        standing = await self._made_once.ensure(gathered.validator, owner)
        existing = [each.manifest for each in self.store.find(OWNER, owner.uid)]

        def keep(key: Key) -> bool:
            return gathered.out_of_bounds is not None and key.kind in PODS_OF

        outcome = await self.tools.applier.apply(owner=owner, wanted=plan, existing=existing, keep=keep)
        outcome = replace(outcome, failures=(*outcome.failures, *standing.failed))
        twins = [each for each in outcome.refusals if each.key == _twins_key(gathered.validator)]
        datasets, rounds = (
            [each for each in outcome.refusals if each.key.kind == CRON_JOB.kind and each.key.name == name]
            for name in (names.datasets_name(entry.key.name), names.rounds_name(entry.key.name))
        )
        for made in too_many(gathered.validator, gathered.rounds.rounds):
            await self.tools.api.delete(VALIDATOR_ROUND, namespace=made.namespace, name=made.name, uid=made.uid)
        again = replace(
            self._gather(gathered.validator), missing=standing.missing, refused=_found(outcome.refusals),
            twins_refused=_found(twins), datasets_refused=_found(datasets),
            rounds_refused=_found(rounds),
        )  # fmt: skip
        _measure(again)
        return Applied(gathered=again, outcome=outcome, look_again=standing.look_again)

    def report(self, gathered: Gathered, plan: tuple[Manifest, ...], outcome: Applied) -> Report:
        """Say how the validator is."""
        status, conditions = plan_status(outcome.gathered, self._images)
        again = outcome.look_again
        return Report(
            status=status, conditions=conditions, notices=validator_notices, outcome=outcome.outcome,
            wake_at=(
                datetime.now(UTC) + timedelta(seconds=again) if again is not None else None,
                outcome.gathered.seen.stale_at, outcome.gathered.rounds.next_at,
            ),
        )  # fmt: skip


def _measure(gathered: Gathered) -> None:
    """Let an alert tell that conversations have not gone to the fine-tunes for too long."""
    validator, written = gathered.validator, gathered.facts.datasets.written
    if validator.spec.fine_tune_tasks is None or written is None:
        _forget(validator.namespace, validator.name)
        return
    series = metrics.DATASETS_WRITTEN.labels(namespace=validator.namespace, validator=validator.name)
    series.set(moment(written).timestamp())


def _forget(namespace: str, name: str) -> None:
    with suppress(KeyError):
        metrics.DATASETS_WRITTEN.remove(namespace, name)


def _twins_key(validator: Validator) -> Key:
    return Key(CONFIG_MAP.kind, validator.namespace, names.gateway_twins_name(validator.name))


def _found(refusals: Sequence[Refusal]) -> Finding | None:
    """Return which of the validator's objects can't be as they should be; the others are."""
    if not refusals:
        return None
    first = refusals[0]
    others = f" (and {len(refusals) - 1} more objects)" if len(refusals) > 1 else ""
    return Finding(Reason.CHILD_CONFLICT if first.foreign else Reason.CHILDREN_REFUSED, first.message + others)
