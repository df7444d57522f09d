"""A round hands its tasks to the best miners: from the ledger, each once, whatever happens to round or miner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from bettertherapy_api.round_progress import RoundProgress, RoundStage
from neurons.ledger import Ledger, Miner, TaskEvent, TaskState, schema
from neurons.ledger.dataset import Bounds
from neurons.ledger.rounds import TaskStates, round_rows, tasks
from neurons.validator.rounds import round as round_module
from neurons.validator.rounds.handing_out import HandingOut, Unreached
from neurons.validator.rounds.progress import Remembered
from neurons.validator.rounds.steps import Step, key
from neurons.validator.rounds.tasks import event_of
from neurons.wire.tasks import read_offer, sign_report
from tests.unit.ledger.world import DAY_MS, Conversation
from tests.unit.receipts.keyring import MINER, STRANGER, VALIDATOR
from tests.unit.rounds.people import ROUND, STARTED_MS, TWIN, order
from tests.unit.rounds.played import Killed, MortalLedger, PlayedSubnet, means, played, right, run, wrong

GOOD = Miner(hotkey=str(MINER.ss58_address), registered_block=7)
BAD = Miner(hotkey=str(STRANGER.ss58_address), registered_block=8)
KEYS = {GOOD.hotkey: MINER, BAD.hotkey: STRANGER}
YESTERDAY = STARTED_MS - DAY_MS
TASKS = {"url": "https://ask.clinic.example", "minInteractions": 2}


@dataclass
class PlayedPost:
    """Miners that answer offers: by what `says` returns of the times that each was asked."""

    says: Callable[[str, int], str | Exception] = lambda hotkey, times: "accepted"
    got: list[tuple[str, bytes]] = field(default_factory=list)

    async def __call__(self, member: Any, offer: bytes) -> bytes:
        read = read_offer(offer, validator=str(VALIDATOR.ss58_address), miner=member.hotkey)
        self.got.append((member.hotkey, offer))
        said = self.says(member.hotkey, sum(hotkey == member.hotkey for hotkey, _ in self.got))
        if isinstance(said, Exception):
            raise said
        return sign_report(KEYS[member.hotkey], task=read.task, state=said, time_ms=STARTED_MS)

    def offers(self) -> list[Any]:
        return [read_offer(o, validator=str(VALIDATOR.ss58_address), miner=m) for m, o in self.got]


@dataclass
class Clock:
    """Time that passes when somebody waits."""

    now: int = STARTED_MS + 60_000

    def ms(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


class SlowClock(Clock):
    """Each look at it takes four minutes."""

    def ms(self) -> int:
        self.now += 240_000
        return self.now


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[MortalLedger]:
    async with await MortalLedger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


async def a_day(ledger: Ledger, *, count: int = 4, about: str = "My skin itches", stars: int = 3) -> list[Conversation]:
    said = []
    for number in range(count):
        talk = Conversation(twin=TWIN, at_ms=YESTERDAY + number * 1000)
        [answer] = talk.ask(f"{about}, number {number}.", "Use a cream without perfume.")
        talk.rate(answer, stars)
        await ledger.record(*talk.records)
        said.append(talk)
    return said


def by_words(questions: Any) -> list[str | None]:
    return [next((topic for topic in ("skin", "heart") if topic in each), None) for each in questions]


def handing(ledger: Ledger, subnet: PlayedSubnet, post: PlayedPost, clock: Clock) -> dict[str, Any]:
    return {
        "handing_out": HandingOut(
            ledger=ledger, subnet=subnet, keypair=VALIDATOR, post=post, now_ms=clock.ms, sleep=clock.sleep,
            classify=by_words,
        ),
        "now_ms": clock.ms,
    }  # fmt: skip


async def held(
    ledger: Ledger, post: PlayedPost, *, teller: Remembered | None = None, clock: Clock | None = None,
    subnet: PlayedSubnet | None = None, **changes: Any,
) -> PlayedSubnet:  # fmt: skip
    subnet = subnet or played(right, wrong, miners=[GOOD, BAD])
    wanted = order(**({"tasks": TASKS} | changes))
    given = means(ledger, subnet, **handing(ledger, subnet, post, clock or Clock()))
    await run(given, wanted, teller).run()
    return subnet


async def known(ledger: Ledger) -> dict[str, TaskStates]:
    found = await tasks(ledger.database, since_ms=0, until_ms=2**50)
    return {each.task.miner.hotkey: each for each in found}


async def test_the_best_get_yesterdays_conversations_and_their_answers_are_kept(ledger: MortalLedger) -> None:
    await a_day(ledger)
    post, teller = PlayedPost(), Remembered()
    await held(ledger, post, teller=teller)
    states = await known(ledger)
    assert GOOD.hotkey in states
    good = states[GOOD.hotkey]
    assert [event.state for event in good.events] == [TaskState.ACCEPTED]
    assert good.task.deadline_ms == good.task.at_ms + 72_000_000
    [offer] = [each for each in post.offers() if each.miner == GOOD.hotkey]
    assert (offer.task, offer.twin, offer.netuid, offer.interactions) == (good.task.task_id, "indra", 42, 4)
    assert offer.dataset.startswith("https://ask.clinic.example/v1/tasks/")
    assert "skin" in offer.topics
    bounds = Bounds(YESTERDAY - DAY_MS // 2, YESTERDAY + DAY_MS // 2)
    data = await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=offer.dataset_digest)
    assert data is not None
    assert data.count(b"\n") == 4
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert last.tasks is not None
    assert (last.stage, last.tasks.made, last.tasks.sent, last.tasks.accepted) == (
        RoundStage.DONE, len(states), len(states), len(states),
    )  # fmt: skip
    assert RoundStage.TASKS in [each.stage for _, each in teller.told if isinstance(each, RoundProgress)]


async def test_only_so_many_get_one_and_whoever_earns_nothing_gets_none(ledger: MortalLedger) -> None:
    await a_day(ledger)
    post = PlayedPost()
    await held(ledger, post, rewards={"topMiners": 1})
    assert [hotkey for hotkey, _ in post.got] == [GOOD.hotkey]
    silent = PlayedPost()
    subnet = played(lambda item: None, lambda item: None, miners=[GOOD, BAD])
    await held(ledger, silent, subnet=subnet, uid="bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", name="r2")
    assert silent.got == []


async def test_what_nobody_rated_stays_and_of_too_little_no_task_is_made(ledger: MortalLedger) -> None:
    await a_day(ledger, count=1)
    unrated = Conversation(twin=TWIN, at_ms=YESTERDAY)
    unrated.ask("Is it the heart?", "It may be.")
    secret = Conversation(twin=TWIN, at_ms=YESTERDAY, consents=False)
    [answer] = secret.ask("My skin is red.", "Cool it.")
    secret.rate(answer, 5)
    await ledger.record(*unrated.records, *secret.records)
    post, teller = PlayedPost(), Remembered()
    await held(ledger, post, teller=teller)
    assert post.got == []
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert last.tasks is not None
    assert last.tasks.made == 0


async def test_conversations_of_the_weakest_topics_are_taken_first(ledger: MortalLedger) -> None:
    await a_day(ledger, count=3, about="My skin itches", stars=5)
    await a_day(ledger, count=3, about="My heart races", stars=3)
    post = PlayedPost()
    await held(ledger, post, tasks=TASKS | {"maxInteractions": 3})
    offer = post.offers()[0]
    assert offer.interactions == 3
    async with ledger.database.reading() as connection:
        noted = {
            each
            for (each,) in await connection.execute(
                select(schema.DATASET_LINES.c.line_id).where(
                    schema.DATASET_LINES.c.dataset_digest == offer.dataset_digest
                )
            )
        }
    assert len(noted) == 3
    bounds = Bounds(YESTERDAY - DAY_MS // 2, YESTERDAY + DAY_MS // 2)
    data = await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=offer.dataset_digest)
    assert data is not None
    assert data.count(b"heart") == 3


async def test_what_was_disliked_tells_what_to_learn_about_though_it_is_not_learned(ledger: MortalLedger) -> None:
    await a_day(ledger, count=3, about="My skin itches", stars=5)
    await a_day(ledger, count=3, about="My heart races", stars=5)
    await a_day(ledger, count=20, about="Is this skin", stars=1)
    post = PlayedPost()
    await held(ledger, post, tasks=TASKS | {"maxInteractions": 3})
    offer = post.offers()[0]
    assert offer.topics[0] == "skin"
    bounds = Bounds(YESTERDAY - DAY_MS // 2, YESTERDAY + DAY_MS // 2)
    data = await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=offer.dataset_digest)
    assert data is not None
    assert (data.count(b"My skin itches"), data.count(b"Is this skin")) == (3, 0)


async def test_a_round_without_time_offers_nothing_and_ends(ledger: MortalLedger) -> None:
    await a_day(ledger)
    late = PlayedPost()
    await held(ledger, late, clock=Clock(STARTED_MS + 1_780_000))
    assert late.got == []
    assert all(each.events == () for each in (await known(ledger)).values())


@pytest.mark.parametrize("committed", [False, True])
async def test_killed_at_any_write_each_task_is_handed_out_once(
    tmp_path: Path, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_module, "ITEMS_AT_ONCE", 1)  # one write after another, so that they can be counted
    async with await MortalLedger.open(f"sqlite:///{tmp_path}/ledger.db") as mortal:
        await a_day(mortal)
        first = PlayedPost()
        mortal.committed = committed
        deaths = 0
        for _ in range(60):
            # In the miners' eyes an offer that is sent again is the same one: they answer it the same.
            mortal.writes, mortal.dies_at = 0, 1 if committed else 2
            try:
                await held(mortal, first, itemsPerTwin=2)
            except Killed:
                deaths += 1
                continue
            break
        assert deaths > 5
        states = await known(mortal)
        assert states
        assert all([event.state for event in each.events] == [TaskState.ACCEPTED] for each in states.values())
        assert {(each.task, each.dataset) for each in first.offers()} == {
            (each.task.task_id, each.task.dataset_uri) for each in states.values()
        }
        rows = await round_rows(mortal.database, ROUND)
        assert len(rows.steps[Step.TASKS.value].evidence["twins"]) == 1


async def test_a_later_round_of_the_day_hands_out_nothing_twice_and_finds_who_was_down(ledger: MortalLedger) -> None:
    await a_day(ledger)

    def is_down(hotkey: str, times: int) -> str | Exception:
        return Unreached("it can't be reached", again=True) if hotkey == GOOD.hotkey else "refused"

    down = PlayedPost(is_down)
    clock = Clock()
    teller = Remembered()
    await held(ledger, down, clock=clock, teller=teller)
    assert sum(hotkey == GOOD.hotkey for hotkey, _ in down.got) > 3, "it is offered again within the round's time"
    assert clock.now < STARTED_MS + 1_800_000
    left = (await known(ledger))[GOOD.hotkey].events
    assert [event.state for event in left] == [TaskState.EXPIRED]
    assert "left: it can't be reached" in left[0].detail
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert last.tasks is not None
    assert last.tasks.accepted == 0
    up = PlayedPost()
    later = Clock(STARTED_MS + 4 * 3_600_000)
    await held(
        ledger, up, clock=later, uid="bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", name="r2",
        startedAt="2026-11-01T16:00:00Z",
    )  # fmt: skip
    assert [hotkey for hotkey, _ in up.got] == [GOOD.hotkey], "who refused is not asked again"
    assert [event.state for event in (await known(ledger))[GOOD.hotkey].events] == [
        TaskState.EXPIRED,
        TaskState.ACCEPTED,
    ]


@pytest.mark.parametrize("why", ["no permit", "no time"])
async def test_what_may_be_the_validators_own_fault_is_told_of_no_miner(ledger: MortalLedger, why: str) -> None:
    await a_day(ledger)
    refused = PlayedPost(lambda hotkey, times: Unreached("it answered 403 (no_permit)", again=False, ours=True))
    # So late that no offer is sent any more, as in a round of very many tasks.
    clock = SlowClock() if why == "no time" else Clock()
    await held(ledger, refused, clock=clock)
    assert bool(refused.got) is (why == "no permit")
    assert await known(ledger)
    assert all(each.events == () for each in (await known(ledger)).values())


async def test_who_alone_calls_it_the_validators_fault_is_a_miner_that_took_nothing(ledger: MortalLedger) -> None:
    """One that answered 403 to each offer was told of nothing, and its participation counted neither way."""
    await a_day(ledger)
    excuse = Unreached("it answered 403 (no_permit)", again=False, ours=True)
    subnet = played(right, right, miners=[GOOD, BAD])
    post = PlayedPost(lambda hotkey, times: "accepted" if hotkey == GOOD.hotkey else excuse)
    await held(ledger, post, subnet=subnet)
    found = await known(ledger)
    assert [event.state for event in found[GOOD.hotkey].events] == [TaskState.ACCEPTED]
    assert [event.state for event in found[BAD.hotkey].events] == [TaskState.EXPIRED]
    assert "others" in found[BAD.hotkey].events[0].detail


async def test_an_answer_that_is_not_the_miners_own_is_not_taken(ledger: MortalLedger) -> None:
    await a_day(ledger)

    class Impostor(PlayedPost):
        async def __call__(self, member: Any, offer: bytes) -> bytes:
            read = read_offer(offer, validator=str(VALIDATOR.ss58_address), miner=member.hotkey)
            self.got.append((member.hotkey, offer))
            return sign_report(VALIDATOR, task=read.task, state="accepted", time_ms=STARTED_MS)

    await held(ledger, Impostor())
    events: list[TaskEvent] = [event for each in (await known(ledger)).values() for event in each.events]
    assert {event.state for event in events} == {TaskState.EXPIRED}
    assert all("not by" in event.detail for event in events)


async def test_the_next_rounds_count_what_became_of_it(ledger: MortalLedger) -> None:
    await a_day(ledger)
    await held(ledger, PlayedPost(lambda hotkey, times: "accepted" if hotkey == GOOD.hotkey else "refused"))
    done = (await known(ledger))[GOOD.hotkey].task
    await ledger.record(event_of(done, TaskState.FINISHED, at_ms=done.at_ms + 1, adapter="sha256:" + "b" * 64))
    later = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
    tomorrow = Clock(STARTED_MS + DAY_MS + 60_000)
    await held(ledger, PlayedPost(), uid=later, name="r2", startedAt="2026-11-02T12:00:00Z", clock=tomorrow)
    steps = (await round_rows(ledger.database, later)).steps
    counted = steps[Step.PARTICIPATION.value].evidence["of"]
    assert counted[key(GOOD)] == [50_000, 1, 1, 1, 0]
    assert steps[Step.MEASURES.value].evidence["tasksOnTime"] == 100_000


async def test_a_dataset_is_made_again_only_while_all_of_it_may_be_learned(ledger: MortalLedger) -> None:
    talks = await a_day(ledger)
    post = PlayedPost()
    await held(ledger, post)
    digest = post.offers()[0].dataset_digest
    bounds = Bounds(YESTERDAY - DAY_MS // 2, YESTERDAY + DAY_MS // 2)
    await a_day(ledger, count=2, about="Late record of the same day")
    assert await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=digest) is not None
    await ledger.erase(patient_id=talks[0].patient_id)
    assert await ledger.dataset_again(twin_uid=TWIN.uid, bounds=bounds, digest=digest) is None
    assert any(line.dataset_digest == digest for line in await ledger.recalled())
