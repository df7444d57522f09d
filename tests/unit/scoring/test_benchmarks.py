"""Importers: the published files whole, hard cases among them, and whatever else is no file of theirs refused in words."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.scoring import Choice, ItemError, score_answer
from neurons.scoring.benchmarks import (
    read_healthbench,
    read_inspect,
    read_lm_eval,
    read_medmcqa,
    read_medqa,
    read_mmlu,
    read_pubmedqa,
    read_set,
)
from neurons.scoring.healthbench import Example
from neurons.scoring.items import question_digest

DATA = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data"))
MEDQA = {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B", "meta_info": "step1"}
MEDMCQA = {
    "id": "7",
    "question": "Q?",
    "opa": "a",
    "opb": "b",
    "opc": "c",
    "opd": "d",
    "cop": 4,
    "exp": None,
    "subject_name": "Surgery",
}
PUBMEDQA = {"QUESTION": "Does it?", "CONTEXTS": ["We saw it."], "final_decision": "maybe"}
MMLU = b'"Which, of\nthese?",a,b,"c, d",e,C\r\n'


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(each) for each in rows).encode()


def test_each_format_gives_its_question_options_and_right_letter() -> None:
    (medqa,), (medmcqa,), (pubmedqa,), (mmlu,) = (
        read_medqa(lines(MEDQA)), read_medmcqa(lines(MEDMCQA)), read_pubmedqa(json.dumps({"11": PUBMEDQA}).encode()),
        read_mmlu(MMLU, subject="anatomy"),
    )  # fmt: skip

    assert (medqa.id, medqa.answer, medqa.options, medqa.category) == ("medqa-1", "B", {"A": "x", "B": "y"}, "step1")
    assert (medmcqa.id, medmcqa.answer, medmcqa.options["D"], medmcqa.category) == ("medmcqa-7", "D", "d", "Surgery")
    assert (pubmedqa.id, pubmedqa.answer, pubmedqa.question) == ("pubmedqa-11", "C", "We saw it.\nDoes it?")
    assert (mmlu.id, mmlu.answer, mmlu.question, mmlu.options["C"]) == (
        "mmlu-anatomy-1",
        "C",
        "Which, of\nthese?",
        "c, d",
    )
    assert score_answer(mmlu, "The answer is C.") == 1.0


@pytest.mark.skipif(not (DATA / "medqa.jsonl").is_file(), reason=f"{DATA} is not there")
@pytest.mark.parametrize(("name", "read", "count"), [
    ("medqa.jsonl", read_medqa, 637), ("medmcqa.jsonl", read_medmcqa, 1000), ("pubmedqa.json", read_pubmedqa, 500),
])  # fmt: skip
def test_the_published_files_are_read_whole(name: str, read: Callable[[bytes], tuple[Choice, ...]], count: int) -> None:
    items = read((DATA / name).read_bytes())
    assert len(items) == count
    assert len({each.id for each in items}) == count
    assert all(score_answer(each, each.answer) == 1.0 for each in items)


@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"{DATA} is not there")
def test_mmlus_files_are_read_whole_with_their_line_breaks_and_commas() -> None:
    found: Counter[str] = Counter()
    for file in sorted((DATA / "mmlu").glob("*_test.csv")):
        subject = file.name.removesuffix("_test.csv")
        items = read_mmlu(file.read_bytes(), subject=subject)
        found[subject] = len(items)
        with file.open(newline="", encoding="utf-8") as opened:
            for item, row in zip(items, csv.reader(opened), strict=True):
                assert [item.question, *item.options.values(), item.answer] == row
    assert found == {
        "anatomy": 135, "clinical_knowledge": 265, "college_biology": 144, "college_medicine": 173, "medical_genetics": 100,
        "professional_medicine": 272,
    }  # fmt: skip


@pytest.mark.parametrize(("read", "data", "why"), [
    (read_medqa, lines(MEDQA | {"answer_idx": "A"}), "line 1: answer_idx isn't"), (read_medqa, lines(MEDQA | {"options": {"A": "x"}}), "options"),
    (read_medqa, lines(MEDQA, MEDQA | {"question": 7}), "line 2: question"), (read_medqa, b"", "no row"),
    (read_medqa, b"\x1f\x8b\x08", "compressed"), (read_medqa, b'{"question": "\xff"}', "no UTF-8"), (read_medqa, lines([]), "the row"),
    (read_medqa, lines(MEDQA | {"options": {"A": "x", "secret": "y"}, "answer_idx": "secret"}), "options"),
    (read_medmcqa, lines(MEDMCQA | {"cop": 0}), "cop"), (read_medmcqa, lines(MEDMCQA | {"cop": "1"}), "cop"),
    (read_medmcqa, lines(MEDMCQA, MEDMCQA), "two rows"), (read_pubmedqa, b"[]", "no object"), (read_pubmedqa, b"{", "no JSON"),
    (read_pubmedqa, json.dumps({"1": PUBMEDQA | {"final_decision": "secret"}}).encode(), "id 1: final_decision"),
    (lambda data: read_mmlu(data, subject="s"), b"a,b\n", "row 1: 2 fields"),
    (lambda data: read_mmlu(data, subject="s"), b"q,a,b,c,d,E\n", "none of the options"),
    (lambda data: read_mmlu(data, subject="s"), b'"secret', "row 1: no CSV"), (lambda data: read_mmlu(data, subject="s"), b"\xff", "UTF-8"),
    (read_healthbench, lines({"prompt_id": "1"}), "line 1"),
])  # fmt: skip
def test_another_file_is_refused_in_words_that_quote_nothing(
    read: Callable[[bytes], object], data: bytes, why: str
) -> None:
    with pytest.raises(ItemError, match=why) as error:
        read(data)
    assert "secret" not in str(error.value)


@given(st.data())
@pytest.mark.parametrize(("read", "whole"), [
    (read_medqa, lines(MEDQA)), (read_medmcqa, lines(MEDMCQA)), (read_pubmedqa, json.dumps({"1": PUBMEDQA}).encode()),
    (read_healthbench, lines({"prompt_id": "1"})), (lambda data: read_mmlu(data, subject="s"), MMLU),
])  # fmt: skip
def test_any_bytes_are_items_or_refused(read: Callable[[bytes], object], whole: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 6)))
    try:
        read(
            whole[:start]
            + data.draw(st.one_of(st.binary(max_size=6), st.just(b"1" * 5000), st.just(b"[")))
            + whole[end:]
        )
    except ItemError as error:
        assert len(str(error)) < 500  # noqa: PT017 - other examples raise nothing


def test_a_field_of_any_length_is_read_or_refused() -> None:
    with pytest.raises(ItemError):
        read_mmlu(b"q" * 200_000 + b",a,b,c,d,A\n", subject="s")


ASKED = "Which cannula would you use for a rapid blood transfusion?"
GAUGES = ["18 gauge.", "20 gauge.", "22 gauge.", "24 gauge."]
ABOUT = {"category": "clinical", "source": "mmlu"}
SAMPLE = {"input": ASKED, "choices": GAUGES, "target": "A", "id": 7, "metadata": ABOUT}
OWN = {"id": "o", "kind": "choice", "question": ASKED, "options": {"A": "18", "B": "20"}, "answer": "A"}
DOCUMENT = {"question": ASKED, "subject": "clinical_knowledge", "choices": GAUGES, "answer": 0}
LOGGED = {
    "doc_id": 0, "doc": DOCUMENT, "target": "0", "arguments": {"gen_args_0": {"arg_0": ASKED, "arg_1": " A"}},
    "resps": [[["-0.5", "True"]]], "filtered_resps": [["-0.5", "True"]], "filter": "none", "metrics": ["acc"],
    "doc_hash": "0", "prompt_hash": "0", "target_hash": "0", "acc": 1.0,
}  # fmt: skip
"""After one of MMLU's clinical_knowledge, in the fields of inspect_ai's samples and of lm-evaluation-harness."""


@pytest.mark.parametrize("row", [SAMPLE, DOCUMENT, LOGGED, {**DOCUMENT, "answer": "A"}, {**DOCUMENT, "answer": "0"}])
def test_an_evaluation_set_in_others_forms_is_read_by_its_first_line(row: dict[str, Any]) -> None:
    (item,) = read_set(lines(row))
    assert isinstance(item, Choice)
    assert (item.question, item.options["D"], item.answer) == (ASKED, "24 gauge.", "A")
    assert item.category in {"clinical", "clinical_knowledge"}
    assert (score_answer(item, "A"), score_answer(item, "B")) == (1, 0)


def test_rows_of_healthbench_are_an_evaluation_set_too() -> None:
    row = {
        "prompt_id": "h1", "prompt": [{"role": "user", "content": "My chest hurts."}], "canary": "c",
        "rubrics": [{"criterion": "Tells to call an ambulance", "points": 5}],
    }  # fmt: skip
    (item,) = read_set(lines(row))
    assert isinstance(item, Example)
    assert (item.id, item.question, item.question_digest) == (
        "h1",
        "My chest hurts.",
        question_digest("my chest HURTS"),
    )
    with pytest.raises(ItemError, match="line 1: canary"):
        read_set(lines({name: value for name, value in row.items() if name != "canary"}))


def test_a_sample_without_choices_is_a_gold_answer_and_one_of_chat_is_its_question() -> None:
    asked = [{"role": "user", "content": "When are you open?"}]
    chat = {"input": asked, "target": ["On Tuesday."], "metadata": {"cluster": "hours"}}
    (item,) = read_inspect(lines(chat))
    assert (item.kind, item.id, item.question, item.cluster) == ("gold", "sample-1", "When are you open?", "hours")
    assert score_answer(item, "On Tuesday.") == 1


def test_hellaswags_fields_are_read_too() -> None:
    (item,) = read_lm_eval(lines({"query": "Then she", "choices": ["sat down.", "flew."], "gold": 0}))
    assert (item.id, item.question, item.answer) == ("doc-1", "Then she", "A")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**SAMPLE, "target": "E"}, "line 1: the row: answer is none of the options"),
        ({**SAMPLE, "target": ["A", "B"]}, "line 1: target"),
        ({**SAMPLE, "input": [{"role": "system", "content": "x"}]}, "line 1: input"),
        ({**DOCUMENT, "answer": 4}, "line 1: answer, gold or label is no place"),
        ({**DOCUMENT, "answer": None}, "line 1: answer, gold or label is no place"),
        ({**DOCUMENT, "question": None}, "line 1: neither question nor query"),
        ({**DOCUMENT, "choices": ["one"]}, "line 1: choices"),
        ({"question": "Q?"}, "line 1"),
    ],
)
def test_what_is_no_item_in_others_forms_is_refused_in_words(row: dict[str, Any], told: str) -> None:
    with pytest.raises(ItemError) as refused:
        read_set(lines(row))
    assert str(refused.value).startswith(told)
    assert "cannula" not in str(refused.value)


@pytest.mark.parametrize("row", [SAMPLE, DOCUMENT, MEDQA, MEDMCQA])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_set_in_any_form_is_read_with_any_line_ends_and_a_mark(row: dict[str, Any], end: str) -> None:
    rows = [row, {**row, "id": "other"}] if "id" in row else [row, row]
    found = read_set("\ufeff".encode() + end.join(map(json.dumps, rows)).encode())
    assert [isinstance(each, Choice) for each in found] == [True, True]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([OWN, SAMPLE], "line 2: `kind` is missing; an item is `choice`, `gold` or `rubric`, and all lines of a set"),
        ([{"messages": [], "consent": True}], "line 1: `kind` is missing"),
        ([{**OWN, "kind": "essay"}], "line 1: `kind` is none of ours; an item is `choice`, `gold` or `rubric`"),
        ([[OWN]], "line 1: not an object"),
        ([{**OWN, "answer": "b"}], "line 1: choice: answer is none of the options"),
    ],
)
def test_what_is_no_item_of_ours_is_refused_in_words(rows: list[Any], told: str) -> None:
    with pytest.raises(ItemError) as refused:
        read_set("\n".join(map(json.dumps, rows)).encode())
    assert str(refused.value).startswith(told)
    assert "cannula" not in str(refused.value)


DOC = {"question": "Which is it?", "choices": ["a", "b", "c"], "answer": 0}


@pytest.mark.parametrize(("row", "told"), [
    ({**DOC, "gold": 1}, "different choices"), ({**DOC, "choices": ["1", "2", "3"], "answer": "2"}, "another one by its words"),
    ({**DOC, "question": " \u200b"}, "see nothing"), ({**DOC, "choices": ["a", "  "]}, "see nothing"),
])  # fmt: skip
def test_an_item_whose_right_answer_nobody_could_tell_is_refused(row: dict[str, Any], told: str) -> None:
    with pytest.raises(ItemError, match=f"line 1: .*{told}"):
        read_lm_eval(lines(row))


def test_several_fields_that_agree_are_one_answer() -> None:
    (item,) = read_lm_eval(lines({**DOC, "gold": "A", "label": "0"}))
    assert item.answer == "A"
    (digits,) = read_lm_eval(lines({**DOC, "choices": ["0", "1", "2"], "answer": "2"}))
    assert digits.options[digits.answer] == "2"
    (wrong_twice,) = read_lm_eval(lines({**DOC, "choices": ["a", "b", "b"]}))
    assert wrong_twice.answer == "A", "two wrong options that are the same hurt nobody"


def test_a_right_option_that_stands_there_twice_is_right_in_both_places() -> None:
    (item,) = read_lm_eval(lines({**DOC, "choices": ["a", " a", "c"]}))
    assert [score_answer(item, letter) for letter in "ABC"] == [1, 1, 0]


def test_a_document_that_was_logged_for_each_filter_is_one_item() -> None:
    strict, flexible = LOGGED | {"filter": "strict-match"}, LOGGED | {"filter": "flexible-extract"}
    assert len(read_lm_eval(lines(strict, flexible, LOGGED | {"doc_id": 1, "doc": DOC}))) == 2
    with pytest.raises(ItemError, match="line 2: another document has the doc_id 0"):
        read_lm_eval(lines(LOGGED, LOGGED | {"doc": DOC}))


def test_a_byte_order_mark_is_no_part_of_pubmedqas_json() -> None:
    row = {"QUESTION": "Does it?", "CONTEXTS": ["It was tried."], "final_decision": "yes"}
    (item,) = read_pubmedqa(b"\xef\xbb\xbf" + json.dumps({"123": row}).encode())
    assert item.answer == "A"
