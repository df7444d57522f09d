"""Which subnet is meant, when it is not named."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_twin.errors import TwinCliError
from kubectl_twin.subnets import Subnet, only_subnet, subnet_of


def pool(name: str, **miner: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"miner": miner}}


def test_a_pool_and_a_validator_name_theirs() -> None:
    assert subnet_of(pool("a", netuid=42, chain="finney")) == Subnet("finney", 42)
    assert subnet_of({"spec": {"chain": {"network": "test", "netuid": 7}}}) == Subnet("test", 7)
    assert subnet_of(pool("a")) is None
    assert subnet_of({}) is None


def test_the_local_chain_of_an_object_is_the_service_of_its_namespace() -> None:
    """To the SDK `local` is a node of this machine."""
    where = {"metadata": {"name": "a", "namespace": "clinic"}}
    url = "http://subnet.clinic.svc:9944"
    assert subnet_of(where | {"spec": {"miner": {"netuid": 1, "chain": "local"}}}) == Subnet(url, 1)
    assert subnet_of(where | {"spec": {"chain": {"network": "local", "netuid": 1}}}) == Subnet(url, 1)


def test_a_namespace_on_one_subnet_needs_no_name() -> None:
    pools = [pool("a", netuid=42, chain="finney"), pool("b", netuid=42, chain="finney"), pool("c")]
    assert only_subnet(pools, namespace="clinic") == Subnet("finney", 42)


def test_none_or_several_is_said_with_what_to_do() -> None:
    with pytest.raises(TwinCliError, match="give --network and --netuid"):
        only_subnet([pool("c")], namespace="clinic")
    with pytest.raises(TwinCliError, match=r"choose one with --pool \(a, b\)"):
        only_subnet([pool("a", netuid=42, chain="finney"), pool("b", netuid=1, chain="test")], namespace="clinic")
