"""What goes wrong on a real cluster ends in a condition that says what to do, and other twins keep answering."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import NAMESPACE, Clinic, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
GOOD = "dr-indra-gurung"


def twin(clinic: Clinic, name: str, **adapter: object) -> dict[str, object]:
    """A twin beside the good one, with the good one's adapter but for what is given."""
    spec = clinic.get("twin", GOOD)["spec"]
    return {
        "apiVersion": "bettertherapy.io/v1alpha1",
        "kind": "DoctorTwin",
        "metadata": {"name": name},
        "spec": {
            "doctor": {"name": "Dr. Test", "licence": "T-1"},
            "baseModel": spec["baseModel"],
            "poolSelector": spec["poolSelector"],
            "adapter": {**spec["adapter"], **adapter},
        },
    }


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("t-digest", {"digest": "sha256:" + "0" * 64}, "DigestMismatch"),
        ("t-missing", {"uri": "pvc://clinic-store/adapters/nobody/" + "0" * 64}, "ArtifactNotFound"),
        ("t-rank", {"rank": 4}, "RankMismatch"),
        ("t-high", {"rank": 64}, "RankTooHigh"),
    ],
)
def test_a_bad_adapter_is_named_and_blocks_nobody(
    clinic: Clinic, name: str, change: dict[str, object], reason: str
) -> None:
    clinic.apply(twin(clinic, name, **change))
    try:
        found = eventually(
            lambda: next(
                (
                    c
                    for c in clinic.get("twin", name).get("status", {}).get("conditions", [])
                    if c["status"] == "False" and c["reason"] == reason
                ),
                None,
            ),
            seconds=60,
            what=f"a condition with reason {reason}",
        )
        assert len(found["message"]) > 20
        assert not clinic.is_true("twin", name, "Ready")
        assert clinic.ask(GOOD).status == 200
    finally:
        clinic.kubectl("delete", "twin", name, "-n", NAMESPACE, "--wait=true")


def test_a_wrong_new_version_leaves_the_last_good_one_serving(clinic: Clinic) -> None:
    good = clinic.get("twin", GOOD)["spec"]["adapter"]
    bad = {**good, "digest": "sha256:" + "1" * 64}
    try:
        clinic.kubectl(
            "patch", "twin", GOOD, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {"adapter": bad}})
        )
        eventually(lambda: not clinic.is_true("twin", GOOD, "Ready"), seconds=60, what="Ready=False")
        assert clinic.is_true("twin", GOOD, "Serving")
        answer = clinic.ask(GOOD)
        assert (answer.status, answer.headers["x-twin-adapter-digest"]) == (200, good["digest"])
    finally:
        clinic.kubectl(
            "patch", "twin", GOOD, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {"adapter": good}})
        )
    eventually(lambda: clinic.is_true("twin", GOOD, "Ready"), seconds=60, what="Ready=True again")


def test_a_killed_engine_gets_its_adapters_back(clinic: Clinic) -> None:
    pod = clinic.pods("engine")[0]["metadata"]["name"]

    def restarts() -> int:
        statuses = clinic.get("pod", pod)["status"]["containerStatuses"]
        return next(int(s["restartCount"]) for s in statuses if s["name"] == "engine")

    before = restarts()
    clinic.kubectl("exec", "-n", NAMESPACE, pod, "-c", "engine", "--", "sh", "-c", "kill -TERM 1", check=False)
    eventually(lambda: restarts() > before, seconds=120, what="the kubelet's restart of the engine")
    eventually(lambda: clinic.is_true("twin", GOOD, "Ready"), seconds=240, what="the twin's Ready")
    assert clinic.ask(GOOD).status == 200


def test_serving_goes_on_without_the_operator(clinic: Clinic) -> None:
    deployments = json.loads(clinic.kubectl("get", "deploy", "-n", "twin-system", "-o", "json").stdout)["items"]
    name, replicas = deployments[0]["metadata"]["name"], deployments[0]["spec"]["replicas"]
    clinic.kubectl("scale", "deploy", name, "-n", "twin-system", "--replicas=0")
    try:
        selector = ",".join(f"{k}={v}" for k, v in deployments[0]["spec"]["selector"]["matchLabels"].items())
        clinic.kubectl("wait", "--for=delete", "pod", "-l", selector, "-n", "twin-system", "--timeout=90s", timeout=120)
        assert clinic.ask(GOOD).status == 200
    finally:
        clinic.kubectl("scale", "deploy", name, "-n", "twin-system", f"--replicas={replicas}")
        clinic.kubectl("rollout", "status", "deploy", name, "-n", "twin-system", "--timeout=120s")
