"""Whatever comes from a cluster is printed as text: hostile strings in every field, through every command."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.run_progress import REVIEW_KEY
from kubectl_twin import main as plugin
from kubectl_twin import terminal
from kubectl_twin.text_console import TextConsole

from .fake_api import MemoryApi
from .objects import condition, digest, judged, training, tuned_twin, version

CLI = Path(__file__).parents[3] / "cli" / "kubectl_twin"
HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[8m\x9b31m\x1bPq\x1b\\\r\x08\x7f[red]x[/red][/nope][link=http://evil]y[/link]"
    "\x1b]8;;http://evil\x1b\\z\u202eabc\u202c\u2066d\u2069\u200f\u061c\u2028\U000e0041:smile:"
)
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
STYLES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r")
"""What Rich itself sends to a terminal."""
KEPT = {
    "namespace", "uid", "digest", "parentDigest", "datasetDigest", "specDigest", "type", "status", "verdict",
    "creationTimestamp", "startTime", "completionTime", "since", "until", "time", "lastTransitionTime",
    "nextFineTuneTime", "lastFineTuneTime", "approval",
}  # fmt: skip
"""Fields that the API server or the schema keeps from holding just anything, or by which things are found."""


def poisoned(thing: Any, key: str = "", of: str = "") -> Any:
    """Return an object with something hostile behind every string that may hold just anything."""
    if isinstance(thing, dict):
        return {name: poisoned(each, name, key) for name, each in thing.items()}
    if isinstance(thing, list):
        return [poisoned(each, key, of) for each in thing]
    kept = key in KEPT or (key == "name" and of in ("metadata", "twinRef", "validatorRef"))
    return f"{thing}{HOSTILE}" if isinstance(thing, str) and not kept else thing


def world() -> MemoryApi:
    """A twin with everything: versions of all kinds, a run under way, one that was judged, and its answers."""
    refused = [{"digest": digest("e"), "reason": "RejectedByDoctor", "message": "no", "time": "2026-02-28T02:00:00Z"}]
    twin = tuned_twin(
        conditions=[condition("Ready", "False", "Loading", "1 of 2"), condition("Serving", "True", "Serving", "x")],
        pendingVersion=version("d", runName="dr-gurung-3"), refusedVersions=refused,
    )  # fmt: skip
    run = judged()
    item = {
        "id": "q", "kind": "safety", "question": "q?", "parent": "p", "child": "c", "parentPercent": 1,
        "childPercent": 2, "warning": "w", "expected": "e", "way": "judge", "ungraded": "u",
    }  # fmt: skip
    kept = {"metadata": {"name": "dr-gurung-3-examination"}, "spec": {}}
    answers = {REVIEW_KEY: json.dumps({"items": [poisoned(item)], "of": 9})}
    made_round = {
        "metadata": {"name": "round-1", "namespace": "clinic", "creationTimestamp": "2026-03-01T00:00:00Z"},
        "spec": {"validatorRef": {"name": "v"}},
        "status": {"scored": "1/2", "best": "5Fx", "weights": {"state": "Set"}, "duration": "3s", "conditions": [
            condition("Complete", "True", "Complete", "done")
        ]},
    }  # fmt: skip
    api = MemoryApi(poisoned(twin), poisoned(run), poisoned(training()))
    api.put({**kept, "data": answers})
    api.objects["/apis/bettertherapy.io/v1alpha1/namespaces/clinic/validatorrounds/round-1"] = poisoned(made_round)
    for core in ("pods", "events"):
        api.objects[f"/api/v1/namespaces/clinic/{core}/x"] = poisoned(
            {"metadata": {"name": "x", "uid": "u"}, "reason": "r", "message": "m", "type": "Normal", "spec": {}}
        )
    return api


COMMANDS = (
    ("list",), ("list", "-o", "json"), ("list", "-o", "yaml"),
    ("status", "dr-gurung"), ("review", "dr-gurung", "--run", "dr-gurung-3"),
    ("review", "dr-gurung", "--run", "dr-gurung-3", "-o", "json"), ("history", "dr-gurung"),
    ("history", "dr-gurung", "-o", "json"), ("lineage", "dr-gurung"), ("lineage", "dr-gurung", "-o", "json"),
    ("approve", "dr-gurung"), ("approve", "dr-gurung", "--digest", "d" * 12, "--no-wait"),
    ("approve", "dr-gurung", "--digest", "e" * 12), ("reject", "dr-gurung", "--no-wait"),
    ("reject", "dr-gurung", "--digest", "e" * 12), ("rollback", "dr-gurung", "--no-wait"),
    ("rollback", "dr-gurung", "--to", "ffff"), ("rollback", "dr-gurung", "--timeout", "1"),
    ("rounds",), ("rounds", "-o", "json"),
    ("round", "round-1"), ("round", "round-2"), ("finetune", "dr-gurung", "--no-wait"), ("status", "dr-gurun"),
    ("ask", "dr-gurung", "hello"), ("ask", "dr-gurung", "hello", "--pool", "nope"),
)  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command on a poisoned cluster, with or without a terminal; returns all that it wrote."""

    def command(*arguments: str, tty: bool = False, api: MemoryApi | None = None) -> str:
        out = io.StringIO()
        out.isatty = lambda: tty  # type: ignore[method-assign]
        api = api or world()
        monkeypatch.setattr("kubectl_twin.api.Api.connect", lambda **_: api)
        monkeypatch.setattr(MemoryApi, "__enter__", lambda self: self, raising=False)
        monkeypatch.setattr(MemoryApi, "__exit__", lambda *_: None, raising=False)
        monkeypatch.setattr("kubectl_twin.decide.Clock", lambda: api.clock)
        monkeypatch.setattr("kubectl_twin.finetune.Clock", lambda: api.clock)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", out)
        monkeypatch.setattr(sys, "argv", ["kubectl-twin", *arguments])
        monkeypatch.setenv("TERM", "xterm-256color" if tty else "dumb")
        monkeypatch.setenv("COLUMNS", "200")  # no column goes for want of room
        with contextlib.suppress(SystemExit):
            plugin.main()
        monkeypatch.undo()
        return out.getvalue()

    return command


@pytest.mark.parametrize("tty", [False, True], ids=["piped", "terminal"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_of_a_cluster_is_obeyed(run: Callable[..., str], command: tuple[str, ...], tty: bool) -> None:
    said = run(*command, tty=tty)
    assert said.strip()
    assert OBEYED.findall(STYLES.sub("", said)) == []
    assert "\x1b[8m" not in said
    assert "\x1b]" not in said


def test_what_is_hostile_was_there_to_be_printed(run: Callable[..., str]) -> None:
    """Else the test above would show nothing."""
    for command in COMMANDS:
        if command[0] in ("list", "status", "review", "history", "lineage", "rounds") and command[-1] != "dr-gurun":
            said = run(*command)
            assert "[red]x[/red]" in re.sub(r"\s", "", said), command


def test_json_is_the_same_to_a_program(run: Callable[..., str]) -> None:
    [twin] = json.loads(run("list", "-o", "json"))["items"]
    assert twin["spec"]["doctor"]["name"].endswith(HOSTILE)


def test_a_hostile_answer_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write(HOSTILE)
    assert OBEYED.findall(capsys.readouterr().out) == []


def test_letters_of_all_scripts_stay() -> None:
    for text in ("न\u200dमस्ते", "नेपाली", "السلام", "日本語\n\tA", "👩\u200d⚕️"):
        assert terminal.as_text(text) == text


@pytest.mark.parametrize("character", [chr(number) for number in (*range(32), *range(0x7F, 0xA0))])
def test_no_control_character_passes(character: str) -> None:
    assert (character in terminal.as_text(f"a{character}b")) == (character in "\n\t")
    out = io.StringIO()
    TextConsole(file=out).print(f"a{character}b")
    assert not [each for each in out.getvalue() if unicodedata.category(each) == "Cc" and each != "\n"]


def test_programs_that_it_runs_are_printed_as_text(capfd: pytest.CaptureFixture[str]) -> None:
    code = f"import sys; print({HOSTILE!r}); sys.stderr.write({HOSTILE!r}); sys.exit(3)"
    assert terminal.run_program([sys.executable, "-X", "utf8", "-c", code]) == 3
    told = capfd.readouterr()
    assert OBEYED.findall(told.out + told.err) == []
    assert "]52;c;" in told.out
    assert "]52;c;" in told.err


def test_nothing_else_writes_to_the_terminal() -> None:
    """No other module prints, nor makes a console, nor lets a child have the streams."""
    found = []
    for path in sorted(CLI.rglob("*.py")):
        if path.name in ("terminal.py", "text_console.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            captured = any(each.arg == "capture_output" for each in node.keywords)
            # A credential plugin is the person's own, and tells her on standard error where to log in.
            captured |= path.name == "kubeconfig.py" and any(each.arg == "stdout" for each in node.keywords)
            if (
                name in ("print", "Console", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt", "input")
                or name.startswith(("sys.stdout.write", "sys.stderr.write"))
                or (name.startswith("subprocess.") and not captured)
            ):
                found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []
