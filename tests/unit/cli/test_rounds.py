"""`kubectl twin rounds` and `round`: what is asked, what is printed, and in how many columns."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import RenderableType

from bettertherapy_api import names
from bettertherapy_api.round_view import AnswerView, Evidence, MinerLine, MinerView, RoundView
from kubectl_twin.api import rounds_path
from kubectl_twin.errors import TwinCliError
from kubectl_twin.render_rounds import compared_text, miner_report, round_report, rounds_table
from kubectl_twin.rounds import Compared, find_round, hotkey_meant, ranked, recompute, require_same, row_of
from kubectl_twin.text_console import TextConsole

from .fake_api import MemoryApi

NOW = datetime(2026, 1, 2, 5, 0, tzinfo=UTC)
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
DIGEST = "sha256:" + "d" * 64


def made(name: str = "clinic-29401200", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "clinic", "creationTimestamp": "2026-01-02T03:00:00Z"},
        "spec": {"validatorRef": {"name": "clinic"}},
        "status": {
            "conditions": [{"type": "Complete", "status": "True", "reason": "ResultsStored"}], "scored": "18/20",
            "best": "uid 7, 91%", "duration": "3m12s", "resultsDigest": DIGEST,
            "weights": {"state": "Revealed", "block": 9},
            **status,
        },
    }  # fmt: skip


def view(*lines: MinerLine) -> RoundView:
    return RoundView(
        name="clinic-29401200", uid="u", validator="clinic", seed=4294967295, items=40, results_digest=DIGEST,
        start_time="2026-01-02T03:00:00Z", completion_time="2026-01-02T03:03:12Z",
        miners=lines or (
            MinerLine(uid=8, hotkey=BOB, answered=3, asked=40, notes=("its receipts don't verify",)),
            MinerLine(uid=7, hotkey=ALICE, score=91.2, correctness=95, clarity=90, speed=100, satisfaction=70,
                      participation=50, weight=1.0, answered=40, asked=40),
        ),
    )  # fmt: skip


def printed(what: RenderableType, width: int = 80) -> list[str]:
    out = io.StringIO()
    TextConsole(file=out, width=width).print(what)
    return out.getvalue().splitlines()


def test_the_list_fits_a_terminal_and_says_why_one_is_not_complete() -> None:
    failed = made("clinic-2", conditions=[
        {"type": "Complete", "status": "False", "reason": "RoundFailed"},
        {"type": "Failed", "status": "True", "reason": "Killed"},
    ])  # fmt: skip
    lines = printed(rounds_table([row_of(made()), row_of(failed)], now=NOW))
    assert all(len(line) <= 80 for line in lines)
    assert any("18/20" in line and "Revealed" in line for line in lines)
    assert any("Killed" in line for line in lines)


def test_a_round_is_a_table_of_eighty_columns_best_first() -> None:
    lines = printed(round_report(made(), view()))
    assert all(len(line) <= 80 for line in lines)
    rows = [line for line in lines if "…" in line and "%" in line and line.split()[0].isdigit()]
    assert rows[0].startswith("7 "), lines
    assert "91%" in rows[0]
    assert any("its receipts don't verify" in line for line in lines)
    assert [line.uid for line in ranked(view())] == [7, 8]


def bare(**changes: Any) -> RoundView:
    """Return what the ledger has of a round without miners in its results."""
    return view().model_copy(update={"miners": (), **changes})


def test_a_round_without_miners_says_why_there_is_no_table() -> None:
    asked = "\n".join(printed(round_report(made(), bare())))
    assert "No miner was asked." in asked
    assert "--miner" not in asked
    under_way = "\n".join(printed(round_report(made(), bare(results_digest=None, completion_time=None))))
    assert "No miner was asked" not in under_way
    assert "under way" in under_way
    assert "Its results are not there yet." in under_way
    failed = made(conditions=[{"type": "Failed", "status": "True", "reason": "Killed"}], resultsDigest=None)
    ended = " ".join(printed(round_report(failed, bare(results_digest=None, completion_time=None))))
    assert "under way" not in ended
    assert "It failed (Killed), and has no results: `kubectl describe round clinic-29401200` says why." in ended


def test_a_miner_of_a_round_without_results_is_not_said_to_be_left_out() -> None:
    with pytest.raises(TwinCliError, match="has no results yet"):
        hotkey_meant(bare(results_digest=None), "7")


def test_the_longest_line_and_one_of_a_miner_that_nothing_is_known_of_fit() -> None:
    full = MinerLine(
        uid=255, hotkey=ALICE, score=100, correctness=100, clarity=100, speed=100, satisfaction=100,
        participation=100, weight=1.0, answered=320, asked=320,
        notes=("not known, and taken as the middle of all: speed 100%, satisfaction 100%, participation 100%",),
    )  # fmt: skip
    lines = printed(
        round_report(made(metricsFresh=False), view(full, MinerLine(uid=0, hotkey=BOB, answered=0, asked=0)))
    )
    assert all(len(line) <= 80 for line in lines), lines
    header = next(line for line in lines if line.split()[:1] == ["UID"])
    of_full = next(line for line in lines if line.split()[:1] == ["255"])
    assert of_full.rstrip().endswith("320/320")
    assert len(header.split()) == len(of_full.split()) == 9


def test_an_earlier_round_of_the_same_name_is_not_shown_in_its_place() -> None:
    thing = made()
    thing["metadata"]["uid"] = "the-second"
    with pytest.raises(TwinCliError, match="an earlier round of that name, which began 2026-01-02T03:00:00Z"):
        require_same(thing, view())
    thing["metadata"]["uid"] = "u"
    require_same(thing, view())


def test_a_miner_is_shown_down_to_the_passage_and_moves_no_cursor() -> None:
    answer = AnswerView(
        item="i", twin="dr-a", kind="gold", question="What now?", answer="Rest\x1b[2J.", expected="Rest.", score=90,
        how="rubric", milliseconds=1500,
        evidence=(
            Evidence(
                claim="Rest helps", verdict="supported", source="medlineplus", url="https://x", passage="rest\x07"
            ),
        ),
    )  # fmt: skip
    said = MinerView(round="r", miner=view().miners[1], answers=(answer, answer))
    text = "\n".join(printed(miner_report(said, most=1)))
    for part in ("What now?", "Rest", "supported: Rest helps", "medlineplus", "1.50 s", "and 1 more: --items 2"):
        assert part in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_miner_is_named_by_uid_hotkey_or_its_beginning() -> None:
    shown = view()
    assert [hotkey_meant(shown, said) for said in ("7", ALICE, "5Grw")] == [ALICE] * 3
    for said, why in (("5", "2 miners"), ("9", "asked no miner")):
        with pytest.raises(TwinCliError, match=why):
            hotkey_meant(shown, said)


class Rounds(MemoryApi):
    """Plays the operator: answers a demand, if it is to."""

    def __init__(self, thing: dict[str, Any], *, answer: str | None = DIGEST) -> None:
        super().__init__(react=lambda api: self._answer())
        self.objects[rounds_path("clinic", thing["metadata"]["name"])] = thing
        self.thing, self.answer = thing, answer

    def _answer(self) -> None:
        token = (self.thing["metadata"].get("annotations") or {}).get(names.RECOMPUTE_ANNOTATION)
        if token is not None and self.answer is not None and self.time > 0:
            same = self.answer == DIGEST
            self.thing["status"]["recomputed"] = {"token": token, "digest": self.answer, "same": same}


def test_results_are_reckoned_again_and_compared() -> None:
    thing = made()
    api = Rounds(thing)
    found = recompute(api, thing, namespace="clinic", timeout_seconds=60, clock=api.clock)
    assert (found.same, found.digest, found.before) == (True, DIGEST, DIGEST)
    other = Rounds(made(), answer="sha256:" + "e" * 64)
    assert not recompute(other, other.thing, namespace="clinic", timeout_seconds=60, clock=other.clock).same


def test_an_old_answer_is_not_taken_for_the_new_one_and_none_is_waited_for_in_vain() -> None:
    thing = made(recomputed={"token": "old", "digest": DIGEST, "same": True})
    api = Rounds(thing, answer=None)
    with pytest.raises(TwinCliError, match="was not reckoned again within 30 s"):
        recompute(api, thing, namespace="clinic", timeout_seconds=30, clock=api.clock)
    with pytest.raises(TwinCliError, match="has no results"):
        recompute(api, made(resultsDigest=None), namespace="clinic", timeout_seconds=30, clock=api.clock)


def test_what_came_of_it_is_one_sentence() -> None:
    assert "give the same results" in str(compared_text("r", Compared(DIGEST, DIGEST, True, None)))
    assert "give other results" in str(compared_text("r", Compared("sha256:e", DIGEST, False, "uid 7")))
    assert "could not be reckoned" in str(compared_text("r", Compared(None, DIGEST, False, "it failed")))


def test_a_round_that_is_not_there_names_those_near() -> None:
    api = Rounds(made())
    with pytest.raises(TwinCliError, match="Did you mean clinic-29401200"):
        find_round(api, namespace="clinic", name="clinic-29401201")
