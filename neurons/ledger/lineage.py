"""Which adapters learned from certain lines, and from which ancestor each is to be trained again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from neurons.ledger.records import Training
from neurons.ledger.views import DatasetLine, Retraining


def to_retrain(trainings: Sequence[Training], lines: Iterable[DatasetLine]) -> tuple[Retraining, ...]:
    """Walk from the lines to the adapters trained on them, and on to all that descend from these.

    An adapter is known by its digest, so that two runs that made the same one are one. One that was trained on a
    dataset that the ledger doesn't know, line by line or as a whole, counts as trained on the lines of its twin, and
    the result says that this isn't certain. A parent that nothing is known of (an adapter set by hand) is clean.
    """
    lines = tuple(lines)
    if not lines:
        return ()
    digests = {line.line_digest for line in lines}
    datasets = {line.dataset_digest for line in lines}
    twins = {line.twin_uid for line in lines}
    certain: dict[str, bool] = {}
    for each in trainings:
        learned = _learned(each, digests=digests, datasets=datasets, twins=twins)
        if learned is not None:
            certain[each.adapter_digest] = certain.get(each.adapter_digest, False) or learned
    _inherit(trainings, certain)
    by_adapter = {each.adapter_digest: each for each in sorted(trainings, key=_order, reverse=True)}
    return tuple(
        Retraining(
            adapter_digest=adapter,
            twin_uid=training.twin.uid,
            twin_name=training.twin.name,
            run=training.run,
            clean_ancestor=_clean_ancestor(training, by_adapter, certain.keys()),
            certain=certain[adapter],
        )
        for adapter, training in sorted(by_adapter.items(), key=lambda each: _order(each[1]))
        if adapter in certain
    )


def _order(training: Training) -> tuple[int, str]:
    return training.at_ms, training.adapter_digest


def _learned(
    training: Training, *, digests: Collection[str], datasets: Collection[str], twins: Collection[str]
) -> bool | None:
    """Return None for one that learned none of the lines, else whether that is certain."""
    if training.dataset_digest in datasets and training.line_digests is None:
        return True
    if training.line_digests is not None:
        return True if not digests.isdisjoint(training.line_digests) else None  # type: ignore[attr-defined]
    return False if training.twin.uid in twins else None


def _inherit(trainings: Sequence[Training], certain: dict[str, bool]) -> None:
    """Add every descendant of what is in `certain`."""
    children: dict[str, list[Training]] = {}
    for each in trainings:
        if each.parent_digest is not None:
            children.setdefault(each.parent_digest, []).append(each)
    waiting = list(certain)
    while waiting:
        parent = waiting.pop()
        for child in children.get(parent, ()):
            before = certain.get(child.adapter_digest)
            now = certain[parent] or before is True
            if before is None or now != before:
                certain[child.adapter_digest] = now
                waiting.append(child.adapter_digest)


def _clean_ancestor(training: Training, by_adapter: Mapping[str, Training], tainted: Collection[str]) -> str | None:
    seen: set[str] = set()
    parent = training.parent_digest
    while parent is not None and parent in tainted and parent not in seen:
        seen.add(parent)
        parent = by_adapter[parent].parent_digest
    return None if parent in tainted else parent
