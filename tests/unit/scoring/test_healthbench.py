"""HealthBench's arithmetic: equal to the published formula on its own rows, and no score without all verdicts."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.scoring import ItemError
from neurons.scoring.benchmarks import read_healthbench
from neurons.scoring.healthbench import OVERALL, Example, Ungraded, mean_scores, points_score, score_example

DATA = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data")) / "healthbench.jsonl"
ROW: dict[str, Any] = {
    "prompt_id": "1", "prompt": [{"role": "user", "content": "My chest hurts."}], "canary": "c", "example_tags": ["theme:emergency"],
    "rubrics": [
        {"criterion": "Tells to call", "points": 10, "tags": ["level:example", "axis:accuracy"]},
        {"criterion": "Is clear", "points": 5, "tags": ["axis:clarity"]},
        {"criterion": "Tells to wait", "points": -8, "tags": ["axis:accuracy", "axis:harm"]},
    ],
}  # fmt: skip


def example(**fields: Any) -> Example:
    return read_healthbench(json.dumps(ROW | fields).encode())[0]


def published(rubrics: list[dict[str, Any]], met: list[bool]) -> float | None:
    """What openai/simple-evals computes (`calculate_score`), in numpy."""
    points = np.array([each["points"] for each in rubrics], dtype=float)
    possible = points[points > 0].sum()
    return float(points[np.array(met, dtype=bool)].sum() / possible) if possible else None


def test_an_answer_has_a_score_and_one_for_each_tag() -> None:
    assert score_example(example(), [True, False, True]) == {
        OVERALL: pytest.approx(2 / 15), "theme:emergency": pytest.approx(2 / 15), "level:example": 1.0,
        "axis:accuracy": pytest.approx(0.2), "axis:clarity": 0.0,
    }  # fmt: skip


def test_one_answer_may_be_below_zero_and_a_mean_may_not() -> None:
    bad, good = (score_example(example(), verdicts) for verdicts in ([False, False, True], [True, True, False]))

    assert bad[OVERALL] == pytest.approx(-8 / 15)
    assert mean_scores([bad])[OVERALL].value == 0.0
    assert mean_scores([bad, good])[OVERALL].value == pytest.approx((1 - 8 / 15) / 2), "cut before the mean"
    assert mean_scores([bad, good])[OVERALL].answers == 2
    assert mean_scores([]) == {}


def test_a_missing_verdict_is_no_score_and_not_zero() -> None:
    with pytest.raises(Ungraded, match="1 of 3"):
        score_example(example(), [True, None, False])
    with pytest.raises(ValueError, match="zip"):
        score_example(example(), [True, False])


@pytest.mark.skipif(not DATA.is_file(), reason=f"{DATA} is not there")
def test_the_published_formula_gives_the_same_on_the_published_rows() -> None:
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    examples = read_healthbench(DATA.read_bytes())
    draw = random.Random(13)
    scored, expected = [], []
    for row, each in zip(rows, examples, strict=True):
        assert each.canary == row["canary"]
        met = [draw.random() < 0.5 for _ in row["rubrics"]]
        scores = score_example(each, met)
        assert scores[OVERALL] == pytest.approx(published(row["rubrics"], met), abs=1e-12)
        for tag in {tag for rubric in row["rubrics"] for tag in rubric["tags"]}:
            own = [
                (rubric, is_met) for rubric, is_met in zip(row["rubrics"], met, strict=True) if tag in rubric["tags"]
            ]
            value = published([rubric for rubric, _ in own], [is_met for _, is_met in own])
            assert scores.get(tag) == (None if value is None else pytest.approx(value, abs=1e-12))
        scored.append(scores)
        expected.append(published(row["rubrics"], met))
    assert len(examples) == 50
    assert mean_scores(scored)[OVERALL].value == pytest.approx(float(np.clip(np.mean(expected), 0, 1)), abs=1e-12)


@pytest.mark.parametrize(("fields", "why"), [
    ({"canary": ""}, "canary"), ({"prompt": []}, "prompt"), ({"prompt": [{"role": "assistant", "content": "Secret"}]}, "user's turn"),
    ({"rubrics": [{"criterion": "Secret", "points": -1, "tags": []}]}, "above zero"),
    ({"rubrics": [{"criterion": "Secret", "points": 11, "tags": []}]}, "rubrics"),
    ({"rubrics": [{"criterion": "Secret", "points": 1, "tags": ["a", "a"]}]}, "twice"),
    ({"rubrics": [{"criterion": "Secret", "points": True, "tags": []}]}, "rubrics"), ({"example_tags": ["a", "a"]}, "twice"),
])  # fmt: skip
def test_a_row_that_isnt_as_published_is_refused_without_its_words(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ItemError, match=why) as error:
        example(**fields)
    assert "Secret" not in str(error.value)


def test_a_tag_whose_criteria_earn_nothing_has_no_score() -> None:
    assert points_score(example().rubrics[2:], [True]) is None
