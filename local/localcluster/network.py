"""Addresses for each cluster, and the link between this machine and a cluster's network namespace."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from localcluster.errors import StartError

_LINKS = IPv4Network("10.213.0.0/24")
_PODS = IPv4Network("10.214.0.0/16")
_SERVICES = IPv4Network("10.215.0.0/16")
SLOTS = 64
_IP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster."""

    slot: int

    @property
    def link(self) -> IPv4Network:
        """The two addresses between this machine and the node."""
        return list(_LINKS.subnets(new_prefix=30))[self.slot]

    @property
    def host(self) -> IPv4Address:
        """This machine, as the pods see it."""
        return self.link[1]

    @property
    def node(self) -> IPv4Address:
        """The node and its API server."""
        return self.link[2]

    @property
    def pods(self) -> IPv4Network:
        """The pods' addresses, routed from this machine."""
        return list(_PODS.subnets(new_prefix=22))[self.slot]

    @property
    def services(self) -> IPv4Network:
        """The Services' addresses, routed from this machine."""
        return list(_SERVICES.subnets(new_prefix=22))[self.slot]

    @property
    def api_service(self) -> IPv4Address:
        """``kubernetes.default``."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """``kube-dns.kube-system``."""
        return self.services[10]


def choose_slot(name: str, *, taken: dict[str, int], routes: Iterable[IPv4Network]) -> int:
    """The slot of ``name``: the one it has, else the first that no other cluster and no route of this machine uses.

    Raises:
        StartError: none is left.
    """
    if name in taken:
        return taken[name]
    present = [route for route in routes if route.prefixlen > 0]
    for slot in range(SLOTS):
        network = Network(slot)
        wanted = (network.link, network.pods, network.services)
        if slot not in taken.values() and not any(w.overlaps(route) for w in wanted for route in present):
            return slot
    raise StartError(
        "no addresses are left for another cluster",
        remedy=f"remove clusters with `down --purge`, or free part of {_LINKS}, {_PODS} and {_SERVICES}",
    )


def allocate(name: str, *, registry: Path) -> Network:
    """The addresses of ``name``, remembered in ``registry`` until `release`."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    with registry.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        taken: dict[str, int] = json.loads(file.read() or "{}")
        if name not in taken:
            taken[name] = choose_slot(name, taken=taken, routes=_routes())
            file.truncate(0)
            file.write(json.dumps(taken))
    return Network(taken[name])


def release(name: str, *, registry: Path) -> None:
    """Forget the addresses of ``name``."""
    if not registry.is_file():
        return
    with registry.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        taken: dict[str, int] = json.loads(file.read() or "{}")
        taken.pop(name, None)
        file.seek(0)
        file.truncate(0)
        file.write(json.dumps(taken))


def _routes() -> list[IPv4Network]:
    listed = json.loads(_ip("-json", "-4", "route", "show") or "[]")
    found: list[IPv4Network] = []
    for route in listed:
        destination = "0.0.0.0/0" if route["dst"] == "default" else route["dst"]
        found.append(IPv4Network(destination, strict=False))
    return found


def interface(name: str) -> str:
    """The name of this machine's end of the link."""
    return f"bt-{name}"


def connect(name: str, network: Network, *, pid: int) -> None:
    """Join this machine and the network namespace of ``pid``, and route to what is behind it."""
    outer, inner = interface(name), f"bn-{name}"
    disconnect(name)
    _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
    _ip("link", "set", inner, "netns", str(pid))
    _ip("address", "add", f"{network.host}/{network.link.prefixlen}", "dev", outer)
    _ip("link", "set", outer, "up")
    inside = ["nsenter", "--target", str(pid), "--net"]
    _ip("link", "set", "lo", "up", prefix=inside)
    _ip("link", "set", inner, "name", "eth0", prefix=inside)
    _ip("address", "add", f"{network.node}/{network.link.prefixlen}", "dev", "eth0", prefix=inside)
    _ip("link", "set", "eth0", "up", prefix=inside)
    _ip("route", "add", "default", "via", str(network.host), prefix=inside)
    for behind in (network.pods, network.services):
        _ip("route", "replace", str(behind), "via", str(network.node), "dev", outer)


def disconnect(name: str) -> None:
    """Remove the link, if there is one. Its routes and its other end go with it."""
    if Path("/sys/class/net", interface(name)).exists():
        try:
            _ip("link", "delete", interface(name))
        except StartError:
            # The kernel removes the link by itself, a little after the namespace's last process ended.
            if Path("/sys/class/net", interface(name)).exists():
                raise


def _ip(*arguments: str, prefix: Iterable[str] = ()) -> str:
    command = [*prefix, "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_IP_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise StartError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}",
            remedy="check that you are root and that the kernel has veth (`modprobe veth`)",
        )
    return done.stdout
