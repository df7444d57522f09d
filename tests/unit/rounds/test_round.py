"""A whole round out of the ledger: scored, ranked, begun again wherever it ended, and reckoned once more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from bettertherapy_api.round_progress import RoundProgress, RoundStage
from neurons.ledger import Consent, Ledger, Question, RoundItem, Session, new_id
from neurons.ledger.rounds import finished_rounds, round_rows
from neurons.sources import Citation
from neurons.sources.errors import NoAnswer
from neurons.validator.rounds import conclude as conclude_module
from neurons.validator.rounds import round as round_module
from neurons.validator.rounds.challenges import ChallengeSet, load_challenges
from neurons.validator.rounds.conclude import MOVING
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.marks import WORTH
from neurons.validator.rounds.progress import Remembered
from neurons.validator.rounds.prometheus import Readings
from neurons.validator.rounds.rewards import WHOLE, Entrant, Unpaid
from neurons.validator.rounds.round import recompute
from neurons.validator.rounds.scoring import Canaries, Scorer
from tests.unit.ledger.world import Clean
from tests.unit.rounds.people import ROUND, SAMPLE, STARTED_MS, TWIN, miner, order
from tests.unit.rounds.played import (
    VALIDATOR,
    Killed,
    MortalLedger,
    means,
    played,
    right,
    run,
    wrong,
)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


async def test_the_right_one_gets_more_than_the_wrong_one_and_who_is_silent_nothing(ledger: Ledger) -> None:
    teller = Remembered()
    results = await run(means(ledger, played(right, wrong, lambda item: None)), teller=teller).run()
    good, bad, silent = (next(o for o in results.outcomes if o.miner == miner(n)) for n in range(3))
    assert (good.parts.correctness or 0) > 0.8
    assert (bad.parts.correctness or 0) < 0.2
    assert silent.parts.correctness is None
    assert silent.total == 0.0
    assert "it answered nothing, and others did" in silent.notes
    assert results.rewards.of[miner(0)].weight > 0.99 * WHOLE
    assert results.rewards.of[miner(2)].weight == 0
    last = teller.told[-1][1]
    assert isinstance(last, RoundProgress)
    assert (last.stage, last.results_digest) == (RoundStage.DONE, results.digest)
    assert last.miners is not None
    assert (last.miners.queried, last.miners.scored, last.miners.failed) == (3, 2, 1)
    assert last.top[0].hotkey == miner(0).hotkey
    assert last.measures is not None
    assert (last.measures.consensus_percent, last.measures.reached_percent) == (75, 67)
    [(_, finished)] = await finished_rounds(ledger.database, validator=VALIDATOR)
    assert finished.results_digest == results.digest
    assert (await recompute(ledger, ROUND)).digest == results.digest


async def test_a_round_begun_again_does_nothing_twice(ledger: Ledger) -> None:
    given = means(ledger, played(right, wrong))
    first = await run(given).run()
    asked = len(given.examiner.asked)
    assert (await run(given).run()).digest == first.digest
    assert len(given.examiner.asked) == asked


@pytest.mark.parametrize("committed", [False, True])
async def test_killed_at_every_write_it_comes_to_the_same_digest(
    tmp_path: Path, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_module, "ITEMS_AT_ONCE", 1)  # one write after another, so that they can be counted
    small = order(itemsPerTwin=2)
    async with await MortalLedger.open(f"sqlite:///{tmp_path}/undisturbed.db") as undisturbed:
        expected = (await run(means(undisturbed, played(right, wrong)), small).run()).digest
        writes = undisturbed.writes
    assert writes >= 12
    async with await MortalLedger.open(f"sqlite:///{tmp_path}/ledger.db") as mortal:
        mortal.committed = committed
        deaths = 0
        # Each attempt dies at its first write that is left (or right after it), and where it isn't committed at the
        # second: so every write of the round is one that somebody died at.
        for _ in range(3 * writes):
            mortal.writes, mortal.dies_at = 0, 1 if committed else 2
            try:
                results = await run(means(mortal, played(right, wrong)), small).run()
            except Killed:
                deaths += 1
                continue
            break
        assert deaths >= writes - 1
        assert results.digest == expected
        rows = await round_rows(mortal.database, ROUND)
        assert len(rows.answers) == 4
        assert len(rows.scores) == len({each.score_id for each in rows.scores})


async def test_a_uid_that_changed_hands_gives_its_answers_to_nobody(ledger: Ledger) -> None:
    newcomer = Entrant(miner=miner(0, block=5000), uid=0, coldkey="owner-0")
    other = Entrant(miner=miner(1), uid=1, coldkey="owner-1")
    results = await run(means(ledger, played(right, wrong, later=[newcomer, other]))).run()
    assert results.rewards.of[miner(0)].unpaid is Unpaid.GONE
    assert newcomer.miner not in {each.miner for each in results.outcomes}
    assert newcomer.miner not in results.rewards.weights


async def test_a_receipt_that_does_not_prove_earns_nothing(ledger: Ledger) -> None:
    turn = iter(["forged"])
    results = await run(means(ledger, played(lambda item: next(turn, None) or right(item), wrong))).run()
    cheat = next(each for each in results.outcomes if each.miner == miner(0))
    assert cheat.attendance.unproven == 1
    assert cheat.total == 0.0
    assert results.rewards.of[miner(0)].unpaid in (Unpaid.UNPROVEN, Unpaid.NO_SCORE)
    assert results.rewards.of[miner(0)].weight == 0


async def test_where_nobody_answers_nothing_is_concluded_of_anybody(ledger: Ledger) -> None:
    results = await run(means(ledger, played(lambda item: None, lambda item: None))).run()
    assert [each.total for each in results.outcomes] == [None, None]
    assert results.rewards.weights == {}
    assert not results.quorum["reached"]


async def test_no_miner_and_one_miner(ledger: Ledger, tmp_path: Path) -> None:
    alone = await run(means(ledger, played())).run()
    assert alone.rewards.weights == {}
    assert "no miner was asked" in alone.quorum["message"]
    async with await Ledger.open(f"sqlite:///{tmp_path}/one.db") as one:
        assert (await run(means(one, played(right))).run()).rewards.weights == {miner(0): WHOLE}


async def test_stale_metrics_leave_speed_unknown_and_say_so(ledger: Ledger) -> None:
    async def stale() -> Readings:
        return Readings(False, "the newest metrics are 900 s old, 300 are allowed")

    results = await run(means(ledger, played(right), speeds=stale)).run()
    [only] = results.outcomes
    assert only.parts.speed is None
    assert only.total == pytest.approx(only.parts.correctness or -1, abs=1e-4)
    assert any("900 s old" in note for note in only.notes)


async def test_averages_go_on_by_who_they_are(ledger: Ledger) -> None:
    first = await run(means(ledger, played(right, wrong))).run()
    later = order(uid="bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", name="r2", startedAt="2026-11-01T16:00:00Z", seed=8)
    second = await run(means(ledger, played(right, wrong)), later).run()
    before, after = (
        next(each.moving for each in results.outcomes if each.miner == miner(0)) for results in (first, second)
    )
    assert before is not None
    assert after is not None
    assert after > 1.5 * before
    rows = await round_rows(ledger.database, "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
    assert {each.miner for each in rows.scores if each.part == MOVING} == {miner(0), miner(1)}


async def test_a_judge_that_errs_about_known_answers_grades_nobody_there(ledger: Ledger) -> None:
    given = means(ledger, played(right))

    async def erring(items: object) -> Canaries:
        return Canaries(2, 1, frozenset(each.item_id for each in items if "known" in each.reference["challenge"]), 0, 0)

    given.scorer.canaries = erring
    await run(given).run()
    rows = await round_rows(ledger.database, ROUND)
    canaries = {each.item_id for each in rows.items if each.kind == "canary"}
    assert canaries
    ungraded = {each.item_id for each in rows.scores if each.part == WORTH and each.value_milli is None}
    assert ungraded == canaries


async def test_a_changed_set_is_refused_and_nothing_is_asked(ledger: Ledger) -> None:
    def changed() -> object:
        return load_challenges(SAMPLE, digest="sha256:" + "0" * 64)

    given = means(ledger, played(right), challenges=changed)
    with pytest.raises(RoundError, match="put the set back") as refused:
        await run(given).run()
    assert (refused.value.kind, refused.value.retryable) == ("ChallengesChanged", False)
    assert given.examiner.asked == []


async def test_answers_that_were_scored_otherwise_are_found(ledger: Ledger) -> None:
    await run(means(ledger, played(right, wrong))).run()
    async with ledger.database.writing() as connection:
        await connection.execute(
            text("UPDATE round_answers SET text = 'It is best to wait.' WHERE text LIKE 'It is best%'")
        )
    with pytest.raises(RoundError) as found:
        await recompute(ledger, ROUND)
    assert found.value.kind == "ResultsDiffer"


async def test_what_another_release_reckoned_is_said_to_be_so_and_not_called_changed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclude_module, "FORMAT", "bettertherapy-round/0")
    monkeypatch.setattr(round_module, "FORMAT", "bettertherapy-round/0")
    await run(means(ledger, played(right))).run()
    monkeypatch.undo()
    with pytest.raises(RoundError, match="another release reckoned the round") as found:
        await recompute(ledger, ROUND)
    assert (found.value.kind, found.value.retryable) == ("BadOrder", False)


async def test_only_consented_first_questions_are_replayed_and_go_with_their_patient(ledger: Ledger) -> None:
    agreed, refused = new_id(), new_id()
    for patient, given in ((agreed, True), (refused, False)):
        session = new_id()
        await ledger.record(
            Consent(new_id(), patient, given, STARTED_MS - 5000),
            Session(session, patient, TWIN, STARTED_MS - 4000),
            Question(new_id(), session, patient, TWIN, Clean(f"My knee hurts. {given}"), STARTED_MS - 3000),
            Question(new_id(), session, patient, TWIN, Clean("And now?"), STARTED_MS - 2000),
        )
    results = await run(means(ledger, played(right, wrong))).run()
    rows = await round_rows(ledger.database, ROUND)
    assert [each.text.text for each in rows.items if each.kind == "organic"] == ["My knee hurts. True"]
    await ledger.erase(patient_id=agreed)
    rows = await round_rows(ledger.database, ROUND)
    assert not [each for each in rows.items if each.kind == "organic"]
    assert (await recompute(ledger, ROUND)).digest == results.digest, "a digest outlives an erasure"


async def test_all_equal_share_evenly(ledger: Ledger) -> None:
    results = await run(means(ledger, played(right, right, right))).run()
    totals = {each.total for each in results.outcomes}
    assert len(totals) == 1
    # The sample's right answers are the same words, so they are one group too; of it nobody gets more than a whole.
    weights = [results.rewards.of[miner(number)].weight for number in range(3)]
    assert sum(weights) == WHOLE


async def test_a_set_with_nothing_for_the_twins_is_refused(ledger: Ledger) -> None:
    [*_, last] = load_challenges(SAMPLE).challenges
    elsewhere = last.model_copy(update={"twins": ("another",)})
    given = means(ledger, played(right), challenges=lambda: ChallengeSet("sha256:" + "0" * 64, (elsewhere,)))
    with pytest.raises(RoundError, match="none for these twins") as refused:
        await run(given).run()
    assert (refused.value.kind, refused.value.retryable) == ("ChallengesInvalid", False)


async def test_a_round_for_twins_that_nobody_serves_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RoundError, match="none of the twins") as refused:
        await run(means(ledger, played(right)), order(twins=["another"])).run()
    assert refused.value.kind == "NoTwins"


async def test_where_a_source_is_away_nobody_is_blamed(ledger: Ledger) -> None:
    asked: list[Citation] = []

    class Away:
        async def fetch(self, citation: Citation, **_: object) -> None:
            asked.append(citation)
            raise NoAnswer("pubmed doesn't answer")

    def citing(item: RoundItem) -> str:
        quote = "Rest and enough to drink help the body to get well again after a common cold"
        return f'{right(item)} "{quote}" ([Colds](https://pubmed.ncbi.nlm.nih.gov/1234567/))'

    given = means(ledger, played(citing, wrong), scorer=Scorer(judge=None, sources={"pubmed": Away()}))  # type: ignore[dict-item]
    results = await run(given).run()
    assert asked
    rows = await round_rows(ledger.database, ROUND)
    facts = [fact for each in rows.scores if each.part == WORTH for fact in each.evidence["facts"]]
    assert {(fact["standing"], fact["message"]) for fact in facts} == {("Unchecked", "pubmed doesn't answer")}
    good = next(each for each in results.outcomes if each.miner == miner(0))
    assert (good.parts.correctness or 0) > 0.8
