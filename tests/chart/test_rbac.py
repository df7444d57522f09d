"""The operator's rights: exactly those that it uses, and enough for what it hands on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.operator.rounds.samples import round_
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import pool
from tests.unit.operator.validator.validators import validator
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.miner_pool.role import build_engine_role, build_miner_role
from twin_operator.kinds.resources import CHILDREN, MADE_ONCE, OPTIONAL_CHILDREN
from twin_operator.kinds.validator.role import build_role as build_gateway_role
from twin_operator.kinds.validator.role import build_rounds_role
from twin_operator.kinds.validator_round.role import build_role as build_round_role

Rules = dict[tuple[str, str], set[str]]
READ = {"get", "list", "watch"}
MANAGE = READ | {"create", "patch", "delete"}


def rules_of(roles: list[dict]) -> Rules:
    found: Rules = {}
    for role in roles:
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


@pytest.fixture
def cluster_role(render: Callable) -> list[dict]:
    return [
        d
        for d in render("twin-operator")
        if d["kind"] == "ClusterRole" and d["metadata"]["name"] == "rel-twin-operator"
    ]


def test_rights_are_exactly_these(cluster_role: list[dict]) -> None:
    wanted: Rules = {
        ("bettertherapy.io", "doctortwins"): READ,
        ("bettertherapy.io", "minerpools"): READ,
        ("bettertherapy.io", "validators"): READ,
        ("bettertherapy.io", "finetuneruns"): READ | {"create", "delete"},
        ("bettertherapy.io", "validatorrounds"): READ | {"create", "delete"},
        ("bettertherapy.io", "validatorrounds/status"): {"patch"},
        ("bettertherapy.io", "validatorrounds/finalizers"): {"update"},
        ("bettertherapy.io", "doctortwins/status"): {"patch"},
        ("bettertherapy.io", "finetuneruns/status"): {"patch"},
        ("bettertherapy.io", "doctortwins/finalizers"): {"update"},
        ("bettertherapy.io", "finetuneruns/finalizers"): {"update"},
        ("bettertherapy.io", "minerpools/status"): {"patch"},
        ("bettertherapy.io", "minerpools/finalizers"): {"update"},
        ("bettertherapy.io", "validators/status"): {"patch"},
        ("bettertherapy.io", "validators/finalizers"): {"update"},
        # What agents may do with their reports it hands on, so it must hold it.
        ("bettertherapy.io", "routingslices"): MANAGE,
        ("bettertherapy.io", "podreports"): MANAGE,
        ("", "pods"): READ,
        ("events.k8s.io", "events"): {"create"},
    }
    # Made where there are none, and neither read nor changed.
    wanted |= {(each.group, each.plural): {"create"} for each in MADE_ONCE}
    wanted |= {(child.group, child.plural): MANAGE for child in (*CHILDREN, *OPTIONAL_CHILDREN)}
    assert rules_of(cluster_role) == wanted


def test_nothing_is_a_wildcard_or_escalates(render: Callable) -> None:
    roles = [d for d in render("twin-operator") if d["kind"] in {"Role", "ClusterRole"}]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not {"secrets", "persistentvolumeclaims"} & {*rule["resources"]} or rule["verbs"] == ["create"]
            assert not any("exec" in resource or "attach" in resource for resource in rule["resources"])


def test_operator_holds_what_its_roles_hand_on(cluster_role: list[dict], handed_on: list[dict]) -> None:
    held = rules_of(cluster_role)
    assert handed_on
    for key, verbs in rules_of(handed_on).items():
        assert verbs <= held[key], f"the API server will refuse a Role with {verbs - held[key]} on {key}"


@pytest.fixture
def handed_on() -> list[dict]:
    return [
        build_engine_role(pool(), configmaps=True), build_miner_role(pool(), configmaps=True),
        build_role(run(), "r1", "trainer"), build_role(run(), "r1-examiner", "examiner"),
        build_gateway_role(validator()), build_rounds_role(validator(rounds={})) or {}, build_round_role(round_()),
    ]  # fmt: skip


def test_lease_is_the_only_one_it_may_change(render: Callable) -> None:
    (leader,) = [
        d for d in render("twin-operator") if d["metadata"]["name"] == "rel-twin-operator-leader" and "rules" in d
    ]
    create, change = leader["rules"]
    assert create["verbs"] == ["create"]
    assert (change["resourceNames"], change["verbs"]) == (["rel-twin-operator"], ["get", "update"])


def test_lease_name_is_the_one_the_operator_gets(render: Callable) -> None:
    (deployment,) = [d for d in render("twin-operator") if d["kind"] == "Deployment"]
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["TWIN_LEASE_NAME"] == "rel-twin-operator"


def test_one_namespace_needs_no_cluster_wide_right(render: Callable) -> None:
    documents = render(
        "twin-operator", "--set", "watchNamespace=clinic", "--set", "rbac.aggregateToDefaultRoles=false",
    )  # fmt: skip
    assert not [d for d in documents if d["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    (role,) = [d for d in documents if d["kind"] == "Role" and d["metadata"]["namespace"] == "clinic"]
    (binding,) = [d for d in documents if d["kind"] == "RoleBinding" and d["metadata"]["namespace"] == "clinic"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["namespace"] == "ns"


def test_viewers_read_and_editors_change(render: Callable) -> None:
    roles = {d["metadata"]["name"]: d for d in render("twin-operator") if d["kind"] == "ClusterRole"}
    deciding = {name for name, role in roles.items() for verbs in rules_of([role]).values() if "approve" in verbs}
    assert deciding == {"twin-doctor", "rel-twin-operator-approve"}
    assert "update" not in rules_of([roles["twin-doctor"]])["bettertherapy.io", "doctortwins"]
    view, edit = roles["rel-twin-operator-view"], roles["rel-twin-operator-edit"]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert set().union(*rules_of([view]).values()) == READ
    assert "doctortwins/status" not in {resource for _, resource in rules_of([edit])}
