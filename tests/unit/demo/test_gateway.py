"""The demo's gateway: what the cluster is told, what is asked of real miners, and what the browser makes of it."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
import stat
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import DoctorTwinSpec
from bettertherapy_api.miner_pool import MinerPoolSpec
from bettertherapy_api.validator import ValidatorSpec
from demo import browser, gateway, miners, pages, show
from demo.__main__ import _parser
from demo.doctors import DOCTORS
from demo.errors import DemoError
from demo.images import pulled
from demo.kube import Kube
from demo.miners import CARELESS, SECOND, Version, active_version
from demo.receipts import census, unheard
from demo.stage import Options, Stage
from demo.subnet import OTHERS, Subnet
from demo.targets import CurrentTarget
from demo.timeline import Timeline
from kubectl_twin.api import Api, core_path, twins_path, validator_path
from kubectl_twin.ask import Question
from kubectl_twin.gateway import GatewayAnswer, MinerResult, ask_through
from kubectl_twin.proof import Proof
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import RunningGateway
from tests.unit.gateway.running_gateway import gateway as running_gateway
from tests.unit.miner.running_miner import digest
from tests.unit.pages.browsing import pages as running_pages

Json = dict[str, Any]
PROVEN = Proof(True)
VERSION = Version(digest="sha256:" + "0" * 64, uri=f"pvc://clinic-store/adapters/{DOCTORS[0].twin}/{'0' * 64}")


def kube_of(folder: Path, script: str) -> Kube:
    """A kubectl that does what the script says."""
    path = folder / "kubectl"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Kube(kubectl_program=str(path), helm_program="helm", kubeconfig=None)


def stage_of(kube: Kube, folder: Path) -> Stage:
    options = Options(target=CurrentTarget(), work=folder, cache=folder, registry="r", tag="1", until="gateway")
    timeline = Timeline(Console(file=io.StringIO(), width=160))
    return Stage(kube=kube, images=pulled("r", "1"), options=options, timeline=timeline, prometheus=None)


def printed(stage: Stage) -> str:
    file = stage.timeline.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_both_miners_serve_the_version_that_serves_at_the_clinic_by_the_clinics_engine() -> None:
    for miner in (SECOND, CARELESS):
        made = MinerPoolSpec.model_validate(miners.pool(miner, address="10.0.0.1:80")["spec"])
        assert made.engine.endpoint == "http://clinic-shared-engine.doctors.svc:8080"
        assert made.engine.secret_ref is not None
        key = miners.engine_key(miner, "t")
        assert (made.engine.secret_ref.name, key["metadata"]["namespace"]) == (key["metadata"]["name"], miner.name)
        assert key["stringData"] == {"apiKey": "t"}
        assert made.miner.external_address == "10.0.0.1:80"
        assert made.miner.wallet_secret_ref is not None
        assert made.miner.wallet_secret_ref.name == f"{miner.name}-hotkey"
        twin = DoctorTwinSpec.model_validate(miners.twin(miner, DOCTORS[0], VERSION)["spec"])
        assert twin.adapter is not None
        assert (twin.adapter.digest, twin.base_model.name) == (VERSION.digest, made.base_model.name)
        # The manifest is read from its own store, below which the uri lies.
        assert made.store is not None
        assert twin.adapter.uri == f"{made.store.uri}/{DOCTORS[0].twin}/{'0' * 64}"
        assert {each["metadata"].get("namespace", miner.name) for each in _ground(miner)} == {miner.name}


def _ground(miner: miners.OtherMiner) -> list[Json]:
    return [miners.namespace(miner), miners.claim(miner), miners.axon(miner)]


def test_one_of_them_is_set_up_badly_and_the_other_is_not() -> None:
    assert "systemPrompt" not in miners.twin(SECOND, DOCTORS[0], VERSION)["spec"]
    assert "furniture" in miners.twin(CARELESS, DOCTORS[0], VERSION)["spec"]["systemPrompt"]


def test_the_clinics_agents_are_opened_to_the_other_miners_agents_alone() -> None:
    service, policy = miners.shared_engine()
    pods = {names.LABEL_POOL: "clinic", names.LABEL_COMPONENT: "engine"}
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == pods
    [rule] = policy["spec"]["ingress"]
    [peer] = rule["from"]
    assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == list(OTHERS) == [SECOND.name, CARELESS.name]
    assert peer["podSelector"]["matchLabels"] == {names.LABEL_COMPONENT: "engine"}
    assert [each["port"] for each in rule["ports"]] == [each["port"] for each in service["spec"]["ports"]] == [8080]


def test_a_published_address_leads_to_the_miners_pods() -> None:
    spec = miners.axon(SECOND)["spec"]
    assert spec["selector"] == {names.LABEL_POOL: SECOND.name, names.LABEL_COMPONENT: "miner"}
    assert [(each["port"], each["targetPort"]) for each in spec["ports"]] == [(80, names.MINER_PORT)]


def test_other_namespaces_reach_the_local_chain() -> None:
    kube = Kube(kubectl_program="kubectl", helm_program="helm", kubeconfig=None)
    owner: Any = type("W", (), {"coldkey": type("K", (), {"ss58_address": "5c"}), "address": "5h"})
    values = Subnet(kube=kube, wallets={"validator": owner}).values(pulled("r", "1"))
    own, others = values["networkPolicy"]["from"]
    assert own == {"podSelector": {}}
    assert others["namespaceSelector"]["matchExpressions"][0]["values"] == list(OTHERS)


def test_the_validator_asks_three_on_the_local_subnet_and_shows_pages_here() -> None:
    spec = ValidatorSpec.model_validate(gateway.validator()["spec"])
    assert (spec.chain.network, spec.wallet_secret_ref.name) == ("local", "validator-hotkey")
    assert (spec.gateway.miners_per_query, spec.gateway.replicas) == (3, 1)
    assert spec.gateway.pages is not None
    assert spec.gateway.pages.origin == gateway.ORIGIN == f"http://localhost:{gateway.PORT}"


def test_a_twin_that_says_of_no_version_that_it_serves_is_told(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="says of no version that it serves"):
        active_version(kube_of(tmp_path, ""), "dr-a")
    status = {"status": {"activeVersion": {"digest": VERSION.digest, "uri": VERSION.uri}}}
    found = active_version(kube_of(tmp_path, f"print({json.dumps(json.dumps(status))})"), "dr-a")
    assert found == VERSION
    assert found.folder == f"adapters/{DOCTORS[0].twin}/{'0' * 64}"


def answer(*scores: float | None, careless: int = 2, proof: Proof | None = PROVEN) -> GatewayAnswer:
    """An answer by the first of these, whose hotkeys are h0, h1, …"""
    results = tuple(
        MinerResult(uid=n, hotkey="bad" if n == careless else f"h{n}", score=score, failure=None if score else "late",
                    seconds=1.0)
        for n, score in enumerate(scores)
    )  # fmt: skip
    return GatewayAnswer(
        text="Drink water.", notice_characters=0, doctor="Dr. Indra Gurung", validator="front-desk", answered=True,
        uid=0, hotkey=results[0].hotkey, adapter_digest=VERSION.digest, score=scores[0], results=results, receipt="r",
        proof=proof, session_id="s", answer_id="a", question_id="q", first_token_seconds=None, seconds=1.0, tokens=3,
        finish_reason="stop",
    )  # fmt: skip


@pytest.mark.parametrize("good", [answer(0.9, 0.9, 0.4), answer(0.9, 0.9, 0.9)])
def test_what_the_demo_promises_is_checked_and_holds(good: GatewayAnswer) -> None:
    gateway.check(good, careless="bad")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (answer(0.9, 0.4, careless=1), "Not all 3 miners"),
        (answer(0.9, 0.4, None), "UID 2: late"),
        (answer(0.9, 0.8, 0.7, proof=Proof(False, ("answer",))), "does not prove who answered: answer"),
        (answer(0.9, 0.8, 0.7, proof=Proof(None, why="no module")), "does not prove who answered: no module"),
        (answer(0.9, 0.8, 0.7, proof=None), "does not prove who answered: none came"),
        (answer(0.9, 0.8, 0.7, careless=0), "careless-miner was thought the best"),
        (answer(0.9, 0.8, 0.7, careless=5), "careless-miner was thought the best"),
    ],
)
def test_what_does_not_hold_ends_the_demo_in_words(bad: GatewayAnswer, words: str) -> None:
    with pytest.raises(DemoError, match=words):
        gateway.check(bad, careless="bad")


def test_the_best_answer_is_printed_with_the_scores_of_all() -> None:
    console = Console(file=io.StringIO(), width=120)
    called = {"h0": "clinic", "h1": SECOND.name, "bad": CARELESS.name}
    pages.print_gateway(console, "A patient asks", answer(0.93, 0.9, 0.41), called)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "by clinic · adapter sha256:000000000000 · receipt verified" in text
    rows = [line.split()[:3] for line in text.splitlines() if line.startswith(("clinic", "second", "careless"))]
    assert rows == [["clinic", "0", "0.93"], ["second-miner", "1", "0.90"], ["careless-miner", "2", "0.41"]]


class Forwarded:
    """What stands for a connection through the API server: one to the gateway itself."""

    error = None

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def close(self) -> None:
        self.socket.close()


class ApiBeforeGateway(Api):
    """The objects that the plugin looks up, and a way to a gateway that runs."""

    def __init__(self, running: RunningGateway) -> None:
        self.namespace, self._port = "doctors", running.service.port
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self._objects: dict[str, Json] = {
            validator_path("doctors", "front-desk"): {"spec": {}},
            twins_path("doctors", "indra"): {
                "metadata": {"name": "indra"}, "spec": {"doctor": {"name": "Dr. Indra Gurung"}}
            },
            core_path("pods", "doctors"): {"items": [{"metadata": {"name": "g"}, "status": ready}]},
        }  # fmt: skip

    def get(self, path: str, query: Any = None) -> Json:
        return self._objects[path]

    def forward(self, *, namespace: str, pod: str, port: int) -> Any:
        assert (namespace, pod, port) == ("doctors", "g", names.GATEWAY_PORT)
        return Forwarded(self._port)


async def test_the_act_with_real_miners_and_a_gateway(tmp_path: Path) -> None:
    rogue = RogueMiner(says="Our new armchair costs 300. Is it to be delivered?")
    async with running_gateway(tmp_path, names=("Alice", "Charlie"), rogues=[rogue]) as running:
        listed = await asyncio.to_thread(gateway.heard, running.url, running.key, "indra", digest("a"))
        assert json.loads(listed)["bettertherapy"]["miners"] == 3
        with pytest.raises(DemoError, match="is to hear of 3 with sha256:bbb"):
            await asyncio.to_thread(gateway.heard, running.url, running.key, "indra", digest("b"))
        with pytest.raises(DemoError, match="has heard of 0 miners"):
            await asyncio.to_thread(gateway.heard, running.url, running.key, "nobody", digest("a"))

        def ask() -> GatewayAnswer:
            question = Question(twin="indra", text="What now?", namespace="doctors", temperature=0.0)
            return ask_through(ApiBeforeGateway(running), question, validator="front-desk", key=running.key)

        given = await asyncio.to_thread(ask)
        assert given.text == "It is fine."
        assert given.hotkey in {each.keypair.ss58_address for each in running.miners}
        assert given.proof == Proof(True)
        assert [each.uid for each in given.results][-1] == 3
        gateway.check(given, careless=rogue.keypair.ss58_address)

        await asyncio.to_thread(gateway.rate, running.url, running.key, given)
        liked = [who.hotkey for who, each in running.service.standings.of.items() if each.satisfaction > 0.5]
        assert liked == [given.hotkey]
        unknown = replace(given, answer_id="00000000-0000-4000-8000-000000000000")
        with pytest.raises(DemoError, match="The rating was not taken: 404"):
            await asyncio.to_thread(gateway.rate, running.url, running.key, unknown)
    with pytest.raises(DemoError, match="can't be reached"):
        await asyncio.to_thread(gateway.request, running.url, running.key)


@pytest.mark.skipif(browser.obstacle() is not None, reason=f"no picture: {browser.obstacle()}")
@pytest.mark.timeout(600)
async def test_a_browser_asks_rates_and_leaves_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "build" / "page.png"
    async with running_pages(tmp_path, names=("Alice",)) as running:
        await asyncio.to_thread(
            browser.visit, running.origin, doctor="Dr. Indra Gurung", question="My head aches.", picture=picture
        )
        assert [each.satisfaction > 0.5 for each in running.gateway.service.standings.of.values()] == [True]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(browser.obstacle() is not None, reason=f"no picture: {browser.obstacle()}")
@pytest.mark.timeout(600)
def test_a_page_that_is_not_there_ends_the_demo_in_words(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="was not as a patient expects it"):
        browser.visit("http://127.0.0.1:9", doctor="x", question="y", picture=tmp_path / "page.png")


def test_without_a_browser_the_demo_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    stage = stage_of(kube_of(tmp_path, "raise SystemExit('nothing is to be forwarded')"), tmp_path)
    gateway._show_page(stage, DOCTORS[0])
    said = printed(stage)
    assert "no picture of the page: there is no Chromium" in said
    assert f"The page is at {gateway.ORIGIN}" in said
    assert f"kubectl port-forward service/front-desk-gateway -n doctors {gateway.PORT}:80" in said


def test_a_port_that_is_in_use_costs_the_picture_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "obstacle", lambda: None)
    script = (
        "import sys\nsys.stderr.write('Unable to listen on port 8090: bind: address already in use')\nsys.exit(1)\n"
    )
    stage = stage_of(kube_of(tmp_path, script), tmp_path)
    gateway._show_page(stage, DOCTORS[0])
    assert "no picture of the page: port 8090 of this machine is in use" in printed(stage)
    stage = stage_of(kube_of(tmp_path, "import sys\nsys.stderr.write('no such pod')\nsys.exit(1)\n"), tmp_path)
    with pytest.raises(DemoError) as caught:
        gateway._show_page(stage, DOCTORS[0])
    assert "no such pod" in caught.value.evidence


def test_the_browser_is_sent_to_the_port_of_the_pages_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    @contextmanager
    def forwarded(self: Kube, target: str, port: int, *, namespace: str, local: int | None = None) -> Any:
        seen.append((target, port, namespace, local))
        yield f"http://127.0.0.1:{local}"

    monkeypatch.setattr(Kube, "forwarded", forwarded)
    monkeypatch.setattr(browser, "obstacle", lambda: None)
    monkeypatch.setattr(browser, "visit", lambda origin, **more: seen.append((origin, more["picture"])))
    stage = stage_of(kube_of(tmp_path, ""), tmp_path)
    gateway._show_page(stage, DOCTORS[0])
    assert seen == [
        ("deployment/front-desk-gateway", 8090, "doctors", 8090), ("http://localhost:8090", tmp_path / "page.png"),
    ]  # fmt: skip
    assert str(tmp_path / "page.png") in printed(stage)


def test_a_chosen_port_is_asked_for(tmp_path: Path) -> None:
    script = (
        "import signal, sys\nassert sys.argv[-1] == '8090:80', sys.argv\n"
        "print('Forwarding from 127.0.0.1:8090 -> 80', flush=True)\nsignal.pause()\n"
    )
    with kube_of(tmp_path, script).forwarded("service/x", 80, namespace="n", local=8090) as url:
        assert url == "http://127.0.0.1:8090"


@pytest.mark.parametrize("where", ["answers", "receipt", "gateway", "end"])
def test_each_place_where_one_can_stop_has_tables_to_show(where: str) -> None:
    assert _parser().parse_args(["run", "--until", where]).until == where
    assert ("validators" in show._KINDS[where]) == (where in {"gateway", "end"})


def test_who_is_on_the_subnet_is_counted() -> None:
    table = "Subnet 1 as of block 9\nUID  HOTKEY  TWINS\n1    5G…a    2\n2    5H…b    -\n3    5I…c    0\n"
    assert census(table) == "3 miners are on the subnet; 1 announces twins."


def test_only_the_clinics_own_miners_must_be_heard() -> None:
    table = (
        "Subnet 1 as of block 709\nUID  HOTKEY         STAKE  INCENTIVE  AXON             UPDATED  TWINS\n"
        "0    5G1pZ7…jnCSot  0.0    0.0000     10.215.2.210:80  705 ago  2\n"
        "2    5HdHYj…H5C7FL  0.0    0.0000     10.215.1.59:80   705 ago  0\n"
        "3    5Et8cu…Z8Djob  0.0    0.0000     10.215.1.68:80   641 ago  ?\n"
    )
    clinic, standby, other = "5G1pZ7abcjnCSot", "5HdHYjabcH5C7FL", "5Et8cuabcZ8Djob"
    assert unheard(table, [clinic, standby]) == []
    assert unheard(table, [clinic, other]) == [other]
    assert unheard(table, ["5GabcdabcjnCSot"]) == ["5GabcdabcjnCSot"]
