"""Two twins' fine-tunes by one trainer and one examiner: real images, a real model, and each run's end its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.curriculum import MOVED_CLINIC
from demo.files import Volume
from demo.installation import POOL, STORE, STORE_CLAIM
from demo.kube import Kube
from imagebuilder import Catalog
from localcluster import Cluster
from tests.e2e.conftest import NAMESPACE, Clinic, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
TWINS = ("dr-indra-gurung", "dr-tomas-okafor")
SOUND, EMPTY = "shared-sound", "shared-spoiled"


def fine_tune(name: str, twin: str, parent: str, folder: str) -> dict[str, Any]:
    return {
        "apiVersion": "bettertherapy.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": name},
        "spec": {
            "twinRef": {"name": twin}, "parentDigest": parent, "retries": 0, "deadlineSeconds": 600,
            "dataset": {"uri": f"pvc://{STORE_CLAIM}/{STORE}/{twin}/{folder}"},
            "hyperparameters": {"maxSteps": 3, "batchSize": 2, "validationPercent": 0, "rehearsalPercent": 0},
        },
    }  # fmt: skip


def ended(clinic: Clinic, name: str) -> Any:
    run = clinic.get("finetunerun", name)
    return run if run.get("status", {}).get("completionTime") else None


def test_two_twins_share_a_trainer_and_an_examiner_and_one_ones_data_harm_only_it(
    clinic: Clinic, kubectl_binary: str, tmp_path: Path
) -> None:
    clinic.await_serving(*TWINS)
    versions = {twin: clinic.get("twin", twin)["status"]["activeVersion"]["digest"] for twin in TWINS}
    lines = [json.dumps(line) for line in MOVED_CLINIC.lines]
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "day.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "spoiled").mkdir()
    (tmp_path / "spoiled" / "day.jsonl").write_text(f"{lines[0]}\n{{no JSON\n")
    kube = Kube(kubectl_program=kubectl_binary, helm_program="helm", kubeconfig=Cluster("test").kubeconfig_path)
    with Volume(kube, namespace=NAMESPACE, image=Catalog().references()["neuron"], claim=STORE_CLAIM) as store:
        for twin in TWINS:
            for kind in ("sound", "spoiled"):
                store.upload(tmp_path / kind, f"{store.root}/{STORE}/{twin}/shared-{kind}")
    clinic.kubectl(
        "patch", "mp", POOL, "-n", NAMESPACE, "--type=merge",
        "-p", json.dumps({"spec": {"fineTune": {"runsPerTrainer": 3, "maxConcurrentRuns": 0}}}),
    )  # fmt: skip
    try:
        names = [f"{SOUND}-0", f"{SOUND}-1"]
        clinic.apply(*(
            fine_tune(name, twin, versions[twin], "shared-sound") for name, twin in zip(names, TWINS, strict=True)
        ))  # fmt: skip
        eventually(
            lambda: all(clinic.condition("finetunerun", name, "Queued").get("reason") == "PoolBusy" for name in names),
            seconds=60, what="both runs in line",
        )  # fmt: skip
        places = {"spec": {"fineTune": {"maxConcurrentRuns": 1}}}
        clinic.kubectl("patch", "mp", POOL, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(places))
        runs = [
            eventually(lambda name=name: ended(clinic, name), seconds=400, what=f"the end of {name}") for name in names
        ]
        for run, twin in zip(runs, TWINS, strict=True):
            status = run["status"]
            assert status.get("failure") is None, status
            assert status["artifact"]["digest"] != versions[twin]
            assert status["eval"]["verdict"] == status["verdict"]
        jobs = json.loads(clinic.kubectl("get", "jobs", "-n", NAMESPACE, "-o", "json").stdout)["items"]
        made = sorted(job["metadata"]["name"] for job in jobs if job["metadata"]["name"].startswith(SOUND))
        leader = made[0]
        assert made == [leader, f"{leader}-examiner"], "one Job each"
        follower = next(run for run in runs if run["metadata"]["name"] != leader)
        assert follower["status"]["trainer"]["name"] == follower["status"]["examiner"]["name"] == leader
        assert len({run["status"]["artifact"]["digest"] for run in runs}) == 2

        spoiled = [f"{EMPTY}-0", f"{EMPTY}-1"]
        places["spec"]["fineTune"]["maxConcurrentRuns"] = 0
        clinic.kubectl("patch", "mp", POOL, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(places))
        clinic.apply(
            fine_tune(spoiled[0], TWINS[0], versions[TWINS[0]], "shared-spoiled"),
            fine_tune(spoiled[1], TWINS[1], versions[TWINS[1]], "shared-sound"),
        )
        eventually(
            lambda: all(clinic.condition("finetunerun", name, "Queued").get("reason") for name in spoiled),
            seconds=60, what="both in line",
        )  # fmt: skip
        places["spec"]["fineTune"]["maxConcurrentRuns"] = 1
        clinic.kubectl("patch", "mp", POOL, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(places))
        bad, good = (
            eventually(lambda name=name: ended(clinic, name), seconds=400, what=f"the end of {name}")
            for name in spoiled
        )
        assert bad["status"]["failure"]["class"] == "BadData", bad["status"]
        assert "line 2" in bad["status"]["failure"]["message"]
        assert good["status"].get("failure") is None, good["status"]
        assert good["status"]["verdict"]
    finally:
        settled = {"spec": {"fineTune": {"runsPerTrainer": 1, "maxConcurrentRuns": 4}}}
        clinic.kubectl("patch", "mp", POOL, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(settled))
