"""Nobody can forge a verdict, an artifact, a baseline, a report or another twin's lineage: tried from outside, as each
identity, with its real token and the rights that operator and chart grant, on a real API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import PROGRESS_KEY, progress_name
from tests.api.operator_harness import Cluster, clean, cluster, condition, digest, pool_manifest, twin_manifest, until
from tests.api.test_operator_run import (
    NOWHERE,
    ended,
    pod_status,
    run_manifest,
    stage,
    the_run,
    trainer_pod,
)
from tests.conftest import Kubectl
from tests.unit.operator.run_samples import done

pytestmark = pytest.mark.cluster

EDITOR = [
    {
        "apiGroups": ["bettertherapy.io"],
        "resources": ["doctortwins", "finetuneruns", "minerpools", "validatorrounds", "validators"],
        "verbs": ["get", "list", "create", "update", "patch", "delete"],
    },
    {"apiGroups": ["bettertherapy.io"], "resources": ["podreports", "routingslices"], "verbs": ["get", "list"]},
]
"""As ClusterRole twin-editor, which the chart's tests hold to this."""
NAMESPACES_EDITOR = [
    *EDITOR,
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "update", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "impersonate"]},
    {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
]
"""What the cluster's own ClusterRole edit grants beside it, as far as reports are concerned."""


@dataclass
class Identities:
    """Whoever may try, by name; `run("trainer", "patch", …)` runs kubectl as that one."""

    world: Cluster
    kubectl: Kubectl
    folder: Path
    pods: dict[str, str] = field(default_factory=dict)

    def grant(self, user: str, rules: list[dict[str, Any]]) -> None:
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
        items = [
            {**kind, "kind": "Role", "metadata": {"name": user}, "rules": rules},
            {**kind, "kind": "RoleBinding", "metadata": {"name": user}, "roleRef": reference, "subjects": [subject]},
        ]
        self.kubectl(
            "apply",
            "-n",
            self.world.namespace,
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
        )

    def run(self, who: str, *arguments: str, stdin: str | None = None) -> Any:
        where = ("-n", self.world.namespace)
        if who in ("tenant", "namespaces-editor"):
            return self.kubectl(*where, f"--as={who}", *arguments, stdin=stdin, check=False)
        path = self.folder / who
        if not path.exists():
            bound = ("--bound-object-kind=Pod", f"--bound-object-name={self.pods[who]}") if who in self.pods else ()
            token = self.kubectl(*where, "create", "token", who, *bound).stdout.strip()
            config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
            config["users"][0]["user"] = {"token": token}
            path.write_text(json.dumps(config))
        return self.kubectl("--kubeconfig", str(path), *where, *arguments, stdin=stdin, check=False)

    def patch(self, who: str, what: str, change: dict[str, Any], *options: str) -> Any:
        return self.run(who, "patch", *what.split("/"), "--type=merge", "-p", json.dumps(change), *options)


@pytest.fixture
async def who(kubeconfig: Path, kubectl: Kubectl, home: str, tmp_path: Path) -> AsyncIterator[Identities]:
    """Two twins of one pool, each with a run that trains, r1 and r2."""
    async with cluster(kubeconfig, home) as world:
        await world.apply(pool_manifest(home, **NOWHERE, fineTune={"maxConcurrentRuns": 2}))
        made = Identities(world, kubectl, tmp_path)
        for twin, run in (("dr-a", "r1"), ("dr-b", "r2")):
            await world.apply(twin_manifest(home, twin))
            await world.api.create(run_manifest(home, run, twin=twin))
            made.pods[f"{run}-trainer"] = (await trainer_pod(world, run))["metadata"]["name"]
        made.grant("tenant", EDITOR)
        made.grant("namespaces-editor", NAMESPACES_EDITOR)
        await until(lambda: _enforced(made), what="the policies are enforced")
        yield made
        await clean(world)


async def _enforced(made: Identities) -> bool:
    change = {"data": {"x": "y"}}
    refused = made.patch("namespaces-editor", f"configmap/{progress_name('r1')}", change, "--dry-run=server")
    token = made.run(
        "namespaces-editor",
        "create",
        "token",
        "r1-trainer",
        "--bound-object-kind=Pod",
        f"--bound-object-name={made.pods['r1-trainer']}",
    )
    candidate = _candidate(made, "tenant", "--dry-run=server")
    found = (("run-reports", refused), ("run-tokens", token), ("run-candidates", candidate))
    return all(policy in each.stderr for policy, each in found)


Forgery = Callable[[Identities, str], Any]
VERDICT = {"status": {"verdict": "Promote", "eval": {"verdict": "Promote", "samples": 99}}}
ARTIFACT = {
    "status": {"artifact": {"uri": "pvc://adapters/store/dr-a/x", "digest": digest("b"), "rank": 8, "bytes": 1}}
}
PROMOTED = {"status": {"promotedVersion": {"servedName": "x", "digest": digest("b")}}}
ANCHOR = {"status": {"anchorVersion": {"servedName": "x"}, "compared": [], "examined": []}}


def _configmap(name: str, **data: str) -> Forgery:
    return lambda made, who: made.patch(who, f"configmap/{name}", {"data": data})


def _made_anew(made: Identities, who: str, **other: str) -> Any:
    run = json.loads(made.kubectl("-n", made.world.namespace, "get", "finetunerun", "r1", "-o", "json").stdout)
    owner = {
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "name": "r1", "uid": run["metadata"]["uid"],
        "controller": True, **other,
    }  # fmt: skip
    forged = {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": examination_name("r1"), "ownerReferences": [owner], "labels": {names.LABEL_RUN: "r1"},
        },
        "data": {OUTCOMES_KEY: "{}"},
    }  # fmt: skip
    return made.run(who, "create", "-f", "-", stdin=json.dumps(forged))


def _slice(made: Identities, who: str) -> Any:
    return made.patch(who, "routingslice/p-routing-0", {"twins": {}})


def _report(made: Identities, who: str) -> Any:
    forged = {
        "apiVersion": names.API_VERSION, "kind": "PodReport", "metadata": {"name": "any"},
        "pod": {"name": "any", "uid": "u"}, "ready": True, "engine": {"live": True},
    }  # fmt: skip
    return made.run(who, "create", "-f", "-", stdin=json.dumps(forged))


def _candidate(made: Identities, who: str, *options: str) -> Any:
    task = "11111111-1111-4111-8111-111111111111"
    candidate = {
        "task": task, "validator": "v", "miner": "5" * 48, "digest": digest("b"), "deadline": "2030-01-01T00:00:00Z",
        "delivered": f"pvc://deliveries/tasks/{task}/{'b' * 64}",
    }  # fmt: skip
    forged = {
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun", "metadata": {"name": f"exam-{task}"},
        "spec": {
            "twinRef": {"name": "dr-a"}, "candidate": candidate,
            "dataset": {"uri": f"https://v.example/v1/tasks/{task}/dataset?x", "digest": digest("d")},
        },
    }  # fmt: skip
    return made.run(who, "create", "-f", "-", *options, stdin=json.dumps(forged))


FORGERIES: dict[str, Forgery] = {
    "a miner's version, as a run made by hand": _candidate,
    "a verdict, in the examiner's report": _configmap(examination_name("r1"), **{OUTCOMES_KEY: "{}"}),
    "a verdict, in a report made anew": _made_anew,
    "a verdict, in a report made anew under another owner's kind": lambda made, who: _made_anew(
        made, who, apiVersion="v1", kind="ConfigMap"
    ),
    "a verdict, in the run's status": lambda made, who: made.patch(
        who, "finetunerun/r1", VERDICT, "--subresource=status"
    ),
    "an artifact, in the trainer's report": _configmap(progress_name("r1"), **{PROGRESS_KEY: "{}"}),
    "an artifact, in the run's status": lambda made, who: made.patch(
        who, "finetunerun/r1", ARTIFACT, "--subresource=status"
    ),
    "a baseline, in the run": lambda made, who: made.patch(
        who, "finetunerun/r1", {"spec": {"parentDigest": digest("c")}}
    ),
    "a baseline, in the twin's memory": lambda made, who: made.patch(
        who, "doctortwin/dr-a", ANCHOR, "--subresource=status"
    ),
    "the lineage of a twin": lambda made, who: made.patch(who, "doctortwin/dr-a", PROMOTED, "--subresource=status"),
    "what answers, in the routing": _slice,
    "a pod's report": _report,
    "the examiner's rights": lambda made, who: made.patch(who, "role/r1-trainer", {"rules": []}),
}
STRANGERS = ("r2-trainer", "p-engine", "p-miner", "tenant", "namespaces-editor")


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_nobody_but_its_own_pods_and_the_operator_can_say_it(who: Identities, forgery: str) -> None:
    before = await the_run(who.world)
    for each in STRANGERS:
        forged = FORGERIES[forgery](who, each)
        assert forged.returncode != 0, f"{each}: {forged.stdout}"
        # The examiner's ConfigMap is not there yet.
        words = ("forbidden", "spec can't change", "not found")
        assert any(word in forged.stderr.lower() for word in words), f"{each}: {forged.stderr}"
    after = await the_run(who.world)
    assert [after["status"].get(part) for part in ("verdict", "artifact", "eval")] == [None, None, None]
    assert after["spec"] == before["spec"]


@pytest.mark.parametrize("forgery", [each for each in FORGERIES if "trainer's report" not in each])
async def test_nor_can_the_trainer_itself(who: Identities, forgery: str) -> None:
    forged = FORGERIES[forgery](who, "r1-trainer")
    assert forged.returncode != 0, forged.stdout


async def test_a_trainer_fills_in_its_own_report_and_changes_no_more_of_it(who: Identities) -> None:
    mine = f"configmap/{progress_name('r1')}"
    written = who.patch("r1-trainer", mine, {"data": {PROGRESS_KEY: done().to_json()}})
    assert written.returncode == 0, written.stderr
    for change in ({"metadata": {"labels": {names.LABEL_RUN: "r2"}}}, {"metadata": {"ownerReferences": None}}):
        assert "the operator's to say" in who.patch("r1-trainer", mine, change).stderr
    theirs = who.patch("r1-trainer", f"configmap/{progress_name('r2')}", {"data": {PROGRESS_KEY: "{}"}})
    assert "forbidden" in theirs.stderr.lower()


async def test_an_account_without_its_pods_token_says_nothing(who: Identities) -> None:
    """Who may take on the namespace's accounts, as ClusterRole edit may, is not their pods."""
    ns = who.world.namespace
    mine = ("patch", "configmap", progress_name("r1"), "--type=merge", "-p", json.dumps({"data": {PROGRESS_KEY: "{}"}}))
    taken_on = who.run("namespaces-editor", f"--as=system:serviceaccount:{ns}:r1-trainer", *mine)
    assert taken_on.returncode != 0
    minted = who.kubectl("-n", ns, "create", "token", "r1-trainer").stdout.strip()
    config = json.loads(who.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": minted}
    path = who.folder / "minted"
    path.write_text(json.dumps(config))
    said = who.kubectl("--kubeconfig", str(path), "-n", ns, *mine, check=False)
    assert "its own pods fill it in" in said.stderr
    assert "of no pod" in said.stderr


@pytest.mark.parametrize("account", ["r1-trainer", "r2-trainer"])
async def test_nobody_is_given_a_token_that_speaks_for_a_pod(who: Identities, account: str) -> None:
    pod = who.pods[account]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    asked = who.run("namespaces-editor", "create", "token", account, *bound)
    assert "the kubelet keeps that pod's token" in asked.stderr


@pytest.mark.parametrize("length", [57, 58, 63])
async def test_nor_for_a_pod_whose_name_was_cut(who: Identities, length: int) -> None:
    """Of a run with a long name: the API server cuts what it puts five characters behind to 58."""
    run = "n" * length
    account, metadata = f"{run}-trainer", {"namespace": who.world.namespace}
    await who.world.api.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**metadata, "name": account}}
    )
    spec = {"serviceAccountName": account, "containers": [{"name": "trainer", "image": "x"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "generateName": f"{run}-"}, "spec": spec}
    made = who.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(pod)).stdout.strip().removeprefix("pod/")
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={made}")
    asked = who.run("namespaces-editor", "create", "token", account, *bound)
    assert "the kubelet keeps that pod's token" in asked.stderr, asked.stdout


async def test_of_an_examination_the_examiner_alone_writes(who: Identities) -> None:
    world = who.world
    pod = await trainer_pod(world)
    said = done().model_copy(update={"attempt": pod["metadata"]["uid"]})
    assert (
        who.patch("r1-trainer", f"configmap/{progress_name('r1')}", {"data": {PROGRESS_KEY: said.to_json()}}).returncode
        == 0
    )
    await pod_status(world, pod, phase="Succeeded", containerStatuses=ended(0, "Completed"))
    who.pods["r1-examiner"] = (await trainer_pod(world, component="examiner"))["metadata"]["name"]
    theirs, change = f"configmap/{examination_name('r1')}", {"data": {OUTCOMES_KEY: "{}"}}
    for each in STRANGERS:
        forged = who.patch(each, theirs, change)
        assert "forbidden" in forged.stderr.lower(), f"{each}: {forged.stdout}{forged.stderr}"
    assert who.patch("r1-examiner", theirs, change).returncode == 0
    for what in (f"configmap/{progress_name('r1')}", f"configmap/{progress_name('r2')}", "finetunerun/r1"):
        assert who.patch("r1-examiner", what, {"data": {PROGRESS_KEY: "{}"}}).returncode != 0
    assert "verdict" not in (await the_run(world))["status"]


async def test_a_run_of_ones_own_image_never_begins(who: Identities) -> None:
    """Without the chart's policies the operator says no, in words, and what else there is goes on."""
    world = who.world
    forged = run_manifest(world.namespace, "r3", twin="dr-a", image="evil:1", priorityClassName="system-node-critical")
    made = who.run("tenant", "create", "-f", "-", stdin=json.dumps(forged))
    assert made.returncode == 0, made.stderr
    await until(lambda: stage(world, "Failed", "r3"), what="the run failed")
    found = await the_run(world, "r3")
    assert condition(found, "Failed") == ("True", "OutOfBounds")
    assert "evil:1" in found["status"]["failure"]["message"]
    assert "tenants.images" in found["status"]["failure"]["message"]
    assert (await the_run(world))["status"].get("stage") != "Failed"


async def test_a_run_reads_no_claim_but_its_pools(who: Identities) -> None:
    world = who.world
    forged = run_manifest(world.namespace, "r3", twin="dr-a", dataset={"uri": "pvc://payroll/all"})
    assert who.run("tenant", "create", "-f", "-", stdin=json.dumps(forged)).returncode == 0
    await until(lambda: stage(world, "Failed", "r3"), what="the run failed")
    assert "is on claim payroll" in (await the_run(world, "r3"))["status"]["failure"]["message"]
