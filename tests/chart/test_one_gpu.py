"""One node with one GPU: nothing of it needs a second GPU, a second node, or a volume that several nodes share."""

from __future__ import annotations

import copy
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bettertherapy_api import names
from bettertherapy_api.miner_pool import MinerPoolSpec
from tests.conftest import Kubectl
from tests.unit.operator.children.pods import children, pod_of
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import pool, twin
from twin_operator.domain.bounds import Bounds, pool_out_of_bounds, run_out_of_bounds
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.settings import Images

ROOT = Path(__file__).resolve().parents[2]
VALUES = ROOT / "charts/twin-miner/values-one-gpu.yaml"
PAGE = (ROOT / "docs/one-gpu.md").read_text()
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(render: Callable) -> list[Manifest]:
    documents: list[Manifest] = render("twin-miner", "-f", str(VALUES))
    return documents


@pytest.fixture(scope="module")
def spec(rendered: list[Manifest]) -> Manifest:
    (made,) = [each["spec"] for each in rendered if each["kind"] == "MinerPool"]
    MinerPoolSpec.model_validate(made)
    return dict(made)


def gpus(pod: Manifest) -> int:
    """Return how many GPUs a pod takes."""
    return sum(
        int(each.get("resources", {}).get("requests", {}).get("nvidia.com/gpu", 0)) for each in pod["containers"]
    )


@pytest.fixture(scope="module")
def jobs(spec: Manifest) -> dict[str, Manifest]:
    """The two Jobs of a run in this pool, with the class that the operator gives it."""
    of = pool(**spec)
    due = run(priorityClassName=spec["fineTune"]["priorityClassName"])
    return {
        "trainer": build_trainer_job(due, twin(), of, Images(), prompt=False),
        "examiner": build_examiner_job(due, twin(), of, Images(), child="sha256:" + "c" * 64, prompt=False),
    }


def test_engines_and_runs_take_the_one_gpu_whole_and_never_two(spec: Manifest, jobs: dict[str, Manifest]) -> None:
    engine = children(**spec)["Deployment", "p-engine"]["spec"]
    assert engine["replicas"] == 1
    assert engine["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert gpus(engine["template"]["spec"]) == 1
    assert {name: gpus(job["spec"]["template"]["spec"]) for name, job in jobs.items()} == {"trainer": 1, "examiner": 1}


def test_claims_are_of_one_node_and_all_that_pods_mount_is_there(
    rendered: list[Manifest], spec: Manifest, jobs: dict[str, Manifest]
) -> None:
    claims = {each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "PersistentVolumeClaim"}
    assert claims.keys() == {"rel-store", "rel-cache"}
    assert all(each["accessModes"] == ["ReadWriteOnce"] and "storageClassName" not in each for each in claims.values())
    kept = [each["metadata"].get("annotations", {}) for each in rendered if each["kind"] == "PersistentVolumeClaim"]
    assert all(each["helm.sh/resource-policy"] == "keep" for each in kept)
    pods = [pod_of(each) for kind_name, each in children(**spec).items() if kind_name[0] == "Deployment"]
    pods += [job["spec"]["template"]["spec"] for job in jobs.values()]
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    }  # fmt: skip
    assert mounted - {"adapters"} == claims.keys(), "`adapters` is the claim of the sample twin's own adapter"
    cache = next(v for v in pods[0]["volumes"] if v["name"] == "cache")
    assert cache["persistentVolumeClaim"]["claimName"] == "rel-cache"


def test_no_budget_keeps_the_node_from_being_drained(spec: Manifest) -> None:
    for (kind, name), each in children(**spec).items():
        if kind == "PodDisruptionBudget":
            assert each["spec"].get("maxUnavailable") == 1, name


def test_a_run_ranks_above_the_engine_and_the_operator_permits_its_class(
    spec: Manifest, jobs: dict[str, Manifest], render: Callable
) -> None:
    engine = pod_of(children(**spec)["Deployment", "p-engine"])
    assert "priorityClassName" not in engine
    for name, job in jobs.items():
        assert job["spec"]["template"]["spec"]["priorityClassName"] == "twin-training", name
    documents = render("twin-operator", "-f", str(ROOT / "charts/twin-operator/values-one-gpu.yaml"))
    (operator,) = [each for each in documents if each["kind"] == "Deployment"]
    assert operator["spec"]["replicas"] == 1
    env = {each["name"]: each.get("value") for each in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    told = json.loads(env["TWIN_TENANTS"])
    bounds = Bounds.model_validate(told)
    assert pool_out_of_bounds(pool(**spec), bounds, Images()) is None
    due = run(priorityClassName="twin-training", dataset={"uri": "pvc://rel-store/adapters/dr-a/interactions"})
    assert run_out_of_bounds(due, pool(**spec), bounds, Images()) is None
    narrower = Bounds.model_validate({**told, "priorityClasses": []})
    assert pool_out_of_bounds(pool(**spec), narrower, Images()) is not None


@pytest.mark.parametrize("port", [443, 6443, 16443])
def test_the_api_server_is_reached_where_k3s_and_microk8s_have_it(port: int, render: Callable) -> None:
    (policy,) = [each for each in render("twin-operator") if each["kind"] == "NetworkPolicy"]
    assert port in [each["port"] for rule in policy["spec"]["egress"] for each in rule["ports"]]
    examples = yaml.safe_load_all((ROOT / "examples/10-access-and-network.yaml").read_text())
    (example,) = [each for each in examples if each["kind"] == "NetworkPolicy"]
    assert port in [each["port"] for rule in example["spec"]["egress"] for each in rule["ports"]]


def test_the_pages_commands_render(helm: Callable, tmp_path: Path) -> None:
    """Those of our charts, as they stand there."""
    (twins,) = re.findall(r"cat > my-twins.yaml <<'EOF'\n(.*?)^EOF", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "my-twins.yaml").write_text(twins)
    shell = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    ours = [line.split() for line in shell.splitlines() if re.match(r"helm (install|upgrade) \S+ charts/", line)]
    assert len(ours) == 3
    for words in ours:
        arguments = [word.strip("'") for word in words[2:] if word != "--create-namespace"]
        arguments = [re.sub("^charts/", f"{ROOT}/charts/", word) for word in arguments]
        made = helm("template", *[str(tmp_path / word) if word == "my-twins.yaml" else word for word in arguments])
        assert "my-twins.yaml" not in words or "\nkind: DoctorTwin\n" in made.stdout


UNIT = "bettertherapy.test/gpu"
"""Stands for nvidia.com/gpu on a node that has none: other tests ask for that one and expect it to be missing."""


@pytest.fixture
def one_gpu(kubectl: Kubectl) -> Iterator[str]:
    """Have the cluster's first real node offer one unit of UNIT, and a PriorityClass for trainings."""
    nodes = json.loads(kubectl("get", "nodes", "-l", "type!=kwok", "-o", "json").stdout)["items"]
    node = nodes[0]["metadata"]["name"]
    patch = json.dumps([{"op": "add", "path": f"/status/capacity/{UNIT.replace('/', '~1')}", "value": "1"}])
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
    name = f"twin-training-{secrets.token_hex(3)}"
    kubectl("create", "priorityclass", name, "--value=1000")
    yield name
    kubectl("delete", "priorityclass", name)
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch.replace("add", "remove"))


def played(manifest: Manifest, priority: str) -> Manifest:
    """Return a workload with its strategy, class and share of the GPU, whose container only waits."""
    manifest = copy.deepcopy(manifest)
    pod = manifest["spec"]["template"]["spec"]
    share = {"cpu": "1m", "memory": "8Mi", UNIT: str(gpus(pod))}
    kept = {
        key: pod[key] for key in ("securityContext", "restartPolicy", "terminationGracePeriodSeconds") if key in pod
    }
    if "priorityClassName" in pod:
        kept["priorityClassName"] = priority
    waiting = {
        "name": "waits", "image": "registry.k8s.io/pause:3.6", "imagePullPolicy": "Never",
        "resources": {"requests": share, "limits": share},
    }  # fmt: skip
    manifest["spec"]["template"]["spec"] = {**kept, "containers": [waiting]}
    manifest["metadata"].pop("ownerReferences", None)
    manifest["metadata"].pop("namespace", None)
    manifest["spec"].pop("podFailurePolicy", None)
    return manifest


@pytest.mark.cluster
def test_the_gpu_goes_from_engine_to_engine_to_a_run_and_back(
    spec: Manifest, jobs: dict[str, Manifest], one_gpu: str, namespace: str, kubectl: Kubectl
) -> None:
    def pods(component: str) -> list[Manifest]:
        shown = kubectl("get", "pods", "-n", namespace, "-l", f"{names.LABEL_COMPONENT}={component}", "-o", "json")
        items: list[Manifest] = json.loads(shown.stdout)["items"]
        return [each for each in items if "deletionTimestamp" not in each["metadata"]]

    def phases(component: str) -> list[str]:
        return [each["status"]["phase"] for each in pods(component)]

    def until(seen: Callable[[], bool]) -> None:
        end = time.monotonic() + 90
        while not seen():
            assert time.monotonic() < end, kubectl("get", "pods,events", "-n", namespace).stdout
            time.sleep(0.3)

    engine = played(children(**spec)["Deployment", "p-engine"], one_gpu)

    def apply(manifest: Manifest) -> None:
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))

    apply(engine)
    until(lambda: phases("engine") == ["Running"])
    first = pods("engine")[0]["metadata"]["uid"]

    engine["spec"]["template"]["metadata"]["annotations"]["changed"] = "yes"
    apply(engine)
    until(lambda: phases("engine") == ["Running"] and pods("engine")[0]["metadata"]["uid"] != first)

    apply(played(jobs["trainer"], one_gpu))
    until(lambda: phases("trainer") == ["Running"] and phases("engine") == ["Pending"])

    kubectl("delete", "job", "-n", namespace, jobs["trainer"]["metadata"]["name"])
    until(lambda: phases("engine") == ["Running"])
