"""A round, from its questions to its results; begun again after whatever ended it, it goes on where it was.

Every step's outcome is written into the ledger before the next begins, under ids that follow from the round's UID: what
is there already is not done again, and what is done twice is written once. The results come out of the ledger alone
(`conclude`), so that whoever has it gets the same digest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bettertherapy_api.round_progress import Candidate, RoundOrder, RoundStage
from neurons.ledger import Ledger
from neurons.ledger.records import AnyRecord, Miner, RoundAnswer, RoundItem, TaskState, Twin
from neurons.ledger.rounds import RoundRows, TaskStates, felt, round_rows, scores_of, tasks
from neurons.validator.rounds import planning, reporting
from neurons.validator.rounds.asking import Examiner, not_reached
from neurons.validator.rounds.challenges import ChallengeError, ChallengesChanged, ChallengeSet
from neurons.validator.rounds.conclude import FORMAT, MOVING, Results, conclude, records_of
from neurons.validator.rounds.drawing import draw_times, shuffled
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.examining import VERDICTS, candidates, credits_of
from neurons.validator.rounds.feedback import satisfaction
from neurons.validator.rounds.handing_out import HandedOut, HandingOut
from neurons.validator.rounds.marks import WORTH
from neurons.validator.rounds.measures import measures, on_time
from neurons.validator.rounds.participation import participation
from neurons.validator.rounds.progress import Progress
from neurons.validator.rounds.prometheus import Readings
from neurons.validator.rounds.scoring import Canaries, Scorer, regrade
from neurons.validator.rounds.steps import (
    Attendance,
    Registered,
    Step,
    by_key,
    key,
    milli,
    miner_of,
    step_record,
)
from neurons.validator.rounds.subnet import Subnet
from neurons.validator.rounds.tasks import TASK_DAYS, disallowed
from neurons.validator.rounds.together import together
from neurons.validator.rounds.weights_check import Likelihoods, Measured, judge_weights

log = logging.getLogger(__name__)

FELT_DAYS: Final = 30
"""Ratings and comparisons of so many days count."""
ITEMS_AT_ONCE: Final = 4
"""Questions that are under way at once, each to all miners of its twin."""
SAMPLE: Final = 8
"""Answers of a miner whose log-probabilities are recomputed."""
_DAY_MS: Final = 24 * 3600 * 1000


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a round works with."""

    ledger: Ledger
    subnet: Subnet
    examiner: Examiner
    scorer: Scorer
    speeds: Callable[[], Awaitable[Readings]]
    challenges: Callable[[], ChallengeSet]
    validator: Callable[[Registered], Miner]
    """Who this validator is on the subnet; raises RoundError where it isn't registered."""
    trust: Callable[[], Awaitable[float | None]]
    """The chain's word on how far the weights that were last set agree with the consensus."""
    twins: Callable[[], Mapping[str, Twin]]
    """The twins that may be asked for, by name, after the subnet was looked at."""
    likelihoods: Likelihoods | None = None
    handing_out: HandingOut | None = None
    """None: no tasks are handed out, whatever the order says."""
    ask_seconds: float = 0.0
    """Over how long the questions are spread."""
    now_ms: Callable[[], int] = now_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class RoundRun:
    """One attempt at a round."""

    def __init__(self, order: RoundOrder, means: Means, progress: Progress) -> None:
        self._order, self._means, self._progress = order, means, progress
        self._id = planning.round_id_of(order.uid)
        self._started_ms = int(_moment(order.started_at).timestamp() * 1000)

    async def run(self) -> Results:
        """Hold the round, or what is left of it; returns its results.

        Raises:
            RoundError: it can't go on.
            LedgerError: the ledger is away, or refuses.
        """
        rows = await self._rows()
        if rows.finished is None:
            rows = await self._planned(rows)
            rows = await self._asked(rows)
            rows = await self._scored(rows)
            await self._progress.tell(stage=RoundStage.REWARD)
            results = conclude(rows)
            await self._write(*records_of(results, round_id=self._id, at_ms=self._means.now_ms()))
            rows = await self._rows()
        _check_rules(rows)
        results = conclude(rows)
        finished = rows.finished
        if finished is None or finished.results_digest != results.digest:
            raise RoundError(
                "ResultsDiffer", "the stored results aren't what the stored answers give: somebody changed the ledger",
                retryable=False,
            )  # fmt: skip
        told = reporting.of_results(results, rows)
        if (handed := await self._handed_out(rows, results, told)) is not None:
            told["tasks"] = {
                "made": handed.made, "sent": handed.sent, "accepted": handed.accepted, **await self._taken_in(),
            }  # fmt: skip
            told["candidates"] = await self._candidates()
        await self._progress.tell(**told)
        return results

    async def _handed_out(self, rows: RoundRows, results: Results, told: Mapping[str, Any]) -> HandedOut | None:
        """Hand out the round's fine-tune tasks: what was found is stored by then, and isn't changed by it."""
        handing = self._means.handing_out
        if self._order.tasks is None or handing is None:
            return None
        await self._progress.tell(**{**told, "stage": RoundStage.TASKS})
        try:
            await self._means.subnet.look()  # who is there now; in a round begun again nobody has looked yet
        except RoundError as error:
            log.warning("who is there is not known anew: %s", error)
        return await handing.hand_out(self._order, rows, results, self._means.twins(), started_ms=self._started_ms)

    async def _taken_in(self) -> dict[str, int]:
        """Return how many verdicts on earlier tasks this round took in, by what `TasksReport` calls them."""
        examined = {each.task for each in self._order.examined}
        events = [event for each in await self._offered() for event in each.events]
        own = [each for each in events if each.adapter_digest is not None and each.at_ms == self._started_ms - 1]
        return {
            "examined": sum(each.task_id in examined and each.state in VERDICTS for each in own),
            "passed": sum(each.state is TaskState.PASSED for each in own),
            "disallowed": sum(each.state is TaskState.DISALLOWED for each in own),
        }

    async def _candidates(self) -> tuple[Candidate, ...]:
        """Return the versions that wait for the validator's examination, as they stand at the round's end."""
        wanted, handing = self._order.tasks, self._means.handing_out
        if wanted is None or handing is None or not wanted.examine:
            return ()
        now = self._means.now_ms()
        offered = await tasks(
            self._means.ledger.database, since_ms=max(0, self._started_ms - TASK_DAYS * _DAY_MS), until_ms=now + 1
        )
        return await candidates(self._means.ledger, handing.keypair, offered, base=wanted.url, at_ms=now)

    async def _offered(self) -> tuple[TaskStates, ...]:
        until = self._started_ms
        since = max(0, until - TASK_DAYS * _DAY_MS)
        return await tasks(self._means.ledger.database, since_ms=since, until_ms=until)

    async def _planned(self, rows: RoundRows) -> RoundRows:
        await self._progress.tell(stage=RoundStage.PREPARE)
        if Step.PLAN.value in rows.steps:
            await self._means.subnet.look()
            return await self._told(rows)
        try:
            challenges = self._means.challenges()
        except ChallengesChanged as error:
            raise RoundError("ChallengesChanged", str(error), retryable=False) from error
        except ChallengeError as error:
            raise RoundError("ChallengesInvalid", str(error), retryable=False) from error
        registered = await self._means.subnet.look()
        validator = self._means.validator(registered)
        twins = self._means.twins()
        if self._order.twins is not None and twins and not set(twins) & set(self._order.twins):
            raise RoundError(
                "NoTwins", "none of the twins that the round names is served by a miner and answered for here",
                retryable=False,
            )  # fmt: skip
        wanted = [name for name in sorted(twins) if self._order.twins is None or name in self._order.twins]
        asked = [
            planning.TwinAsked(twins[name], tuple(sorted(self._means.subnet.serving(name), key=key))) for name in wanted
        ]
        planned = await planning.plan(
            self._means.ledger, self._order, challenges=challenges, asked=[each for each in asked if each.miners],
            registered=registered, validator=validator, addressed=self._means.subnet.addressed, at_ms=self._started_ms,
        )  # fmt: skip
        if any(each.miners for each in asked) and not planned.items:
            raise RoundError(
                "ChallengesInvalid", "the set of questions has none for these twins: name one that has", retryable=False
            )
        begun = planning.begun(self._order, validator, challenge_digest=challenges.digest, at_ms=self._started_ms)
        await self._write(*planned.records(begun))
        return await self._told(await self._rows())

    async def _told(self, rows: RoundRows) -> RoundRows:
        plan = rows.steps[Step.PLAN.value].evidence
        queried = len({word for words in plan["asked"].values() for word in words})
        await self._progress.tell(
            stage=RoundStage.ASK, start_time=self._order.started_at, items=len(rows.items),
            challenge_digest=plan["challengeDigest"], miners={"queried": queried},
        )  # fmt: skip
        return rows

    async def _asked(self, rows: RoundRows) -> RoundRows:
        if Step.ASKED.value in rows.steps:
            return rows
        plan = rows.steps[Step.PLAN.value].evidence
        by_item: Counter[str] = Counter(each.item_id for each in rows.answers)
        miners = {uid: [miner_of(word) for word in words] for uid, words in plan["asked"].items()}
        left_ms = self._started_ms + round(self._means.ask_seconds * 1000) - self._means.now_ms()
        window = min(self._means.ask_seconds, max(0.0, left_ms / 1000))
        at_once = asyncio.Semaphore(ITEMS_AT_ONCE)
        work = []
        for uid in sorted(miners):
            items = sorted((each for each in rows.items if each.twin.uid == uid), key=lambda each: each.item_id)
            # Of items that were asked before nothing is waited for.
            left = [each for each in items if by_item[each.item_id] < len(miners[uid])]
            work.append(self._ask_twin(uid, left, miners[uid], window, at_once))
        async with self._means.subnet.followed():
            await together(work)
        rows = await self._rows()
        owners = {each.miner: each.coldkey for each in Registered.of(plan["registered"]).entrants}
        attended = _attendance(rows, miners, owners)
        await self._write(step_record(self._id, Step.ASKED, attended, at_ms=self._means.now_ms()))
        return await self._rows()

    async def _ask_twin(
        self, uid: str, items: Sequence[RoundItem], miners: Sequence[Miner], window: float, at_once: asyncio.Semaphore
    ) -> None:
        async def ask(item: RoundItem, at: float) -> None:
            if at:
                await self._means.sleep(at)
            async with at_once:
                serving = self._means.subnet.serving(item.twin.name)
                there = [serving[miner] for miner in miners if miner in serving]
                answers = await self._means.examiner.ask(self._id, item, there)
                now = self._means.now_ms()
                answers += [not_reached(self._id, item, miner, at_ms=now) for miner in miners if miner not in serving]
                await self._write(*answers)

        times = draw_times(len(items), seed=self._order.seed, twin=uid, seconds=window)
        await together([ask(items[sending.place], sending.at) for sending in times])

    async def _scored(self, rows: RoundRows) -> RoundRows:
        await self._progress.tell(stage=RoundStage.SCORE)
        if Step.REGISTERED.value not in rows.steps:
            registered = await self._means.subnet.look()
            await self._step(Step.REGISTERED, registered.to_document())
        if Step.CANARIES.value not in rows.steps:
            await self._step(Step.CANARIES, (await self._means.scorer.canaries(_distinct(rows.items))).to_document())
        rows = await self._rows()
        canaries = Canaries.of(rows.steps[Step.CANARIES.value].evidence)
        await self._score_items(rows, _distrusted(canaries, rows.items))
        await self._measure(rows, canaries)
        return await self._rows()

    async def _score_items(self, rows: RoundRows, distrusted: frozenset[str]) -> None:
        answers: defaultdict[str, list[RoundAnswer]] = defaultdict(list)
        for each in rows.answers:
            answers[each.item_id].append(each)
        done = {each.item_id for each in rows.scores if each.part == WORTH}
        for item in sorted(rows.items, key=lambda each: each.item_id):
            if item.item_id in done or not any(each.text is not None for each in answers[item.item_id]):
                continue
            scores = await self._means.scorer.score(
                item, answers[item.item_id], distrusted=distrusted, at_ms=self._means.now_ms()
            )
            await self._write(*scores)

    async def _measure(self, rows: RoundRows, canaries: Canaries) -> None:
        ledger, until = self._means.ledger, self._started_ms
        if Step.SPEED.value not in rows.steps:
            readings = await self._means.speeds()
            of = by_key(
                (miner, (milli(each.value), round(each.median * 1000), round(each.asked)))
                for miner, each in readings.of.items()
            )
            await self._step(Step.SPEED, {"fresh": readings.fresh, "message": readings.message, "of": of})
        if Step.SATISFACTION.value not in rows.steps:
            said = satisfaction(
                await felt(ledger.database, since_ms=max(0, until - FELT_DAYS * _DAY_MS), until_ms=until)
            )
            found = by_key((miner, (milli(each.value), each.patients, each.pairs)) for miner, each in said.items())
            await self._step(Step.SATISFACTION, {"of": found})
        offered = await self._tasks_so_far()
        if Step.PARTICIPATION.value not in rows.steps:
            took = participation(offered, now_ms=until)
            found = by_key(
                (miner, (milli(each.value), each.offered, each.accepted, each.finished, each.passed))
                for miner, each in took.items()
            )
            await self._step(Step.PARTICIPATION, {"of": found})
        if Step.WEIGHTS_CHECK.value not in rows.steps:
            await self._step(Step.WEIGHTS_CHECK, {"of": await self._weights_checked(rows)})
        if Step.PRIOR.value not in rows.steps:
            await self._step(Step.PRIOR, {"of": await self._prior(rows)})
        if Step.MEASURES.value not in rows.steps:
            attendance = rows.steps[Step.ASKED.value].evidence["miners"]
            numbers = measures(
                canaries=canaries, reached=sum(counts[1] > 0 for counts in attendance.values()),
                addressed=max(len(attendance), int(rows.steps[Step.PLAN.value].evidence["addressed"])),
                trust=await self._means.trust(), tasks_on_time=on_time(offered),
            )  # fmt: skip
            await self._step(Step.MEASURES, numbers)

    async def _tasks_so_far(self) -> tuple[TaskStates, ...]:
        """Return the tasks of the last days; of those with an adapter that is no work of their miner's it is said, and
        of others what the validator's examination of them came to."""
        offered = await self._offered()
        at = self._started_ms - 1  # as of the round's moment, whenever it goes on
        if found := disallowed(offered, at_ms=at):
            await self._write(*found)
            offered = await self._offered()
        if found := credits_of(self._order.examined, offered, at_ms=at):
            await self._write(*found)
            offered = await self._offered()
        return offered

    async def _weights_checked(self, rows: RoundRows) -> dict[str, Any]:
        """Recompute the log-probabilities of some answers of each miner, in an order that nobody can foretell."""
        if self._means.likelihoods is None:
            return {}
        items = {each.item_id: each for each in rows.items}
        by_miner: defaultdict[Miner, list[RoundAnswer]] = defaultdict(list)
        for each in shuffled(rows.answers, self._order.seed, "sample", key="answer_id"):
            if each.patient_id is None and each.text is not None and each.adapter_digest is not None:
                by_miner[each.miner].append(each)
        found: dict[str, Any] = {}
        for miner in sorted(by_miner, key=key):
            sample: list[Measured] = []
            for answer in by_miner[miner][:SAMPLE]:
                item = items[answer.item_id]
                measured = await self._means.likelihoods.measure(
                    twin=item.twin.name, adapter=answer.adapter_digest or "",
                    answer=answer.text.text if answer.text else "",
                    messages=[{"role": "user", "content": item.text.text}],
                )  # fmt: skip
                if measured is not None:
                    sample.append(measured)
            judged = judge_weights(sample)
            found[key(miner)] = [judged.weights.value, judged.tokens, round(judged.nats * 1000)]
        return found

    async def _prior(self, rows: RoundRows) -> dict[str, int]:
        """Return the averages that the round before left."""
        previous = rows.steps[Step.PLAN.value].evidence["previous"]
        if previous is None:
            return {}
        left = await scores_of(self._means.ledger.database, round_id=previous, part=MOVING)
        return {key(each.miner): each.value_milli for each in left if each.value_milli is not None}

    async def _step(self, step: Step, evidence: Mapping[str, Any]) -> None:
        await self._write(step_record(self._id, step, evidence, at_ms=self._means.now_ms()))

    async def _write(self, *records: AnyRecord) -> None:
        if records:
            await self._means.ledger.record(*records)

    async def _rows(self) -> RoundRows:
        return await round_rows(self._means.ledger.database, self._id)


async def recompute(ledger: Ledger, uid: str) -> Results:
    """Reckon a round's results once more from the stored answers; nothing is written.

    Raises:
        RoundError: the round isn't finished, its answers are gone, or what follows from an answer alone was stored
            otherwise.
        LedgerError: the ledger is away.
    """
    rows = await round_rows(ledger.database, planning.round_id_of(uid))
    if rows.finished is None:
        raise RoundError("BadOrder", "the ledger has no finished round of that UID", retryable=False)
    if not rows.answers and rows.steps[Step.ASKED.value].evidence["miners"]:
        raise RoundError(
            "BadOrder", "the round's answers were deleted by age, so nothing can be recomputed", retryable=False
        )
    _check_rules(rows)
    items = {each.item_id: each for each in rows.items}
    stored = {(each.item_id, each.miner): each.value_milli for each in rows.scores if each.part == "correctness"}
    for answer in rows.answers:
        item = items.get(answer.item_id)
        if item is None:
            continue
        known, value = regrade(item, answer)
        at = (answer.item_id, answer.miner)
        if known and at in stored and stored[at] is not None and stored[at] != value:
            raise RoundError(
                "ResultsDiffer", f"the answer {answer.answer_id} was scored otherwise than it would be now",
                retryable=False,
            )  # fmt: skip
    return conclude(rows)


def _check_rules(rows: RoundRows) -> None:
    """Raise RoundError where a finished round was reckoned by other rules than these."""
    stored = rows.steps[Step.RESULTS.value].evidence["format"]
    if stored != FORMAT:
        raise RoundError(
            "BadOrder",
            f"another release reckoned the round, by the rules {stored}; this one goes by {FORMAT}, by which the same "
            "answers may come to other results",
            retryable=False,
        )


def _attendance(rows: RoundRows, miners: Mapping[str, Sequence[Miner]], owners: Mapping[Miner, str]) -> dict[str, Any]:
    answered_items = {each.item_id for each in rows.answers if each.text is not None}
    # What nobody answers says nothing of who didn't, but of a twin that one owner alone serves nobody else could.
    answered_twins = {each.twin.uid for each in rows.answers if each.text is not None}
    alone = {uid for uid in answered_twins if len({owners.get(miner) for miner in miners.get(uid, ())}) == 1}
    answered_items |= {each.item_id for each in rows.items if each.twin.uid in alone}
    counts: dict[Miner, list[int]] = {miner: [0, 0, 0, 0] for of in miners.values() for miner in of}
    for each in rows.answers:
        one = counts.setdefault(each.miner, [0, 0, 0, 0])
        one[0] += 1
        one[1] += each.text is not None
        one[2] += each.item_id in answered_items
        one[3] += each.receipt_valid is False
    made = {miner: Attendance(*values) for miner, values in counts.items()}
    return {
        "miners": by_key(
            (miner, (each.asked, each.answered, each.reachable, each.unproven))
            for miner, each in sorted(made.items(), key=lambda entry: key(entry[0]))
        )
    }


def _distinct(items: Sequence[RoundItem]) -> list[RoundItem]:
    """Return one item of each question: the same one asked of several twins is judged once."""
    found: dict[str, RoundItem] = {}
    for each in sorted(items, key=lambda item: item.item_id):
        challenge = each.reference.get("challenge")
        if isinstance(challenge, Mapping):
            found.setdefault(str(challenge["id"]), each)
    return list(found.values())


def _distrusted(canaries: Canaries, items: Sequence[RoundItem]) -> frozenset[str]:
    """Return all items of the questions about whose known answers the judge erred."""
    by_id = {each.item_id: each for each in items}
    ids = {by_id[each].reference["challenge"]["id"] for each in canaries.distrusted if each in by_id}
    return frozenset(
        each.item_id
        for each in items
        if isinstance(each.reference.get("challenge"), Mapping) and each.reference["challenge"]["id"] in ids
    )


def _moment(text: str) -> datetime:
    """Return the moment of an RFC 3339 text."""
    read = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return read if read.tzinfo else read.replace(tzinfo=UTC)
