"""A registered miner answers a validator by the signed wire, and its receipt is verified on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo import pages
from demo.doctors import QUESTION, Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE
from demo.kube import Kube
from demo.stage import Stage
from demo.subnet import MINERS, NETUID, PORT, RELEASE, Subnet
from demo.validator import Validator

_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 1.0
_TIMEOUT_S: Final = 60.0
_ALTERED: Final = " Take two tablets."


@dataclass(frozen=True)
class Received:
    """What the validator got, as files that `kubectl twin verify` takes."""

    twin: str
    uid: int
    axon: str
    adapter: str
    answer: str
    receipt: Path
    question: Path
    answer_file: Path

    def verify(self, *, adapter: str, metagraph: Path, answer: Path | None = None) -> list[str]:
        """Return the arguments of `kubectl twin` that prove it; `adapter`: the digest that must have answered."""
        return [
            "verify", f"@{self.receipt}", "--question", f"@{self.question}",
            "--answer", f"@{answer or self.answer_file}", "--twin", self.twin, "--adapter", adapter,
            "--metagraph", str(metagraph),
        ]  # fmt: skip


def show(stage: Stage, subnet: Subnet, doctor: Doctor) -> None:
    """Let a validator ask one of two registered miners, and verify the receipt; raises DemoError."""
    kube, timeline, console = stage.kube, stage.timeline, stage.timeline.console
    with timeline.step("wait for both miners to be registered on the local subnet"):
        subnet.await_registered()
    folder = stage.options.work / "receipt"
    with Validator(kube, image=stage.images["neuron"].reference) as validator:
        with timeline.step(f"ask {doctor.name}'s twin as a validator: signed, to whom the subnet names"):
            said = until(
                lambda: validator.run(
                    "ask", doctor.twin, QUESTION, "--max-tokens", "120", "--temperature", "0", "--output", "json"
                )
            )
            received = keep(said, folder)
        miners = until(lambda: listed(validator, [subnet.wallets[name].address for name in MINERS]))
    metagraph = folder / "metagraph.json"
    chain = kube.forwarded(f"deployment/{RELEASE}", PORT, namespace=NAMESPACE)
    with timeline.step("write the metagraph into a file"), chain as url:
        twin_command(["metagraph", str(metagraph), "--network", url, "--netuid", str(NETUID)])
    adapter = active_digest(kube, doctor.twin)
    with timeline.step("verify the receipt offline, with the answer and with another"):
        proof = twin_command(received.verify(adapter=adapter, metagraph=metagraph))
        altered = folder / "altered.txt"
        altered.write_text(received.answer + _ALTERED, encoding="utf-8")
        refused = twin_command(received.verify(adapter=adapter, metagraph=metagraph, answer=altered), status=1)
    pages.print_command(console, "miners", miners, scene=census(miners))
    pages.print_command(
        console,
        "verify @receipt --question @question.json --answer @answer.txt --adapter sha256:… --metagraph metagraph.json",
        proof,
        scene=f"UID {received.uid} answered a validator, and signed a receipt.",
    )
    conclusion = refused.strip().splitlines()[-1]
    pages.print_scene(console, f"With {_ALTERED.strip()!r} behind the answer: {conclusion}")


def listed(validator: Validator, hotkeys: Sequence[str]) -> str:
    """Return the table of the miners with what each announces; raises DemoError when one of `hotkeys` was not heard."""
    said = validator.run("miners")
    if unheard(said, hotkeys):
        raise DemoError(
            "A registered miner announced nothing", evidence=said, remedy="running the demo again goes on from here"
        )
    return said


def unheard(table: str, hotkeys: Sequence[str]) -> list[str]:
    """Return which of these miners `kubectl twin miners` has not heard; others' may be away without harm."""
    rows = [line.split() for line in table.splitlines() if line[:1].isdigit()]
    heard = [row[1].split("…") for row in rows if row[-1] != "?"]
    return [key for key in hotkeys if not any(key.startswith(each[0]) and key.endswith(each[-1]) for each in heard)]


def census(table: str) -> str:
    """Return how many miners `kubectl twin miners` lists, and how many of them announce twins."""
    rows = [line.split() for line in table.splitlines() if line[:1].isdigit()]
    having = sum(row[-1] not in {"-", "0"} for row in rows)
    return f"{len(rows)} miners are on the subnet; {having} announce{'s' if having == 1 else ''} twins."


def keep(said: str, folder: Path) -> Received:
    """Write what the validator got into files.

    Raises:
        DemoError: the base model answered, and not the doctor's weights.
    """
    answered = json.loads(said)
    folder.mkdir(parents=True, exist_ok=True)
    receipt, question, answer = folder / "receipt", folder / "question.json", folder / "answer.txt"
    receipt.write_text(answered["receipt"], encoding="utf-8")
    question.write_text(json.dumps(answered["messages"], ensure_ascii=False), encoding="utf-8")
    answer.write_bytes(answered["answer"].encode())
    if answered["adapter"] is None:
        raise DemoError(
            f"The base model answered for {answered['twin']}, and not the doctor's weights",
            remedy=f"`kubectl twin status {answered['twin']} -n {NAMESPACE}` shows which version serves",
        )
    return Received(
        twin=answered["twin"],
        uid=answered["uid"],
        axon=answered["axon"],
        adapter=answered["adapter"],
        answer=answered["answer"],
        receipt=receipt,
        question=question,
        answer_file=answer,
    )


def twin_command(arguments: list[str], *, status: int = 0) -> str:
    """Run `kubectl twin` and return what it printed.

    Raises:
        DemoError: it ended with another exit status.
    """
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_twin", *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != status:
        raise DemoError(
            f"`kubectl twin {arguments[0]}` ended with exit status {done.returncode}, and not {status}",
            evidence="\n".join(filter(None, [done.stdout.strip()[-3000:], done.stderr.strip()[-2000:]])),
            remedy="what it said is above; running the demo again goes on from here",
        )
    return done.stdout


def active_digest(kube: Kube, twin: str) -> str:
    """Return the digest of the version that serves, as the twin's status says; raises DemoError."""
    found = kube.get("doctortwin", twin, "-n", NAMESPACE) or {}
    digest = ((found.get("status") or {}).get("activeVersion") or {}).get("digest")
    if not digest:
        raise DemoError(
            f"{twin} says of no version that it serves",
            remedy=f"`kubectl twin status {twin} -n {NAMESPACE}` says why; run the demo again",
        )
    return str(digest)


def until(ask: Callable[[], str], *, patience: float = _PATIENCE_S, pause: float = _PAUSE_S) -> str:
    """Return the first answer: a miner reads every few seconds who may ask it. Raises the last DemoError."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except DemoError:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
