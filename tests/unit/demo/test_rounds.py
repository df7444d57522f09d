"""The demo's round: what the cluster is told, what miners are asked, and what becomes of it, against a real chain."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bettertherapy_api.round_view import MinerLine, RoundView
from bettertherapy_api.validator import ValidatorSpec
from bettertherapy_api.validator_round import ValidatorRoundSpec
from demo import gateway, pages, rounds, show
from demo.__main__ import _parser
from demo.doctors import DOCTORS
from demo.errors import DemoError
from demo.installation import STORE_CLAIM
from demo.kube import Kube
from demo.miners import CARELESS, SECOND
from demo.subnet import _HYPERPARAMETERS
from kubectl_twin.errors import TwinCliError
from kubectl_twin.rounds import Compared
from neurons.chain import set_weights
from neurons.validator.rounds.challenges import load_challenges
from neurons.validator.rounds.drawing import replays_of
from neurons.validator.rounds.grades import grade_exactly
from tests.unit.chain.conftest import no_symbol_cache, open_local, subnet
from tests.unit.chain.played import NETUID, Subnet, hotkey

__all__ = ["no_symbol_cache", "open_local", "subnet"]
DIGEST = "sha256:" + "5" * 64


def kube_of(folder: Path, script: str) -> Kube:
    """A kubectl that does what the script says."""
    path = folder / "kubectl"
    path.write_text(f"#!{sys.executable}\nimport json, pathlib, sys\nhere = pathlib.Path({str(folder)!r})\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Kube(kubectl_program=str(path), helm_program="helm", kubeconfig=None)


def saying(folder: Path, *conditions: tuple[str, str, str], **status: Any) -> Kube:
    """A cluster whose round says this of itself, and that has no pods."""
    said = [{"type": kind, "status": truth, "reason": reason, "message": "m"} for kind, truth, reason in conditions]
    made = {"metadata": {"name": "r"}, "status": {"conditions": said, **status}}
    return kube_of(folder, f"print({json.dumps(json.dumps(made))} if 'validatorround' in sys.argv else '')")


def test_the_validator_asks_the_clinics_own_questions_and_sets_weights_when_somebody_holds_a_round() -> None:
    spec = ValidatorSpec.model_validate(rounds.validator()["spec"])
    assert spec.rounds is not None
    assert spec.rounds.challenges is not None
    assert spec.rounds.suspend, "a round that a schedule made would be in the way of the demo's"
    assert spec.rounds.challenges.uri == f"pvc://{STORE_CLAIM}/rounds/questions.jsonl"
    assert spec.rounds.challenges.digest == load_challenges(rounds.QUESTIONS).digest
    own = len(load_challenges(rounds.QUESTIONS).challenges)
    assert spec.rounds.items_per_twin - replays_of(spec.rounds.items_per_twin, 100) == own
    assert spec.rewards is not None
    assert spec.scoring is not None
    before = ValidatorSpec.model_validate(gateway.validator()["spec"])
    assert before.rounds is None
    assert spec.gateway == before.gateway, "the gateway's pods are not to be made anew"


def test_a_round_is_of_one_twin_and_of_exactly_these_questions() -> None:
    made = rounds.round_object("front-desk-1", DOCTORS[0])
    spec = ValidatorRoundSpec.model_validate(made["spec"])
    assert (spec.validator_ref.name, spec.twins) == ("front-desk", [DOCTORS[0].twin])
    assert spec.challenge_digest == load_challenges(rounds.QUESTIONS).digest


def test_what_the_doctor_would_answer_is_graded_by_words_alone_and_the_furniture_shop_gets_nothing() -> None:
    for challenge in load_challenges(rounds.QUESTIONS).challenges:
        good = grade_exactly(challenge, challenge.gold)  # type: ignore[union-attr]
        bad = grade_exactly(challenge, "Our new armchair costs 300. Is it to be delivered?")
        assert good is not None
        assert bad is not None
        assert (good.value, bad.value) == (1.0, 0.0), challenge.id


def test_weights_may_be_set_as_soon_as_an_epoch_has_run() -> None:
    assert _HYPERPARAMETERS["weights_rate_limit"] <= _HYPERPARAMETERS["tempo"]


def test_a_round_stands_beside_those_of_earlier_runs(tmp_path: Path) -> None:
    known = json.dumps({"items": [{"metadata": {"name": f"front-desk-{n}"}} for n in (1, 3)]})
    script = f"""
if "get" in sys.argv:
    print({known!r})
else:
    here.joinpath("made").write_text(sys.stdin.read())
"""
    assert rounds.create(kube_of(tmp_path, script), DOCTORS[0]) == "front-desk-2"
    assert json.loads((tmp_path / "made").read_text())["metadata"]["name"] == "front-desk-2"


def test_a_round_is_waited_for(tmp_path: Path) -> None:
    kube = saying(tmp_path, ("Complete", "True", "ResultsStored"), resultsDigest=DIGEST)
    made = rounds.await_condition(kube, "r", "Complete", patience=5, on_progress=lambda _: None)
    assert made["status"]["resultsDigest"] == DIGEST


@pytest.mark.parametrize(
    ("conditions", "wanted", "words"),
    [
        ([("Failed", "True", "NoTwins"), ("Complete", "False", "RoundFailed")], "Complete", "Round r failed"),
        ([("Complete", "False", "RoundUnderWay")], "Complete", "Round r was not over after 0 s"),
        ([("Complete", "True", "x"), ("WeightsSubmitted", "False", "Refused")], "WeightsSubmitted", "Round r failed"),
        ([("Complete", "True", "x"), ("WeightsSubmitted", "Unknown", "Committed")], "WeightsSubmitted", "was not over"),
        ([], "Complete", "was not over"),
    ],
)
def test_a_round_that_does_not_come_to_its_end_says_why(
    tmp_path: Path, conditions: list[tuple[str, str, str]], wanted: str, words: str
) -> None:
    kube, told = saying(tmp_path, *conditions), list[str]()
    with pytest.raises(DemoError, match=words) as caught:
        rounds.await_condition(kube, "r", wanted, patience=0.01, on_progress=told.append, pause=0.05)
    assert all(f"{kind}={truth} {reason}: m" in caught.value.evidence for kind, truth, reason in conditions)


def view(*scores: float | None, weights: tuple[float, ...] = (0.5, 0.45, 0.05)) -> RoundView:
    """A round of miners with hotkeys h0, h1 and bad."""
    lines = tuple(
        MinerLine(uid=n, hotkey="bad" if n == 2 else f"h{n}", score=score, weight=weight)
        for n, (score, weight) in enumerate(zip(scores, weights, strict=True))
    )
    document = {
        "name": "r", "uid": "u", "validator": "v", "seed": 1, "items": 4, "startTime": "2026-01-02T03:00:00Z",
        "resultsDigest": DIGEST, "miners": lines,
    }  # fmt: skip
    return RoundView.model_validate(document)


CHAIN = {0: 0.5, 1: 0.45, 2: 0.05}
AGAIN = Compared(digest=DIGEST, before=DIGEST, same=True, message=None)


def test_what_the_demo_promises_of_a_round_is_checked_and_holds() -> None:
    rounds.check(view(80, 75, 30), CHAIN, AGAIN, careless="bad")
    rounds.check(view(80, 75, 0, weights=(0.6, 0.4, 0.0)), {0: 0.6, 1: 0.4}, AGAIN, careless="bad")


@pytest.mark.parametrize(
    ("made", "chain", "words"),
    [
        (view(80, 75, None), CHAIN, "Not all 3 miners have a score: UID 0: 80%"),
        (view(80, 75, 75), CHAIN, "careless-miner was not thought the worst"),
        (view(80, 20, 75), CHAIN, "careless-miner was not thought the worst"),
        (view(80, 75, 30), {0: 0.4, 1: 0.55, 2: 0.05}, "The chain has other weights"),
        (view(80, 75, 30), {}, "The chain has other weights"),
    ],
)
def test_what_does_not_hold_of_a_round_ends_the_demo_in_words(
    made: RoundView, chain: dict[int, float], words: str
) -> None:
    with pytest.raises(DemoError, match=words):
        rounds.check(made, chain, AGAIN, careless="bad")


@pytest.mark.parametrize("again", [replace(AGAIN, same=False), replace(AGAIN, digest="sha256:other")])
def test_other_results_of_the_stored_answers_end_the_demo(again: Compared) -> None:
    with pytest.raises(DemoError, match="The stored answers give other results"):
        rounds.check(view(80, 75, 30), CHAIN, again, careless="bad")


async def test_the_weights_are_read_of_the_chain_itself(subnet: Subnet) -> None:
    await subnet.enrol("validator", stake_tao=1000)
    uids = await subnet.enrol("good", "bad")
    await subnet.run_epoch()
    me, url = hotkey("validator"), subnet.url
    assert await asyncio.to_thread(_read, url, me.address) == {}
    await set_weights(subnet.chain(), me, NETUID, {uids[0]: 3.0, uids[1]: 1.0}, since=subnet.service.chain.head)
    assert await asyncio.to_thread(_read, url, me.address) == {}, "what is sealed counts for nothing yet"
    await subnet.run_epoch()
    found = await asyncio.to_thread(_read, url, me.address)
    assert found == {uids[0]: pytest.approx(0.75, abs=1e-4), uids[1]: pytest.approx(0.25, abs=1e-4)}
    assert await asyncio.to_thread(_read, url, hotkey("nobody").address) == {}
    await subnet.kill()
    with pytest.raises(DemoError, match="can't be read"):
        await asyncio.to_thread(_read, url, me.address)


def _read(url: str, address: str) -> dict[int, float]:
    return asyncio.run(rounds.weights_on_chain(url, address))


def test_scores_and_weights_are_printed_by_the_miners_names() -> None:
    console = Console(file=io.StringIO(), width=120)
    called = {"h0": "clinic", "h1": SECOND.name, "bad": CARELESS.name}
    pages.print_weights(console, "What the chain has of it:", view(80, 75, None).miners, {0: 0.6, 1: 0.4}, called)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = [line.split() for line in text.splitlines() if line.startswith(("clinic", "second", "careless"))]
    assert rows == [
        ["clinic", "0", "80%", "60.0%"], ["second-miner", "1", "75%", "40.0%"], ["careless-miner", "2", "-", "0.0%"],
    ]  # fmt: skip


def test_the_round_is_a_place_where_one_can_stop() -> None:
    assert _parser().parse_args(["run", "--until", "round"]).until == "round"
    assert "validators" in show._KINDS["round"]
    assert "|round" in (Path(__file__).parents[3] / "Makefile").read_text()


def test_a_round_that_the_gateway_does_not_show_ends_the_demo_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_fields: Any) -> Any:
        raise TwinCliError("there is none")

    config: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    kube = replace(kube_of(tmp_path, ""), kubeconfig=tmp_path / "kubeconfig")
    monkeypatch.setattr(rounds, "read_round", refuse)
    monkeypatch.setattr(rounds, "recompute", refuse)
    with pytest.raises(DemoError, match="The gateway shows no round: there is none"):
        rounds.stored(kube, {}, hotkey="h")
    with pytest.raises(DemoError, match="there is none"):
        rounds.reckoned(kube, {})
