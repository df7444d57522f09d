"""A round out of the ledger as an operator reads it: every miner, and down to question, answer and source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy import select

from bettertherapy_api.round_view import MAX_TASKS, AnswerView, Evidence, MinerLine, MinerView, RoundView, TaskView
from neurons.ledger import Ledger, schema
from neurons.ledger.records import RoundAnswer, RoundItem, Score, TaskState
from neurons.ledger.rounds import RoundRows, TaskStates, round_rows, tasks, tasks_by_id
from neurons.validator.rounds.marks import CLARITY, WORTH
from neurons.validator.rounds.reporting import moment
from neurons.validator.rounds.rewards import WHOLE
from neurons.validator.rounds.steps import MILLI, Step, key, miner_of

_VERDICTS: Final[Mapping[str, Literal["supported", "contradicted", "unchecked", "met", "unmet"]]] = {
    "Supported": "supported", "Contradicted": "contradicted", "Unchecked": "unchecked", "Met": "met", "NotMet": "unmet",
}  # fmt: skip
_MOST_EVIDENCE: Final = 64
_TASKS_MS: Final = 14 * 24 * 3600 * 1000


class LedgerRounds:
    """Reads rounds by their names; of several with one name the newest is meant."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def round(self, name: str) -> RoundView | None:
        """Return a round with all its miners, the best first; None without one. Raises LedgerDown."""
        rows = await self._rows(name)
        return None if rows is None else _round_view(rows)

    async def miner(self, name: str, hotkey: str) -> MinerView | None:
        """Return what one miner answered in a round, and why that was scored so; None where there is none such."""
        rows = await self._rows(name)
        if rows is None:
            return None
        line = next((each for each in _lines(rows) if each.hotkey == hotkey), None)
        if line is None:
            return None
        items = {each.item_id: each for each in rows.items}
        scores: defaultdict[str, dict[str, Score]] = defaultdict(dict)
        for each in rows.scores:
            if each.item_id is not None and each.miner.hotkey == hotkey:
                scores[each.item_id][each.part] = each
        answers = [each for each in rows.answers if each.miner.hotkey == hotkey and each.item_id in items]
        return MinerView(
            round=name,
            miner=line,
            answers=tuple(
                _answer(items[each.item_id], each, scores[each.item_id])
                for each in sorted(answers, key=lambda each: (each.at_ms, each.answer_id))
            ),
            tasks=await self._tasks(rows, hotkey),
        )

    async def _tasks(self, rows: RoundRows, hotkey: str) -> tuple[TaskView, ...]:
        """Return the tasks that counted for the miner in a round, and those that it handed out."""
        begun, own = rows.round, rows.steps.get(Step.TASKS.value)
        if begun is None:
            return ()
        until_ms = (int(own.evidence["at"]) if own is not None else begun.at_ms) + 1
        found = await tasks(self._ledger.database, since_ms=max(0, begun.at_ms - _TASKS_MS), until_ms=until_ms)
        ids = [each.task.task_id for each in found if each.task.miner.hotkey == hotkey]
        known = await tasks_by_id(self._ledger.database, ids)  # with what became of them since
        return tuple(_task(each) for each in sorted(known, key=lambda each: -each.task.at_ms))[:MAX_TASKS]

    async def _rows(self, name: str) -> RoundRows | None:
        table = schema.ROUNDS
        statement = (
            select(table.c.round_id)
            .where(table.c.name == name)
            .order_by(table.c.at_ms.desc(), table.c.round_id.desc())
            .limit(1)
        )
        async with self._ledger.database.reading() as connection:
            found = (await connection.execute(statement)).scalar_one_or_none()
        return None if found is None else await round_rows(self._ledger.database, found)


def _task(states: TaskStates) -> TaskView:
    last = states.events[-1] if states.events else None
    adapter = next((each.adapter_digest for each in reversed(states.events) if each.adapter_digest), None)
    return TaskView(
        task=states.task.task_id,
        twin=states.task.twin.name,
        state=(last.state if last else TaskState.OFFERED).value,
        adapter=adapter,
        detail=last.detail if last else "",
        at=moment(last.at_ms if last else states.task.at_ms),
    )


def _round_view(rows: RoundRows) -> RoundView:
    begun, finished = rows.round, rows.finished
    assert begun is not None  # noqa: S101 - it was found by its row
    plan = rows.steps.get(Step.PLAN.value)
    order = plan.evidence["order"] if plan is not None else {}
    return RoundView(
        name=begun.name,
        uid=str(order.get("uid", begun.round_id)),
        validator=begun.validator.hotkey,
        seed=begun.seed,
        items=len(rows.items),
        start_time=moment(begun.at_ms),
        completion_time=None if finished is None else moment(finished.at_ms),
        results_digest=None if finished is None else finished.results_digest,
        challenge_digest=begun.challenge_digest,
        miners=_lines(rows),
    )


def _lines(rows: RoundRows) -> tuple[MinerLine, ...]:
    """Return the miners as the results have them; none before there are results."""
    results = rows.steps.get(Step.RESULTS.value)
    if results is None:
        return ()
    weights = results.evidence["weights"]["of"]
    return tuple(_line(each, weights) for each in results.evidence["miners"])


def _line(outcome: Mapping[str, Any], weights: Mapping[str, int]) -> MinerLine:
    miner = miner_of(outcome["miner"])
    return MinerLine(
        uid=outcome["uid"],
        hotkey=miner.hotkey,
        coldkey=outcome["coldkey"] or None,
        registered_at=miner.registered_block,
        score=_percent(outcome["moving"]),
        correctness=_percent(outcome["correctness"]),
        clarity=_percent(outcome["clarity"]),
        speed=_percent(outcome["speed"]),
        satisfaction=_percent(outcome["satisfaction"]),
        participation=_percent(outcome["participation"]),
        weight=weights.get(key(miner), 0) / WHOLE,
        answered=outcome["answered"],
        asked=outcome["asked"],
        notes=tuple(outcome["notes"]),
    )


def _answer(item: RoundItem, answer: RoundAnswer, scores: Mapping[str, Score]) -> AnswerView:
    worth, clarity = scores.get(WORTH), scores.get(CLARITY)
    how = str(worth.evidence.get("how", "")) if worth is not None else ""
    return AnswerView(
        item=item.item_id,
        twin=item.twin.name,
        kind=item.kind,
        question=item.text.text,
        answer=None if answer.text is None else answer.text.text,
        expected=_expected(item),
        score=_percent(worth.value_milli) if worth is not None else None,
        clarity=_percent(clarity.value_milli) if clarity is not None else None,
        how=how or answer.failure or "not scored",
        milliseconds=float(answer.latency_ms),
        evidence=_evidence(item, worth.evidence if worth is not None else {})[:_MOST_EVIDENCE],
    )


def _expected(item: RoundItem) -> str | None:
    challenge = item.reference.get("challenge")
    if not isinstance(challenge, Mapping):
        return item.reference.get("corrected")
    match challenge["kind"]:
        case "choice":
            return str(challenge["options"][challenge["answer"]])
        case "gold":
            return str(challenge["gold"])
        case _:
            return "\n".join(f"{each['points']:+d} {_criterion(each)}" for each in challenge["criteria"])


def _criterion(criterion: Mapping[str, Any]) -> str:
    return str(criterion.get("text") or f"says one of: {criterion.get('any')}")


def _evidence(item: RoundItem, found: Mapping[str, Any]) -> tuple[Evidence, ...]:
    facts = tuple(
        Evidence(
            claim=each["claim"], verdict=_VERDICTS.get(each["standing"], "unchecked"), source=each["source"] or None,
            url=each["place"], passage=each["passage"] or each["message"],
        )
        for each in found.get("facts", ())
    )  # fmt: skip
    challenge = item.reference.get("challenge")
    criteria = challenge.get("criteria", ()) if isinstance(challenge, Mapping) else ()
    judged = tuple(
        Evidence(
            claim=_criterion(criterion), verdict=_VERDICTS.get(each["outcome"], "unchecked"), source="judge",
            passage=" / ".join(reason for reason in each["reasons"] if reason) or None,
        )
        for criterion, each in zip(criteria, found.get("judged", ()), strict=False)
    )  # fmt: skip
    return facts + judged


def _percent(value: int | None) -> float | None:
    return None if value is None else 100 * value / MILLI
