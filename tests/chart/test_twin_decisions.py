"""Who may decide which version answers, as each identity with the chart's own roles on a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Kubectl

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
APPROVE = {"bettertherapy.io/approve": DIGEST}
ADAPTER = {"uri": "pvc://adapters/store/a", "digest": DIGEST, "rank": 8}
TWIN: dict[str, Any] = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "DoctorTwin",
    "metadata": {"name": "dr-a"},
    "spec": {
        "doctor": {"name": "Dr. A", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {},
        "gate": {"approval": "Doctor"},
    },
}  # fmt: skip
As = Callable[..., Any]

pytestmark = pytest.mark.cluster


def twin(name: str = "dr-a", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        **TWIN, "metadata": {"name": name, "annotations": annotations or {}}, "spec": {**TWIN["spec"], **spec},
    }  # fmt: skip


@pytest.fixture(scope="module")
def people(render: Callable[..., list[dict[str, Any]]], kubectl: Kubectl, namespace_once: str) -> As:
    """Make the chart's roles here, and users who have them; `people("editor", …)` runs kubectl as that one."""
    namespace = namespace_once
    roles = {each["metadata"]["name"]: each for each in render("twin-operator") if each["kind"] == "ClusterRole"}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    objects: list[dict[str, Any]] = [
        {**kind, "metadata": {"name": name}, "rules": roles[name]["rules"]}
        for name in (
            "twin-doctor",
            "twin-editor",
            *(f"rel-twin-operator-{part}" for part in ("view", "edit", "approve")),
        )
    ]
    for user, bound in {
        "doctor": ["twin-doctor"], "editor": ["twin-editor"], "both": ["twin-doctor", "twin-editor"],
        "namespace-editor": ["rel-twin-operator-view", "rel-twin-operator-edit"],
        "namespace-admin": ["rel-twin-operator-view", "rel-twin-operator-edit", "rel-twin-operator-approve"],
    }.items():  # fmt: skip
        objects += [binding(user, name) for name in bound]
    kubectl(
        "apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )

    def run(user: str, *arguments: str, stdin: str | None = None) -> Any:
        return kubectl("-n", namespace, f"--as={user}", *arguments, stdin=stdin, check=False)

    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(twin("probe")))
    deadline = time.monotonic() + 30
    while patch(run, "editor", annotated(reject=OTHER), "--dry-run=server", name="probe").returncode == 0:
        assert time.monotonic() < deadline, "the policy twin-decisions.bettertherapy.io is not enforced"
        time.sleep(0.2)
    return run


def binding(user: str, role: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }  # fmt: skip


@pytest.fixture
def as_user(people: As, kubectl: Kubectl, namespace_once: str) -> As:
    """With a fresh twin."""
    kubectl("delete", "twins", "-n", namespace_once, "--all")
    kubectl("apply", "-n", namespace_once, "-f", "-", stdin=json.dumps(TWIN))
    return people


def patch(as_user: As, user: str, change: dict[str, Any], *options: str, name: str = "dr-a") -> Any:
    return as_user(user, "patch", "doctortwin", name, "--type=merge", "-p", json.dumps(change), *options)


def annotated(**words: str | None) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {f"bettertherapy.io/{key.replace('_', '-')}": said for key, said in words.items()}}
    }


FORGED = {
    "approving": annotated(approve=DIGEST),
    "rejecting": annotated(reject=DIGEST),
    "giving a reason": annotated(reject_reason="because"),
    "setting the adapter": {"spec": {"adapter": ADAPTER}},
    "asking nobody": {"spec": {"gate": {"approval": "Automatic"}}},
    "taking the gate away": {"spec": {"gate": None}},
    "lowering the gate": {"spec": {"gate": {"minSafetyPercent": 0}}},
}


@pytest.mark.parametrize("user", ["editor", "namespace-editor"])
@pytest.mark.parametrize("what", FORGED)
def test_who_may_only_edit_decides_nothing(as_user: As, user: str, what: str) -> None:
    done = patch(as_user, user, FORGED[what])
    assert done.returncode != 0
    assert "twin-decisions.bettertherapy.io" in done.stderr
    assert "verb approve" in done.stderr
    assert user in done.stderr


@pytest.mark.parametrize("how", ["create", "apply", "server-side apply", "replace", "json patch", "status", "annotate"])
def test_by_no_way_of_writing(as_user: As, kubectl: Kubectl, namespace_once: str, how: str) -> None:
    approved = json.dumps(twin(annotations=APPROVE))
    if how == "create":
        for forged in (twin("dr-b", APPROVE), twin("dr-b", adapter=ADAPTER)):
            done = as_user("editor", "create", "-f", "-", stdin=json.dumps(forged))
            assert (done.returncode != 0, "twin-decisions" in done.stderr) == (True, True), done.stderr
        return
    if how == "apply":
        done = as_user("editor", "apply", "-f", "-", stdin=approved)
    elif how == "server-side apply":
        done = as_user("editor", "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=approved)
    elif how == "replace":
        done = as_user("editor", "replace", "-f", "-", stdin=approved)
    elif how == "json patch":
        add = [{"op": "add", "path": "/metadata/annotations", "value": APPROVE}]
        done = as_user("editor", "patch", "twin", "dr-a", "--type=json", "-p", json.dumps(add))
    elif how == "annotate":
        done = as_user("editor", "annotate", "twin", "dr-a", f"bettertherapy.io/approve={DIGEST}", "--overwrite")
    else:
        done = patch(as_user, "editor", {"status": {"promotedVersion": {"servedName": "x"}}}, "--subresource=status")
        assert "forbidden" in done.stderr.lower()
    assert done.returncode != 0
    assert how == "status" or "twin-decisions" in done.stderr
    left = json.loads(kubectl("-n", namespace_once, "get", "twin", "dr-a", "-o", "json").stdout)
    assert "bettertherapy.io/approve" not in (left["metadata"].get("annotations") or {})


def test_nor_by_the_status_subresource_for_who_may_write_it(as_user: As, kubectl: Kubectl, namespace_once: str) -> None:
    """The API server takes nothing but the status by that way."""
    kubectl(
        "create",
        "role",
        "status",
        "--verb=get,patch",
        "--resource=doctortwins.bettertherapy.io/status",
        "-n",
        namespace_once,
    )
    kubectl("create", "rolebinding", "status", "--role=status", "--user=editor", "-n", namespace_once)
    patch(as_user, "editor", annotated(approve=DIGEST), "--subresource=status")
    left = json.loads(kubectl("-n", namespace_once, "get", "twin", "dr-a", "-o", "json").stdout)
    assert "bettertherapy.io/approve" not in (left["metadata"].get("annotations") or {})


def test_nor_may_they_take_a_word_back(as_user: As) -> None:
    assert patch(as_user, "doctor", annotated(approve=DIGEST)).returncode == 0
    for change in (annotated(approve=None), annotated(approve=OTHER)):
        assert "verb approve" in patch(as_user, "editor", change).stderr


@pytest.mark.parametrize("user", ["doctor", "both", "namespace-admin"])
def test_who_may_approve_decides(as_user: As, user: str) -> None:
    for change in (annotated(approve=DIGEST), annotated(approve=None, reject=DIGEST, reject_reason="no")):
        done = patch(as_user, user, change)
        assert done.returncode == 0, done.stderr
    assert patch(as_user, user, annotated(rollback_to="base")).returncode == 0


@pytest.mark.parametrize(
    "change",
    [{"spec": {"systemPrompt": "x"}}, {"metadata": {"labels": {"a": "b"}}}, annotated(finetune_now="x"),
     {"spec": {"adapter": ADAPTER}}, {"spec": {"gate": {"approval": "Automatic"}}},
     {"metadata": {"finalizers": ["a/b"]}}],
    ids=json.dumps,
)  # fmt: skip
def test_a_doctor_changes_nothing_else(as_user: As, change: dict[str, Any]) -> None:
    done = patch(as_user, "doctor", change)
    assert "may decide on this DoctorTwin's versions" in done.stderr
    assert "verb update" in done.stderr


@pytest.mark.parametrize("user", ["both", "namespace-admin"])
def test_who_may_do_both_sets_adapters_and_gates(as_user: As, user: str) -> None:
    for change in ({"spec": {"adapter": ADAPTER}}, {"spec": {"gate": {"approval": "Automatic"}}}):
        assert patch(as_user, user, change).returncode == 0
    made = as_user(user, "create", "-f", "-", stdin=json.dumps(twin("dr-c", adapter=ADAPTER)))
    assert made.returncode == 0, made.stderr


def test_editors_go_on_editing(as_user: As) -> None:
    assert patch(as_user, "doctor", annotated(approve=DIGEST)).returncode == 0
    for change in ({"spec": {"systemPrompt": "x"}}, {"metadata": {"labels": {"a": "b"}}}, annotated(finetune_now="x")):
        done = patch(as_user, "editor", change)
        assert done.returncode == 0, done.stderr
    made = as_user("editor", "create", "-f", "-", stdin=json.dumps(twin("dr-d")))
    assert made.returncode == 0, made.stderr
    assert as_user("editor", "delete", "twin", "dr-d").returncode == 0


def test_a_doctor_may_be_given_one_twin(as_user: As, kubectl: Kubectl, namespace_once: str) -> None:
    rules = [{
        "apiGroups": ["bettertherapy.io"], "resources": ["doctortwins"], "resourceNames": ["dr-a"],
        "verbs": ["get", "patch", "approve"],
    }]  # fmt: skip
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dr-a"}, "rules": rules,
    }  # fmt: skip
    kubectl("apply", "-n", namespace_once, "-f", "-", stdin=json.dumps(role))
    kubectl("create", "rolebinding", "dr-a", "--role=dr-a", "--user=her", "-n", namespace_once)
    kubectl("create", "rolebinding", "her", "--role=twin-editor", "--user=her", "-n", namespace_once)
    kubectl("apply", "-n", namespace_once, "-f", "-", stdin=json.dumps(twin("dr-b")))
    assert patch(as_user, "her", annotated(approve=DIGEST)).returncode == 0
    assert "verb approve" in patch(as_user, "her", annotated(approve=DIGEST), name="dr-b").stderr
