"""Sets of questions: known by their bytes, drawn by a seed alone."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from neurons.scoring import score_answer
from neurons.validator.rounds.challenges import (
    AskedChoice,
    ChallengeError,
    ChallengesChanged,
    digest_of,
    from_document,
    load_challenges,
    parse_challenges,
    to_document,
)
from neurons.validator.rounds.drawing import draw_challenges, draw_times
from neurons.validator.rounds.importing import Benchmark, import_benchmark
from tests.unit.rounds.people import SAMPLE

LINE = {
    "id": "a", "kind": "choice", "category": "heart", "question": "Which is it:", "answer": "A",
    "options": {"A": "one thing", "B": "another"},
}  # fmt: skip


def data(*lines: dict[str, object]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def test_the_sample_is_read_and_its_known_answers_are_told_apart() -> None:
    found = load_challenges(SAMPLE)
    assert len(found.challenges) == 12
    assert len({each.topic for each in found.challenges}) >= 5
    for each in found.challenges:
        if each.known is not None:
            assert score_answer(each, each.known.good) >= 0.7, each.id
            assert score_answer(each, each.known.bad) <= 0.3, each.id
        assert from_document(to_document(each)) == each


def test_a_set_whose_digest_changed_is_refused() -> None:
    raw = SAMPLE.read_bytes()
    assert parse_challenges(raw, digest=digest_of(raw)).digest == digest_of(raw)
    with pytest.raises(ChallengesChanged, match="put the set back"):
        parse_challenges(raw + b"\n", digest=digest_of(raw))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({**LINE, "category": None}, "category"),
        ({**LINE, "answer": "C"}, "none of the options"),
        ({**LINE, "surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_line_is_named_and_not_quoted(line: dict[str, object], said: str) -> None:
    with pytest.raises(ChallengeError, match=said) as error:
        parse_challenges(data(line))
    assert "Which is it" not in str(error.value)


def test_a_choice_is_asked_in_one_breath_and_its_right_words_score() -> None:
    [challenge] = parse_challenges(data(LINE)).challenges
    assert isinstance(challenge, AskedChoice)
    assert challenge.prompt == "Which is it: another or one thing?"
    assert score_answer(challenge, "It is one thing, I think.") == 1.0
    assert score_answer(challenge, "Another.") == 0.0


def test_the_seed_alone_draws_and_topics_are_even() -> None:
    challenges = load_challenges(SAMPLE).challenges
    drawn = draw_challenges(challenges, seed=5, twin="indra", count=6)
    assert drawn == draw_challenges(challenges, seed=5, twin="indra", count=6)
    assert drawn == draw_challenges(tuple(reversed(challenges)), seed=5, twin="indra", count=6)
    others = [draw_challenges(challenges, seed=seed, twin="indra", count=6) for seed in range(8)]
    assert len({tuple(each.id for each in one) for one in others}) > 4
    assert set(Counter(each.topic for each in drawn).values()) == {1}


def test_what_was_asked_lately_comes_last() -> None:
    challenges = load_challenges(SAMPLE).challenges
    first = draw_challenges(challenges, seed=5, twin="indra", count=6)
    again = draw_challenges(challenges, seed=5, twin="indra", count=6, lately=frozenset(each.id for each in first))
    assert not {each.id for each in first} & {each.id for each in again}


def test_another_twins_questions_are_not_asked() -> None:
    challenges = parse_challenges(data(LINE, {**LINE, "id": "b", "twins": ["other"]})).challenges
    assert [each.id for each in draw_challenges(challenges, seed=1, twin="indra", count=5)] == ["a"]


def test_times_are_a_permutation_within_the_window() -> None:
    times = draw_times(40, seed=3, twin="indra", seconds=600)
    assert sorted(each.place for each in times) == list(range(40))
    assert [each.at for each in times] == sorted(each.at for each in times)
    assert 0 < times[0].at < times[-1].at <= 600


def test_benchmarks_become_sets_and_what_cannot_is_counted() -> None:
    medqa = {
        "question": "Which?",
        "options": {"A": "x", "B": "y"},
        "answer": "y",
        "answer_idx": "B",
        "meta_info": "step1",
    }
    imported = import_benchmark(data(medqa), benchmark=Benchmark.MEDQA, topic="general")
    assert parse_challenges(imported.to_bytes()).challenges[0].answer == "B"
    row = {
        "prompt_id": "p1", "prompt": [{"role": "user", "content": "Help?"}], "canary": "c",
        "rubrics": [{"criterion": "Says so", "points": 5, "tags": []}],
    }  # fmt: skip
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    imported = import_benchmark(
        data(row, {**row, "prompt_id": "p2", "prompt": turns}), benchmark=Benchmark.HEALTHBENCH, topic="general"
    )
    assert [each.id for each in imported.challenges] == ["healthbench-p1"]
    assert imported.refused == {"a conversation of several turns": 1}
    with pytest.raises(ChallengeError, match="can't be read"):
        import_benchmark(b"{nonsense", benchmark=Benchmark.MEDQA, topic="general")
