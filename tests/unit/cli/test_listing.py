"""`kubectl twin list`: readable on a narrow terminal, quick, and as programs read it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from kubectl_twin import quick
from kubectl_twin.columns import width_of
from kubectl_twin.errors import ApiError
from kubectl_twin.listing import cells, list_twins, table_of
from kubectl_twin.program import app
from kubectl_twin.views import TwinRow, twin_row

from .fake_api import MemoryApi
from .objects import Json, condition, serving_twin, twin

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG = "dr-maria-del-carmen-fernandez-rodriguez-of-santa-cruz-clinic-12"  # 63 letters: as long as a name may be


def lines(rows: list[TwinRow], *, width: int | None, all_namespaces: bool = False) -> list[str]:
    made = table_of(rows, now=NOW, all_namespaces=all_namespaces, width=width)
    skip = 0 if all_namespaces else 1
    shown = [made.head(), *(line for row in rows for line in made.lines(cells(row, NOW)[skip:]))]
    return ["".join(cell.text for cell in line).rstrip() for line in shown]


def rows_of(*names: str) -> list[TwinRow]:
    waiting = twin("dr-okafor", conditions=[condition("Ready", "False", "ServedNameCollision")])
    return [*(twin_row(serving_twin(name)) for name in names), twin_row(waiting)]


def test_where_there_is_room_each_twin_has_one_line_with_all_there_is() -> None:
    head, first, second = lines(rows_of("dr-gurung"), width=None)
    assert head.split() == ["NAME", "DOCTOR", "POOLS", "SERVING", "READY", "ACTIVE", "LOADED", "AGE"]
    assert first.split() == [
        "dr-gurung", "Dr.", "Indra", "Gurung", "pool-a,pool-b", "True", "True", "sha256:ab12ab12ab12", "2/2", "2h"
    ]  # fmt: skip
    assert "False (ServedNameCollision)" in second
    assert {len(line.split("Dr.")[0]) for line in (first, second)} == {len("dr-gurung   ")}


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", ["dr-gurung", "dr-indra-bahadur-gurung-kathmandu-clinic", LONG])
def test_on_a_narrow_terminal_columns_go_and_names_stay(name: str, width: int) -> None:
    shown = lines(rows_of(name), width=width)
    assert shown[1].split()[0] == name
    assert {"NAME", "SERVING", "READY"} <= set(shown[0].split())
    assert all(len(line) <= max(width, len(name)) for line in shown)


def test_one_long_name_costs_the_others_no_column() -> None:
    head, long, rest, short = lines(rows_of(LONG), width=80)
    assert long == LONG
    assert rest.startswith(" ")
    assert rest.split()[-4:] == ["True", "True", "2/2", "2h"]
    assert "False (ServedNameCollision)" in short
    assert rest.index("True") == short.index("Unknown") == head.index("SERVING")
    assert lines(rows_of(LONG), width=None)[1].startswith(f"{LONG}   Dr.")


def test_a_long_namespace_stays_beside_its_long_name() -> None:
    long = lines(rows_of(LONG), width=100, all_namespaces=True)[1]
    assert long.split() == ["clinic", LONG]


def test_namespaces_are_shown_only_when_asked_for_all() -> None:
    assert lines(rows_of("dr-gurung"), width=80, all_namespaces=True)[1].split()[:2] == ["clinic", "dr-gurung"]
    assert "clinic" not in "".join(lines(rows_of("dr-gurung"), width=None))


def test_a_doctor_whose_name_is_wide_shifts_no_column() -> None:
    obj = serving_twin()
    obj["spec"]["doctor"]["name"] = "李医生 डा. गुरुङ"
    head, first, _ = lines([twin_row(obj), *rows_of()], width=None)
    assert width_of(first[: first.index("pool-a")]) == head.index("POOLS")


class WatchedApi(MemoryApi):
    """Tells of two changes, then that it can tell no more, then nothing."""

    def __init__(self, *objects: Json, then: list[Json]) -> None:
        super().__init__(*objects)
        self.then = then
        self.asked_since: list[str] = []

    def get(self, path: str, query: Any = None) -> Json:
        return {**super().get(path, query), "metadata": {"resourceVersion": "7"}}

    def watch(self, path: str, *, since: str, fields: str | None = None) -> Iterator[tuple[str, Json]]:
        self.asked_since.append(since)
        if len(self.asked_since) == 2:
            raise ApiError("too old", status=410)
        if not self.then:
            raise KeyboardInterrupt
        while self.then:
            changed = self.then.pop(0)
            yield "MODIFIED", {**changed, "metadata": {**changed["metadata"], "resourceVersion": "9"}}


def test_watching_prints_each_change_in_the_same_columns(capsys: pytest.CaptureFixture[str]) -> None:
    api = WatchedApi(
        serving_twin(), then=[twin("dr-gurung", conditions=[condition("Ready", "False", "DigestMismatch")])]
    )
    with pytest.raises(KeyboardInterrupt):
        list_twins(api, namespace="clinic", output="table", watch=True)
    head, first, changed = capsys.readouterr().out.splitlines()
    assert "False (DigestMismatch)" in changed
    assert first.index("True") == changed.index("Unknown") == head.index("SERVING")
    assert api.asked_since == ["7", "9", "7"]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_read_whole_objects(output: str, read: Any, capsys: pytest.CaptureFixture[str]) -> None:
    obj = serving_twin()
    obj["spec"]["doctor"]["name"] = "Dr. \u202eX\x1b[2J"
    obj["metadata"]["managedFields"] = [{}]
    list_twins(MemoryApi(obj), namespace="clinic", output=output, watch=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\u202e" not in said
    found = read(said)
    assert found["items"][0]["kind"] == "DoctorTwin"
    assert found["items"][0]["spec"] == obj["spec"]
    assert "managedFields" not in found["items"][0]["metadata"]


def test_names_are_those_that_kubectl_takes(capsys: pytest.CaptureFixture[str]) -> None:
    list_twins(MemoryApi(serving_twin()), namespace="clinic", output="name", watch=False)
    assert capsys.readouterr().out == "doctortwin.bettertherapy.io/dr-gurung\n"


def test_the_quick_way_knows_the_options_that_the_command_has() -> None:
    import typer.main

    command: Any = typer.main.get_command(app)
    known = {name for each in command.commands["list"].params for name in each.opts}
    assert known - {"--help", "-h"} == {*quick.VALUES, *quick.FLAGS}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("list", {}),
        ("list -A -o json", {"all": [], "output": ["json"]}),
        ("list -nclinic --context=x", {"namespace": ["clinic"], "context": ["x"]}),
        ("list --as a --as-group b --as-group=c -w", {"as": ["a"], "as-group": ["b", "c"], "watch": []}),
        ("list -n a -n b", {"namespace": ["b"]}),
    ],
)
def test_the_quick_way_reads_what_is_surely_meant(arguments: str, read: dict[str, list[str]]) -> None:
    assert quick.read(arguments.split()) == read


@pytest.mark.parametrize("arguments", ["", "status x", "list -h", "list -o xml", "list -n", "list -n -A", "list x"])
def test_all_else_is_left_to_who_can_say_what_is_wrong(arguments: str) -> None:
    assert quick.read(arguments.split()) is None


def test_a_list_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys; from kubectl_twin import quick\n"
        "from kubectl_twin.errors import TwinCliError\n"
        "try:\n    quick.run(['list', '--kubeconfig', '/nonexistent'])\n"
        "except TwinCliError as error:\n    print(error)\n"
        "import kubectl_twin.listing\n"
        "slow = ['typer', 'rich', 'pydantic', 'kubernetes', 'urllib3', 'subprocess', 'asyncio', 'dataclasses']\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
