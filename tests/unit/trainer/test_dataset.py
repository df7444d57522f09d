from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurons.trainer import dataset
from neurons.trainer.dataset import Refusal, read_dataset
from neurons.trainer.errors import BadData
from neurons.trainer.lines import Line

QUESTION = {"role": "user", "content": "My knee hurts."}
ANSWER = {"role": "assistant", "content": "Rest it."}


def line(**changes: object) -> dict[str, object]:
    return {"messages": [QUESTION, ANSWER], "consent": True, **changes}


def write(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_a_line_becomes_a_conversation(tmp_path: Path) -> None:
    (conversation,) = read_dataset(write(tmp_path, line())).conversations
    assert [(message.role, message.content) for message in conversation] == [
        ("user", "My knee hurts."),
        ("assistant", "Rest it."),
    ]


@pytest.mark.parametrize("consent", [False, None])
def test_a_line_without_consent_is_counted_and_not_learned(consent: bool | None, tmp_path: Path) -> None:
    silent = line()
    if consent is None:
        del silent["consent"]
    else:
        silent["consent"] = consent
    read = read_dataset(write(tmp_path, line(), silent))
    assert len(read.conversations) == 1
    assert read.refused == {Refusal.NO_CONSENT: 1}


def test_a_correction_is_learned_instead_of_the_answer(tmp_path: Path) -> None:
    (conversation,) = read_dataset(write(tmp_path, line(rating=1, correction="Cool it."))).conversations
    assert conversation[-1].content == "Cool it."


def test_a_disliked_answer_is_counted_and_not_learned(tmp_path: Path) -> None:
    read = read_dataset(write(tmp_path, line(), line(rating=2)))
    assert len(read.conversations) == 1
    assert read.refused == {Refusal.DISLIKED: 1}


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    one = read_dataset(write(tmp_path, line())).digest
    assert read_dataset(write(tmp_path, line())).digest == one
    assert read_dataset(write(tmp_path, line(), line())).digest != one


def test_empty_lines_are_no_lines(tmp_path: Path) -> None:
    path = write(tmp_path, line())
    path.write_text("\n" + path.read_text() + "\n\n")
    assert len(read_dataset(path).conversations) == 1


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        {},
        line(messages=[QUESTION, {"role": "doctor", "content": "x"}]),
        line(consent="yes"),
        line(rating=6),
        line(concent=True),
    ],
)
def test_a_malformed_line_fails_the_dataset_and_is_named(bad: object, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="line 2"):
        read_dataset(write(tmp_path, line(), bad))


def test_a_message_never_quotes_what_a_patient_wrote(tmp_path: Path) -> None:
    bad = line(messages=[{"role": "user", "content": "I am Jane Roe"}, {"role": "nobody", "content": "Jane Roe"}])
    with pytest.raises(BadData) as caught:
        read_dataset(write(tmp_path, bad))
    assert "Roe" not in str(caught.value)


def test_a_line_that_is_no_json_is_not_quoted_either(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("Jane Roe, 12 March\n")
    with pytest.raises(BadData) as caught:
        read_dataset(path)
    assert "Roe" not in str(caught.value)


def test_a_dataset_with_nothing_to_learn_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="1 refused: noConsent"):
        read_dataset(write(tmp_path, line(consent=False)))


def test_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="it is empty"):
        read_dataset(write(tmp_path))


def test_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="can't be read"):
        read_dataset(tmp_path / "nowhere.jsonl")


def test_an_oversized_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_DATASET_BYTES", 10)
    with pytest.raises(BadData, match="at most 10"):
        read_dataset(write(tmp_path, line()))


def test_a_line_that_names_somebody_is_counted_by_kind_and_not_learned(tmp_path: Path) -> None:
    named = line(messages=[{"role": "user", "content": "Call me at 555-123-4567."}, ANSWER])
    corrected = line(correction="Mrs. Roe, rest it.")
    read = read_dataset(write(tmp_path, line(), named, corrected))
    assert len(read.conversations) == 1
    assert read.refused == {"identifier.phone": 1, "identifier.name": 1}


def pair(**changes: object) -> dict[str, object]:
    return {"messages": [QUESTION], "preferred": "Rest it.", "rejected": "Run.", "consent": True, **changes}


def test_a_pair_of_answers_is_no_conversation(tmp_path: Path) -> None:
    read = read_dataset(write(tmp_path, line(), pair()))
    assert len(read.conversations) == 1
    assert [(each.preferred, each.rejected) for each in read.pairs] == [("Rest it.", "Run.")]


@pytest.mark.parametrize("bad", [pair(rejected=None), pair(correction="x")])
def test_a_malformed_pair_fails_the_dataset(bad: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(BadData, match="line 1"):
        read_dataset(write(tmp_path, bad))


def test_the_canonical_dataset_knows_no_order_and_no_duplicates() -> None:
    one, two = (Line.model_validate(each) for each in (line(), line(rating=4)))
    assert dataset.canonical([one, two, one]) == dataset.canonical([two, one])
    assert len(dataset.canonical([one, one]).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "refused"), [({}, {"unrated": 1}), ({"rating": 3}, {}), ({"correction": "Cool."}, {})]
)
def test_an_answer_that_nobody_spoke_for_is_learned_only_where_that_is_asked_for(
    given: dict[str, object], refused: dict[str, int]
) -> None:
    one = Line.model_validate(line(**given))
    assert dataset.admit([one], unrated=False)[1] == refused
    assert dataset.admit([one], unrated=True)[1] == {}
