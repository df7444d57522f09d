# ruff: noqa: E501 - samples are kept as they are published, a line each
"""Files as people publish them become lines that the trainer reads, or are refused in words with their line."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from neurons.importers import Import, Shape, import_lines
from neurons.importers.__main__ import main
from neurons.importers.documents import NotReadable
from neurons.trainer.dataset import read_dataset, read_lines

ASK = {"role": "user", "content": "My knee hurts."}
ANSWER = {"role": "assistant", "content": "Rest it for two days."}
CHAT = [ASK, ANSWER]
SHARED = [{"from": "human", "value": "My knee hurts."}, {"from": "gpt", "value": "Rest it for two days."}]
SYSTEM = {"role": "system", "content": "You are careful."}


def imported(
    data: bytes, shape: Shape, *, consent: bool = True
) -> tuple[list[dict[str, Any]], list[tuple[int, str]], Import]:
    told, target = Import(), io.BytesIO()
    refused = [
        (each.number, each.why)
        for each in import_lines(io.BytesIO(data), target, shape=shape, consent=consent, told=told)
    ]
    assert told.read == told.written + sum(told.refused.values())
    assert len(read_lines(target.getvalue(), where="out").lines) == told.written
    return [json.loads(line) for line in target.getvalue().splitlines()], refused, told


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in documents)


def one(document: Any, shape: Shape) -> dict[str, Any]:
    found, refused, _ = imported(lines(document), shape)
    assert not refused
    return found[0]


def why_not(document: Any, shape: Shape) -> str:
    found, refused, _ = imported(lines(document), shape)
    assert not found
    return refused[0][1]


@pytest.mark.parametrize(
    ("shape", "document", "messages"),
    [
        (Shape.OPENAI, {"messages": CHAT}, CHAT),
        (Shape.OPENAI, {"messages": [{"role": "developer", "content": "You are careful."}, *CHAT]}, [SYSTEM, *CHAT]),
        (Shape.OPENAI, {"messages": [{"role": "user", "content": [{"type": "text", "text": "My knee hurts."}]}, {**ANSWER, "weight": 1}]}, CHAT),
        (Shape.OPENAI, {"messages": [{**ASK, "name": "p1"}, {**ANSWER, "refusal": None}], "parallel_tool_calls": False}, CHAT),
        (Shape.SHAREGPT, {"conversations": SHARED}, CHAT),
        (Shape.SHAREGPT, {"id": "QWJhYvA_0", "conversations": [{**each, "markdown": None} for each in SHARED]}, CHAT),
        (Shape.SHAREGPT, {"conversations": SHARED, "system": "You are careful.", "tools": ""}, [SYSTEM, *CHAT]),
        (Shape.SHAREGPT, {"conversation": [{"role": "Human", "content": "My knee hurts."}, {"role": "GPT", "content": "Rest it for two days."}]}, CHAT),
        (Shape.SHAREGPT, {"conversations": [{"from": "gpt", "value": "Hello!"}, *SHARED]}, CHAT),
        (Shape.ALPACA, {"instruction": "My knee hurts.", "input": "", "output": "Rest it for two days.", "text": "Below is …"}, CHAT),
        (Shape.ALPACA, {"instruction": "My knee hurts.", "input": "<noinput>", "output": "Rest it for two days."}, CHAT),
        (Shape.ALPACA, {"instruction": "Answer.", "input": "My knee hurts.", "output": "Rest it for two days."}, [{"role": "user", "content": "Answer.\n\nMy knee hurts."}, ANSWER]),
        (Shape.ALPACA, {"instruction": "My knee hurts.", "output": "Rest it for two days.", "system": "You are careful.", "history": [["Hi", "Hello"]]}, [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *CHAT]),
    ],
)  # fmt: skip
def test_conversations_become_ours(shape: Shape, document: Any, messages: Any) -> None:
    line = one(document, shape)
    assert line["messages"] == messages
    assert line["consent"] is True


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": "My knee hurts.", "chosen": "Rest it.", "rejected": "Run."},
        {"prompt": [ASK], "chosen": [{"role": "assistant", "content": "Rest it."}], "rejected": [{"role": "assistant", "content": "Run."}]},
        {"chosen": [ASK, {"role": "assistant", "content": "Rest it."}], "rejected": [ASK, {"role": "assistant", "content": "Run."}]},
        {"prompt": "My knee hurts.", "chosen": [ASK, {"role": "assistant", "content": "Rest it."}], "rejected": [ASK, {"role": "assistant", "content": "Run."}], "score_chosen": 8.0, "score_rejected": 4.0},
        {"chosen": "\n\nHuman: My knee hurts.\n\nAssistant: Rest it.", "rejected": "\n\nHuman: My knee hurts.\n\nAssistant: Run."},
    ],
)  # fmt: skip
def test_preferences_of_trl_become_pairs(document: Any) -> None:
    line = one(document, Shape.PREFERENCE)
    assert line["messages"] == [ASK]
    assert (line["preferred"], line["rejected"]) == ("Rest it.", "Run.")


@pytest.mark.parametrize(
    ("shape", "document", "why"),
    [
        (Shape.OPENAI, {"messages": CHAT, "tools": [{"type": "function"}]}, "tools"),
        (Shape.OPENAI, {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}, "message 2: a call of a tool"),
        (Shape.OPENAI, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]}, "message 1: a picture"),
        (Shape.OPENAI, {"messages": [ASK, {**ANSWER, "weight": 0}]}, "weight 0"),
        (Shape.OPENAI, {"messages": CHAT, "Consent": True}, "unknown (`Consent`)"),
        (Shape.OPENAI, {"conversations": SHARED}, "unknown (`conversations`)"),
        (Shape.OPENAI, {"messages": [ASK]}, "a question without an answer"),
        (Shape.OPENAI, {"messages": "hello"}, "a text"),
        (Shape.SHAREGPT, {"conversations": []}, "is missing, or holds no word"),
        (Shape.OPENAI, {"messages": [{**ASK, "content": "cut \ufffd"}, ANSWER]}, "half a character"),
        (Shape.OPENAI, {"input": {"messages": [ASK]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}, "convert it to `prompt`"),
        (Shape.OPENAI, {"custom_id": "1", "method": "POST", "body": {"messages": CHAT}}, "batch shape"),
        (Shape.OPENAI, {"title": "Knee", "create_time": 1.0, "mapping": {}}, "ChatGPT's export"),
        (Shape.SHAREGPT, {"items": SHARED, "conversations": SHARED}, "both"),
        (Shape.SHAREGPT, {"conversations": [{"from": "observation", "value": "{}"}]}, "call of a tool"),
        (Shape.SHAREGPT, {"conversations": [{"value": "My secret words"}]}, "who speaks is not said"),
        (Shape.SHAREGPT, {"conversations": [SYSTEM, *SHARED], "system": "Other"}, "which one counts"),
        (Shape.ALPACA, {"instruction": "My knee hurts.", "input": ""}, "`output` is missing"),
        (Shape.ALPACA, {"instruction": "My knee hurts.", "output": ""}, "the trainer can't learn it"),
        (Shape.ALPACA, {"instruction": "a", "output": "b", "history": [["x"]]}, "`history`, entry 1"),
        (Shape.PREFERENCE, {"prompt": "a", "chosen": "Rest."}, "`rejected` is missing"),
        (Shape.PREFERENCE, {"prompt": "a", "chosen": "Rest.", "rejected": "Rest."}, "equalAnswers"),
        (Shape.PREFERENCE, {"chosen": [ASK, ANSWER], "rejected": [{**ASK, "content": "Other"}, ANSWER]}, "differ before"),
        (Shape.PREFERENCE, {"prompt": "Mine", "chosen": [ASK, ANSWER], "rejected": [ASK, {**ANSWER, "content": "Run."}]}, "isn't what"),
        (Shape.PREFERENCE, {"prompt": "a", "chosen": "Rest.", "rejected": ["Run."]}, "neither both"),
        (Shape.PREFERENCE, {"prompt": "a", "chosen": "\n\nHuman: a\n\nAssistant: Rest.", "rejected": "\n\nHuman: a\n\nAssistant: Run."}, "whole conversation as one text"),
        (Shape.PREFERENCE, {"prompt": [ASK], "chosen": "Rest.", "rejected": "Run.\n\nHuman: Thanks"}, "whole conversation as one text"),
        (Shape.PREFERENCE, {"prompt": "a", "completion": "b", "label": True}, "unknown (`completion`)"),
        (Shape.OPENAI, {"messages": CHAT, "rating": 1}, "rated 1 or 2"),
        (Shape.OPENAI, {"messages": CHAT, "consent": "yes"}, "`consent` is not true or false"),
        (Shape.OPENAI, {"messages": [{**ASK, "content": "My name is Jane Roe"}, ANSWER]}, "an identifier is left in it: name"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_words_without_a_patients(shape: Shape, document: Any, why: str) -> None:
    said = why_not(document, shape)
    assert why in said
    assert "knee" not in said
    assert "secret" not in said
    assert "Jane" not in said


def test_nothing_is_imported_without_consent_and_the_lines_own_no_is_kept() -> None:
    found, refused, _ = imported(lines({"messages": CHAT}), Shape.OPENAI, consent=False)
    assert not found
    assert "--consent" in refused[0][1]
    assert "no consent" in why_not({"messages": CHAT, "consent": False}, Shape.OPENAI)


def test_marks_line_ends_and_blank_lines_are_read_over() -> None:
    line = json.dumps({"messages": CHAT}).encode()
    for data in (
        b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line,
        line + b"\r" + line + b"\r",
        b"\n\n" + line + b"\n" + line,
    ):
        assert len(imported(data, Shape.OPENAI)[0]) == 2


def test_a_list_is_read_object_by_object() -> None:
    document = {"instruction": 'Say ]} or \\" [{', "input": "", "output": "दुख्छ"}
    for text in (json.dumps([document] * 3), json.dumps([document] * 3, indent=2, ensure_ascii=False)):
        found, refused, _ = imported(b"\xef\xbb\xbf" + text.encode(), Shape.ALPACA)
        assert len(found) == 3
        assert not refused
        assert found[0]["messages"][1]["content"] == "दुख्छ"


def test_a_list_that_was_cut_says_so_and_keeps_what_was_whole() -> None:
    data = json.dumps([{"instruction": "a b", "output": "c d"}] * 2).encode()[:-8]
    found, refused, _ = imported(data, Shape.ALPACA)
    assert len(found) == 1
    assert refused[0][0] == 2
    assert "cut" in refused[0][1]


def test_a_bad_line_names_its_number_and_loses_no_other() -> None:
    good = json.dumps({"messages": CHAT}).encode()
    data = b"\n".join([good, b'{"messages": [', b'{"messages": "caf\xe9"}', b"", good, b'{"a": 1}{"b": 2}'])
    found, refused, told = imported(data, Shape.OPENAI)
    assert len(found) == 2
    assert [number for number, _ in refused] == [2, 3, 6]
    assert "UTF-8" in refused[1][1]
    assert told.read == 5


@pytest.mark.parametrize("data", [b"\x1f\x8b\x08abc", "{}".encode("utf-16"), b"PAR1....", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_not_begun(data: bytes) -> None:
    with pytest.raises(NotReadable):
        imported(data, Shape.OPENAI)


def test_what_is_left_away_is_counted() -> None:
    _, _, told = imported(lines({"conversations": SHARED, "source": "web", "model": "x"}), Shape.SHAREGPT)
    assert told.left_away == {"source": 1, "model": 1}


def test_a_big_file_is_never_held(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = json.dumps({"messages": [ASK, {**ANSWER, "content": "Rest it for two days. "}]}).encode() + b"\n"
    with source.open("wb") as file:
        for _ in range(200):
            file.write(line)
        file.write(b'{"messages": "' + b"x" * 60_000_000 + b'"}\n')
    tracemalloc.start()
    told = Import()
    with source.open("rb") as file, target.open("wb") as out:
        refused = list(import_lines(file, out, shape=Shape.OPENAI, consent=True, told=told))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.written == 200
    assert [each.number for each in refused] == [201]
    assert peak < source.stat().st_size / 2


def test_the_command_writes_what_the_trainer_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_bytes(lines({"conversations": SHARED}, {"conversations": 3}))
    assert main(["--from", "sharegpt", "--consent", str(source), str(target)]) == 1
    said = capsys.readouterr()
    assert "line 2: refused: " in said.err
    assert json.loads(said.out)["written"] == 1
    assert len(read_dataset(target).lines) == 1
    assert main(["--from", "sharegpt", "--consent", str(source), str(target)]) == 2
    assert "--force" in capsys.readouterr().err


def test_the_command_leaves_nothing_half_written(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"not json\n")
    assert main(["--from", "openai", "--consent", str(source), str(target)]) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]
    assert main(["--from", "openai", str(tmp_path / "none"), str(target)]) == 2
