"""From a dataset's lines to lessons, by one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurons.lessons.__main__ import main

OTHER = [{"role": "user", "content": "Where do I park?"}, {"role": "assistant", "content": "In the yard."}]
TALK = [{"role": "user", "content": "When are you open?"}, {"role": "assistant", "content": "On Monday."}]


def test_corrections_become_lessons_and_only_what_the_doctor_saw_of_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"messages": TALK, "consent": True, "correction": "On Tuesday."},
        {"messages": OTHER, "consent": True, "rating": 5},
        {"messages": TALK, "consent": True, "rating": 2},
        {"messages": TALK, "consent": False, "correction": "Secret."},
        {"messages": TALK, "consent": True, "correction": "x" * 3000},
    ]
    dataset = tmp_path / "day1.jsonl"
    dataset.write_text("\n".join(json.dumps(line) for line in lines))
    uri = f"file://{tmp_path}/store/dr-gurung"
    where = ["--twin-uri", uri]
    assert main(["publish", str(dataset), *where, "--twin-uid", "uid-1"]) == 0
    assert main(["list", *where]) == 0
    assert "twin uid-1: 1 correction, 1 liked" in capsys.readouterr().out
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store/dr-gurung/lessons").glob("*.jsonl"))
    assert b"Secret" not in stored
    assert stored.count(b'"approved":true') == 1
    assert main(["publish", str(dataset), *where, "--twin-uid", "uid-2"]) == 1
    assert "uid-1" in capsys.readouterr().err


def test_a_line_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "day1.jsonl"
    dataset.write_text('{"secret": 1}')
    assert main(["publish", str(dataset), "--twin-uri", f"file://{tmp_path}/t", "--twin-uid", "u"]) == 1
    said = capsys.readouterr().err
    assert "line 1" in said
    assert "secret" not in said
