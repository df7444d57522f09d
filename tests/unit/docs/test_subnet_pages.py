"""What docs/subnet.md, receipts.md and running_on_*.md tell a miner and a validator to type works as it stands.

Each command is run by a shell, but for what isn't the reader's own: placeholders, the public chain, and clusters, where
a Secret or a chart is rendered and not sent. A command that no test here or in `tests/e2e` runs fails the first test.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from neurons.chain.wallet import load_hotkey
from neurons.receipts import answer_of, question_of_messages
from tests.conftest import ROOT
from tests.pages import PAGES, RECEIPTS, STAGING, SUBNET, Desk, commands, of, the, with_owner
from tests.unit.receipts.keyring import COLDKEY, MINER, OTHER_MINER
from tests.unit.receipts.samples import ADAPTER, ANSWER, QUESTION, signed

IN_A_CLUSTER = (
    "make demo", "kubectl config", ". .venv/bin/activate", "kubectl get", "kubectl wait", "kubectl rollout",
    "kubectl port-forward", "kubectl create job", "helm upgrade", "helm test", "ADDRESS=", "NETUID=",
    "kubectl twin round",
)  # fmt: skip
"""What only a cluster with the operator answers: tests/e2e/test_subnet_by_hand.py runs the staging page's."""
RUN_HERE = (
    "btcli", "kubectl create secret", "helm install", "kubectl twin miners", "kubectl twin metagraph",
    "kubectl twin verify", "python -m neurons.chain.local", "python - <<", "printf",
)  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.furnished(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def chain(desk: Desk) -> Iterator[str]:
    """The local subnet of docs/subnet.md, served by its own command at a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = with_owner(the(SUBNET, "python -m neurons.chain.local")).replace("--blocks 12", "--blocks 1")
    served = subprocess.Popen(
        [*shlex.split(command), "--port", str(port)],
        cwd=desk.home,
        env=desk.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stderr is not None
        assert f"on http://127.0.0.1:{port}" in served.stderr.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        served.terminate()
        served.wait(20)


def on(chain: str, command: str) -> str:
    """Put the local chain where the page names another."""
    command = re.sub(r"--network \S+ --netuid \d+", f"--network {chain} --netuid 1", command)
    return command.replace("http://127.0.0.1:9944", chain)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_one_that_is_run(page: str) -> None:
    found = commands(page)
    assert found
    assert [each for each in found if not each.startswith((*RUN_HERE, *IN_A_CLUSTER))] == []


def secrets() -> list[str]:
    in_comments = re.findall(r"# (kubectl create secret \S+ \S+ \S+)", (ROOT / "docs" / RECEIPTS).read_text())
    return [each for each in (*of("kubectl create secret", *PAGES), *in_comments) if "hotkey" in each]


@pytest.mark.parametrize("command", secrets())
def test_a_secret_made_as_it_says_holds_the_hotkey(desk: Desk, tmp_path: Path, command: str) -> None:
    made = json.loads(desk.run(f"{command} --dry-run=client -o json"))
    for name, content in made["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    assert load_hotkey(tmp_path).address in {MINER.ss58_address, OTHER_MINER.ss58_address}


@pytest.mark.parametrize("command", of("helm install", *PAGES))
def test_a_chart_takes_what_it_is_given(desk: Desk, command: str) -> None:
    (desk.home / "values.yaml").write_text("pool: {replicas: 1}\n")
    assert "kind:" in desk.run(f"{with_owner(command)} --dry-run=client", NETUID="42")


def test_the_subnets_chart_is_installed_as_subnet_md_says(desk: Desk) -> None:
    (command,) = re.findall(r"`(helm install subnet [^`]+)`", (ROOT / "docs" / SUBNET).read_text())
    assert "local-subnet" in desk.run(f"{with_owner(command)} --dry-run=client")


def of_btcli() -> list[str]:
    inline = [
        each for page in PAGES for each in re.findall(r"`(btcli [a-z][^`…]*)`", (ROOT / "docs" / page).read_text())
    ]
    return sorted({each.partition("#")[0].strip() for each in (*of("btcli", *PAGES), *inline)})


@pytest.fixture(scope="module")
def btcli(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """Run btcli without a process for each command: loading it takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(tmp_path_factory.mktemp("btcli")))
        from bittensor.cli.main import app
    return lambda command: CliRunner().invoke(app, shlex.split(command)[1:])


@pytest.mark.parametrize("command", of_btcli())
def test_btcli_knows_the_command(btcli: Callable[[str], Result], command: str) -> None:
    said = btcli(command.replace("$NETUID", "42") + " --help")
    assert said.exit_code == 0, said.output
    assert "Usage" in said.output


def test_who_registers_as_the_staging_page_says_is_listed_as_the_pages_say(desk: Desk, chain: str) -> None:
    enrolled = desk.run(on(chain, the(STAGING, "python - <<")))
    assert enrolled.splitlines() == ["miner is uid 0", "validator is uid 1", "an epoch has run"]
    assert "\n".join(enrolled.splitlines()) in (ROOT / "docs" / STAGING).read_text()

    said = desk.run(on(chain, the(STAGING, "kubectl twin miners")))
    assert max(map(len, said.splitlines())) <= 80
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["UID", "0", "1"]
    assert desk.run(on(chain, the(SUBNET, "kubectl twin miners"))).startswith("Subnet 1 as of block ")
    written = desk.run(on(chain, the(SUBNET, "kubectl twin metagraph")))
    assert re.fullmatch(r"metagraph\.json: 2 neurons of subnet 1 as of block \d+\n", written)
    assert json.loads((desk.home / "metagraph.json").read_text())["netuid"] == 1


def test_the_digests_are_what_the_page_prints_them_by(desk: Desk) -> None:
    question, answer = of("printf", RECEIPTS)
    asked = [{"role": "user", "content": "I have had a headache for two days."}]
    assert desk.run(question).split()[0] == question_of_messages(asked).removeprefix("sha256:")
    assert desk.run(answer, ANSWER=ANSWER).split()[0] == answer_of([ANSWER]).removeprefix("sha256:")


def test_a_receipt_is_checked_as_the_page_shows_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    now = time.time_ns() // 1_000_000
    (tmp_path / "receipt").write_text(signed(MINER, time_ms=now))
    (tmp_path / "request.json").write_text(json.dumps({"messages": [{"role": "user", "content": QUESTION}]}))
    (tmp_path / "answer.txt").write_text(ANSWER + "\n")
    text = (ROOT / "docs" / RECEIPTS).read_text()
    (example,) = re.findall(r'^(\{"format": "bettertherapy-metagraph/1".*?\}\]\})$', text, re.DOTALL | re.MULTILINE)
    example = example.replace("5G…", MINER.ss58_address).replace("5F…", COLDKEY.ss58_address)
    (tmp_path / "metagraph.json").write_text(re.sub(r'"time": \d+', f'"time": {now}', example))
    said = desk.run(the(RECEIPTS, "kubectl twin verify").replace("sha256:3afa…", ADAPTER), status=1)
    shown = text[text.index("$ kubectl twin verify") :].partition("\n```")[0]
    marks = re.compile(r"^([✓✗•] \w+)", re.MULTILINE)
    assert marks.findall(said) == marks.findall(shown)
    conclusion = "This receipt does not prove what you asked: answer."
    assert conclusion in said
    assert conclusion in shown
