"""Each cluster gets addresses that nothing else on the machine uses."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from localcluster import network
from localcluster.errors import StartError
from localcluster.network import SLOTS, Network, choose_slot


def test_no_two_slots_share_an_address() -> None:
    subnets = [subnet for slot in range(SLOTS) for subnet in _subnets(Network(slot))]

    assert not [pair for pair in combinations(subnets, 2) if pair[0].overlaps(pair[1])]


def test_the_node_and_the_machine_are_on_the_same_link() -> None:
    chosen = Network(3)

    assert {chosen.host, chosen.node} == set(chosen.link.hosts())


def test_a_cluster_keeps_its_slot() -> None:
    assert choose_slot("demo", taken={"test": 0, "demo": 5}, routes=[]) == 5


def test_a_new_cluster_takes_the_first_free_slot() -> None:
    assert choose_slot("other", taken={"test": 0, "demo": 2}, routes=[]) == 1


@pytest.mark.parametrize("subnet", ["link", "pods", "services"])
def test_a_slot_that_a_route_of_this_machine_overlaps_is_passed_over(subnet: str) -> None:
    route: IPv4Network = getattr(Network(0), subnet)

    assert choose_slot("demo", taken={}, routes=[route]) == 1


def test_a_wide_route_over_all_addresses_leaves_no_slot() -> None:
    with pytest.raises(StartError, match="no addresses are left"):
        choose_slot("demo", taken={}, routes=[IPv4Network("10.0.0.0/8")])


def test_the_default_route_is_no_obstacle() -> None:
    assert choose_slot("demo", taken={}, routes=[IPv4Network("0.0.0.0/0")]) == 0


def test_a_released_slot_can_be_taken_by_another_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_routes", list)
    registry = tmp_path / "networks.json"
    first = network.allocate("first", registry=registry)
    second = network.allocate("second", registry=registry)

    network.release("first", registry=registry)

    assert network.allocate("third", registry=registry) == first
    assert network.allocate("second", registry=registry) == second


def _subnets(chosen: Network) -> list[IPv4Network]:
    return [chosen.link, chosen.pods, chosen.services]
