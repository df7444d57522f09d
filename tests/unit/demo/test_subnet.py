"""The demo's local subnet: what charts and pods are told, and its commands against a real chain and a real miner."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bittensor_core
import pytest
from rich.console import Console

from bettertherapy_api.miner_pool import MinerPoolSpec
from demo import pages
from demo.__main__ import _parser
from demo.errors import DemoError
from demo.images import pulled
from demo.installation import POOL, miner_values
from demo.kube import Kube
from demo.receipts import active_digest, keep, twin_command, until
from demo.subnet import (
    MINERS,
    NETUID,
    NETWORK,
    STANDBY,
    VALIDATOR,
    Subnet,
    address_of,
    enrol_all,
    secret,
    standby_pool,
)
from demo.validator import pod, subnet_command
from demo.wallets import Wallet, open_wallet
from neurons.chain.wallet import load_hotkey
from neurons.receipts import read_metagraph, write_metagraph
from neurons.subnet.__main__ import main as subnet_main
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, held
from tests.unit.miner.signing_miner import INDRA, on_subnet, wallet

TEXT = "My head has been aching since this morning."


@pytest.fixture
def subnet(tmp_path: Path) -> Subnet:
    kube = Kube(kubectl_program="kubectl", helm_program="helm", kubeconfig=None)
    wallets = {name: open_wallet(tmp_path / "wallets", name) for name in (*MINERS, VALIDATOR)}
    return Subnet(kube=kube, wallets=wallets)


def program(folder: Path, script: str) -> str:
    """Return a stand-in for kubectl."""
    path = folder / "kubectl"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def kube_of(folder: Path, script: str) -> Kube:
    return Kube(kubectl_program=program(folder, script), helm_program="helm", kubeconfig=None)


def test_keys_stay_between_runs_and_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made, again = open_wallet(tmp_path, "a"), open_wallet(tmp_path, "a")
    assert (made.address, made.coldkey.ss58_address) == (again.address, again.coldkey.ss58_address)
    assert made.address != open_wallet(tmp_path, "b").address
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    (tmp_path / "a" / "coldkey").write_text("junk")
    with pytest.raises(DemoError, match="is no key file"):
        open_wallet(tmp_path, "a")


def test_a_secret_holds_the_hotkey_and_nothing_private_of_the_coldkey(tmp_path: Path, subnet: Subnet) -> None:
    own: Wallet = subnet.wallets[POOL]
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, content in secret(POOL, own)["data"].items():
        (mounted / name).write_bytes(base64.b64decode(content))
    assert load_hotkey(mounted).address == own.address
    said = (mounted / "coldkeypub.txt").read_bytes()
    assert bittensor_core.deserialize_keypair_from_keyfile_data(said).ss58_address == own.coldkey.ss58_address
    private = json.loads(bytes(bittensor_core.serialized_keypair_to_keyfile_data(own.coldkey)))
    everything = "".join(file.read_text() for file in mounted.iterdir())
    for kind in ("privateKey", "secretSeed", "secretPhrase"):
        assert private.get(kind)
        assert private[kind] not in everything


def test_both_pools_are_told_of_the_subnet_by_their_specs(tmp_path: Path, subnet: Subnet) -> None:
    script = 'print(\'{"spec": {"clusterIP": "10.96.1.2"}}\')'
    known = Subnet(kube=kube_of(tmp_path, script), wallets=subnet.wallets)
    miner = known.miner(POOL, await_address=True)
    assert miner["externalAddress"] == "10.96.1.2:80"
    values = miner_values(pulled("r", "1"), [], miner)
    spec = MinerPoolSpec.model_validate(values["pool"] | {"resources": None})
    assert (spec.miner.netuid, spec.miner.chain, spec.miner.wallet_secret_ref) == (
        NETUID,
        NETWORK,
        spec.miner.wallet_secret_ref,
    )
    assert spec.miner.wallet_secret_ref is not None
    assert spec.miner.wallet_secret_ref.name == "clinic-hotkey"
    second = MinerPoolSpec.model_validate(standby_pool(known.miner(STANDBY, await_address=True))["spec"])
    assert second.replicas == 0
    assert second.miner.wallet_secret_ref is not None
    assert second.miner.wallet_secret_ref.name == "standby-hotkey"


def test_before_the_operator_made_the_service_a_pool_has_no_address(tmp_path: Path, subnet: Subnet) -> None:
    known = Subnet(kube=kube_of(tmp_path, ""), wallets=subnet.wallets)
    assert "externalAddress" not in known.miner(POOL, await_address=False)


@pytest.mark.parametrize(("address", "written"), [("10.0.0.1", "10.0.0.1:80"), ("fd00::7", "[fd00::7]:80")])
def test_an_address_is_written_as_the_chain_takes_it(address: str, written: str) -> None:
    assert address_of(address) == written


def test_the_validators_pod_holds_its_hotkey_and_meets_the_restricted_standard() -> None:
    made = pod("image:1")["spec"]
    assert [volume["secret"]["secretName"] for volume in made["volumes"] if "secret" in volume] == ["validator-hotkey"]
    assert made["securityContext"]["runAsNonRoot"] is True
    assert made["automountServiceAccountToken"] is False


def test_a_port_is_forwarded_while_it_is_used_and_no_longer(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "print('Forwarding from 127.0.0.1:40123 -> 9944', flush=True)\nsignal.pause()\n"
    )
    kube = kube_of(tmp_path, script)
    with kube.forwarded("deployment/subnet", 9944, namespace="doctors") as url:
        assert url == "http://127.0.0.1:40123"
        os.kill(int((tmp_path / "pid").read_text()), 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_port_that_can_not_be_forwarded_is_said_with_kubectls_words(tmp_path: Path) -> None:
    kube = kube_of(tmp_path, "import sys\nsys.stderr.write('error: no pods found')\nsys.exit(1)\n")
    with pytest.raises(DemoError) as caught, kube.forwarded("deployment/subnet", 9944, namespace="doctors"):
        pass
    assert "no pods found" in caught.value.evidence


def test_a_twin_without_an_active_version_is_said(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="says of no version that it serves"):
        active_digest(kube_of(tmp_path, ""), "indra")


def test_a_refusal_is_asked_again_until_patience_ends() -> None:
    answers = iter([DemoError("not yet", remedy=""), "said"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, DemoError):
            raise answer
        return str(answer)

    def never() -> str:
        raise DemoError("never", remedy="")

    assert until(ask, pause=0.0) == "said"
    with pytest.raises(DemoError, match="never"):
        until(never, patience=0.0, pause=0.0)


def test_what_the_base_model_said_is_no_doctors_answer(tmp_path: Path) -> None:
    said = {"receipt": "x", "messages": [], "answer": "y", "adapter": None, "twin": "indra", "uid": 1, "axon": "a:1"}
    with pytest.raises(DemoError, match="The base model answered"):
        keep(json.dumps(said), tmp_path)


@pytest.mark.parametrize("where", ["answers", "receipt", "end"])
def test_one_can_stop_at_each_act(where: str) -> None:
    assert _parser().parse_args(["run", "--until", where]).until == where


@pytest.fixture
def chain(tmp_path: Path, subnet: Subnet) -> Iterator[str]:
    """The chain as the chart's pod runs it, with a shorter block."""
    values = subnet.values(pulled("r", "1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    arguments = [
        f"--file={tmp_path / 'chain.db'}", f"--port={port}", "--blocks=0.2", f"--netuid={values['netuid']}",
        f"--owner-coldkey={values['owner']['coldkey']}", f"--owner-hotkey={values['owner']['hotkey']}",
        *(f"--set={name}={json.dumps(value)}" for name, value in values["hyperparameters"].items()),
    ]  # fmt: skip
    with (tmp_path / "chain.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "neurons.chain.local", *arguments],
            stdout=log, stderr=log, env=os.environ | {"HOME": str(tmp_path)},
        )  # fmt: skip
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("the chain did not listen")


async def test_a_registered_miner_answers_a_validator_and_the_receipt_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subnet: Subnet, chain: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await enrol_all(chain, subnet.wallets)
    await enrol_all(chain, subnet.wallets)  # as when the demo runs again
    file = tmp_path / "metagraph.json"
    written = await asyncio.to_thread(
        twin_command, ["metagraph", str(file), "--network", chain, "--netuid", str(NETUID)]
    )
    assert "3 neurons of subnet 1" in written
    read = read_metagraph(file)
    assert [each.hotkey for each in read.neurons if each.validator_permit] == [subnet.wallets[VALIDATOR].address]

    hotkey = subnet.wallets[POOL].hotkey
    settings = on_subnet(tmp_path, hotkey, metagraph_file=None, chain=chain, netuid=NETUID, skew_seconds=2.0)
    validators = wallet(tmp_path / "wallets", subnet.wallets[VALIDATOR].hotkey)
    async with FakeAgent(pod="p1", holds=held(INDRA)) as agent, RunningMiner(tmp_path, subnet=settings) as miner:
        miner.route({"indra": Twin((INDRA,), doctor="Dr. Indra")})
        miner.report([agent])
        # No axon can be of this machine alone, so the address is put into the file.
        axon = miner.url.removeprefix("http://")
        neurons = tuple(
            each.model_copy(update={"axon": axon}) if each.hotkey == subnet.wallets[POOL].address else each
            for each in read.neurons
        )
        write_metagraph(file, netuid=NETUID, block=read.block, neurons=neurons, time_ms=time.time_ns() // 10**6)
        command = subnet_command("ask", "indra", TEXT, "--output", "json", wallet=str(validators))
        assert parsed(command)["network"] == NETWORK
        named = [command.index(option) for option in ("--network", "--netuid")]
        by_file = [each for at, each in enumerate(command[3:], 3) if not {at, at - 1} & set(named)]

        def ask() -> str:
            capsys.readouterr()
            if subnet_main([*by_file, "--metagraph", str(file)]):
                raise DemoError(capsys.readouterr().err, remedy="")
            return capsys.readouterr().out

        said = await asyncio.to_thread(until, ask)

    received = keep(said, tmp_path / "receipt")
    digest = "sha256:" + "a" * 64
    assert (received.adapter, received.answer) == (digest, "It is fine.")
    proof = await asyncio.to_thread(twin_command, received.verify(adapter=digest, metagraph=file))
    assert "Proven: the miner vouches that the doctor's own weights of indra gave this answer." in " ".join(
        proof.split()
    )
    altered = tmp_path / "altered.txt"
    altered.write_text(received.answer + " Take two.")
    refused = await asyncio.to_thread(
        lambda: twin_command(received.verify(adapter=digest, metagraph=file, answer=altered), status=1)
    )
    assert refused.strip().endswith("does not prove what you asked: answer.")
    with pytest.raises(DemoError, match="exit status 1, and not 0"):
        await asyncio.to_thread(twin_command, received.verify(adapter="sha256:" + "b" * 64, metagraph=file))


def parsed(command: list[str]) -> dict[str, Any]:
    from neurons.subnet.__main__ import _parser as of_subnet

    assert command[:3] == ["python", "-m", "neurons.subnet"]
    return vars(of_subnet().parse_args(command[3:]))


def test_a_command_is_shown_with_what_it_said() -> None:
    console = Console(file=io.StringIO(), width=100)
    pages.print_command(console, "verify @receipt", "✓ [signature]\x1b[2J", scene="One answered.")
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "$ kubectl twin verify @receipt" in text
    assert "✓ [signature]" in text
    assert "\x1b[2J" not in text
