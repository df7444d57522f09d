"""docs/running_on_staging.md typed from top to bottom on a real cluster, by the reader's own wallets.

Left out are `make demo`, which the suite has run, and btcli's commands, which ask for passwords; the wallets that they
make are there. Placeholders are filled as a reader fills them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.gateway import NAME
from localcluster import Cluster
from tests.e2e.conftest import Clinic, eventually
from tests.pages import STAGING, SUBNET, Desk, the, with_owner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
_NOTHING_LEFT_S = 120


@pytest.fixture(scope="module")
def desk(clinic: Clinic, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A reader's terminal on the cluster as the demo's first act leaves it, without what its later acts add."""
    home = tmp_path_factory.mktemp("reader")
    shutil.copy(kubeconfig, home / "kubeconfig")
    desk = Desk.furnished(home, home / "kubeconfig")
    desk.run(the(STAGING, "kubectl config set-context"))

    def clear() -> None:
        for release in ("desk", "subnet"):
            desk.run(f"helm uninstall {release} --ignore-not-found --wait")
        desk.run(f"kubectl delete validator {NAME} desk --ignore-not-found --timeout={_NOTHING_LEFT_S}s", seconds=150)
        desk.run("kubectl delete secret miner-hotkey validator-hotkey --ignore-not-found")
        desk.run("kubectl delete pvc -l app.kubernetes.io/name=local-subnet --ignore-not-found --timeout=60s")

    clear()
    yield desk
    clear()


@contextmanager
def forwarded(desk: Desk) -> Iterator[None]:
    """The page's port-forward, until this ends."""
    command = the(STAGING, "kubectl port-forward").removesuffix("&").split()
    assert desk.kubeconfig is not None
    program = str(Cluster("test").bin("kubectl"))
    environment = {**os.environ, "KUBECONFIG": str(desk.kubeconfig)}
    with subprocess.Popen([program, *command[1:]], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Forwarding from")
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def subnet(desk: Desk) -> str:
    """Sections 2 and 3: the chain, with both neurons registered; returns what `kubectl twin miners` lists."""
    desk.run(with_owner(the(STAGING, "helm install subnet")))
    assert "successfully rolled out" in desk.run(the(STAGING, "kubectl rollout status"))
    with forwarded(desk):
        enrolled = desk.run(the(STAGING, "python - <<"), seconds=310).splitlines()
        assert enrolled == ["miner is uid 0", "validator is uid 1", "an epoch has run"]
        return desk.run(the(STAGING, "kubectl twin miners"))


@pytest.fixture(scope="module")
def miner(desk: Desk, subnet: str) -> str:
    """Section 4: the pool's miner is on the subnet; returns what was waited for."""
    desk.run(the(STAGING, "kubectl create secret generic miner-hotkey"))
    desk.run("\n".join([the(STAGING, "ADDRESS="), the(STAGING, "helm upgrade")]))
    return desk.run(the(STAGING, "kubectl wait minerpool"), seconds=310)


@pytest.fixture(scope="module")
def validator(desk: Desk, miner: str) -> str:
    """Section 5: the validator answers; returns the table of validators."""
    desk.run(the(STAGING, "kubectl create secret generic validator-hotkey"))
    desk.run(the(STAGING, "helm install desk"))
    desk.run(the(STAGING, "kubectl wait validator"), seconds=610)
    return desk.run(the(STAGING, "kubectl get validators"))


def test_both_neurons_are_listed(subnet: str) -> None:
    assert [line.split()[0] for line in subnet.splitlines()[1:]] == ["UID", "0", "1"]


def test_the_pool_is_registered_and_says_so_as_subnet_md_shows(desk: Desk, miner: str) -> None:
    assert miner.strip() == "minerpool.bettertherapy.io/clinic condition met"
    said: dict[str, Any] = json.loads(desk.run(the(SUBNET, "kubectl get minerpool")))
    assert (said["status"], said["reason"]) == ("True", "Registered")
    assert re.match(r"5\w+ is UID 0 of subnet 1 since block \d+, found at \d+\.\d+\.\d+\.\d+:80$", said["message"])


def test_the_validator_answers_and_its_own_test_passes(desk: Desk, validator: str) -> None:
    heading, row = validator.splitlines()[0], validator.splitlines()[1]
    assert heading.split() == ["NAME", "NETUID", "READY", "MINERS", "TWINS", "LASTROUND", "NEXTROUND", "AGE"]
    assert row.split()[:3] == ["desk", "1", "True"]
    table = the(STAGING, "kubectl get validators")
    eventually(
        lambda: desk.run(table).splitlines()[1].split()[3:5] == ["1", "2"], seconds=120,
        what="one miner with two twins in the table", meanwhile=lambda: desk.run(table),
    )  # fmt: skip
    assert "Phase:          Succeeded" in desk.run(the(STAGING, "helm test"), seconds=320)


def test_round_as_the_page_says_ends_with_weights_or_says_why_not(desk: Desk, validator: str) -> None:
    """The smallest of models may know nothing that it is asked: then nobody has a score, and no weights are set."""
    desk.run(the(STAGING, "kubectl create job"))
    rounds = the(STAGING, "kubectl get rounds").removesuffix(" -w")

    def row() -> list[str]:
        # Another test's validator, or this one's schedule, may have begun one in this namespace.
        lines = [line.split() for line in desk.run(rounds).splitlines()]
        own = [line for line in lines if line[1:2] == ["desk"]]
        return next((line for line in own if {"Revealed", "Withheld"}.intersection(line)), [])

    eventually(row, seconds=1500, what="weights", meanwhile=lambda: desk.run(rounds))
    name, shown, complete, scored, *_ = row()
    assert (shown, complete, scored) == ("desk", "True", "1/1")
    told = desk.run(the(STAGING, "kubectl twin round").replace("desk-…", name))
    assert name in told
    # On a busy processor some answers come after their 30 s.
    assert re.search(r"\b[1-8]/8\b", told), "the miner is asked to the end of the round"
    if "Withheld" in row():
        assert "uid 0, 0%" in desk.run(rounds)
        assert "NoWeights" in desk.run(f"kubectl get round {name} -o yaml")
    else:
        assert json.loads(desk.run(the(STAGING, "kubectl get validator desk")))["state"] == "Revealed"
