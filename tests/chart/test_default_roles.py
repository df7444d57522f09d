"""Who may view or edit a namespace may do so with its twins: the cluster's own roles, as the API server sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Kubectl

CHART = Path(__file__).resolve().parents[2] / "charts" / "twin-operator"
ALL = ("doctortwins", "finetuneruns", "minerpools", "validatorrounds", "validators")
BETWEEN_PROGRAMS = ("podreports", "routingslices")
READ, WRITE = ("get", "list", "watch"), ("create", "update", "patch", "delete")

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def may(helm: Callable, kubectl: Kubectl, kubeconfig: Path, namespace_once: str) -> Iterator[Callable[..., bool]]:
    """Install the chart without pods; yields whether a user with one of the cluster's roles may do something."""
    namespace = namespace_once
    release = f"roles-{namespace}"
    where = ["-n", namespace, "--kubeconfig", str(kubeconfig)]
    settings = ["--set", f"crds.install=false,replicas=0,policies.tenants=false,fullnameOverride={release}"]
    helm("install", release, str(CHART), *where, *settings)
    for role in ("view", "edit", "admin"):
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er", "-n", namespace)

    def allowed(role: str, verb: str, resource: str, *options: str) -> bool:
        what = f"{resource}.bettertherapy.io"
        done = kubectl("auth", "can-i", verb, what, f"--as={role}er", "-n", namespace, *options, check=False)
        return bool(done.stdout.strip() == "yes")

    try:
        deadline = time.monotonic() + 30
        # The cluster gathers its roles when it sees new parts.
        while not (allowed("edit", "patch", "doctortwins") and allowed("admin", "approve", "doctortwins")):
            assert time.monotonic() < deadline, "the chart's roles didn't become part of the cluster's"
            time.sleep(0.2)
        yield allowed
    finally:
        helm("uninstall", release, *where, check=False)


def test_viewers_read_and_editors_write(may: Callable[..., bool]) -> None:
    for resource in ALL:
        assert all(may(role, verb, resource) for role in ("view", "edit") for verb in READ), resource
        assert [verb for verb in WRITE if may("view", verb, resource)] == []
        assert all(may("edit", verb, resource) for verb in WRITE), resource


@pytest.mark.parametrize("resource", BETWEEN_PROGRAMS)
def test_what_passes_between_programs_may_be_read_and_not_written(may: Callable[..., bool], resource: str) -> None:
    for role in ("view", "edit"):
        assert [verb for verb in (*READ, *WRITE) if may(role, verb, resource)] == list(READ)


def test_nobody_but_the_operator_writes_what_it_reports(may: Callable[..., bool]) -> None:
    assert [
        (role, resource)
        for role in ("view", "edit")
        for resource in ALL
        for verb in ("update", "patch")
        if may(role, verb, resource, "--subresource=status")
    ] == []


def test_admins_of_a_namespace_decide_on_versions_and_editors_do_not(may: Callable[..., bool]) -> None:
    assert [role for role in ("view", "edit", "admin") if may(role, "approve", "doctortwins")] == ["admin"]
