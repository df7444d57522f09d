"""All the gateway's settings; the only module that reads its command line and environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from yarl import URL

from bettertherapy_api import names
from neurons.memory_limit import REQUEST_MEMORY_BYTES, cgroup_limit, limit_of, request_memory
from neurons.miner.cors import read_origins
from neurons.validator.gateway.asking import Patience
from neurons.validator.gateway.roster import ANNOUNCE_SECONDS

OWN_BYTES: Final = 1024 * 1024 * 1024
"""What a gateway takes beside requests: its code, the models that find identifiers (560 MB with both), the process that
writes the ledger, and conversations."""
PORT: Final = names.GATEWAY_PORT
METRICS_PORT: Final = names.GATEWAY_METRICS_PORT
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class OwnPod:
    """Which pod of which Validator this gateway is, by the downward API."""

    validator: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one gateway process runs. Times are in seconds."""

    wallet_dir: Path = Path("/wallet")
    """The mounted Secret with the validator's hotkey."""
    keys_file: Path
    """API keys (`keys.KeysFile`), read again when it changes."""
    twins_file: Path | None = None
    """The twins that are answered for, and their digests; None: what miners announce."""
    state_dir: Path = Path("/var/lib/bettertherapy")
    """Where the queue before the ledger lies, and the secret of session ids."""
    secret_file: Path | None = None
    """The secret of session ids, for gateways with replicas; None: one that is kept in `state_dir`."""
    ledger_url: str | None = None
    netuid: int | None = None
    chain: str | None = None
    metagraph_file: Path | None = None
    """Followed instead of the chain, to run without one."""
    private_addresses: bool = False
    """Ask miners on private networks too; on a local subnet they always are."""
    host: str | None = None
    """None listens on every address, IPv4 and IPv6."""
    port: int = PORT
    metrics_port: int = METRICS_PORT
    """Where `/metrics` is, and nothing else: not everybody who may ask a doctor is to read what goes on here."""
    patience: Patience = field(default_factory=Patience)
    keep_alive_seconds: float = 1.0
    """A stream says so often that it is alive while answers are compared."""
    announce_seconds: float = ANNOUNCE_SECONDS
    poll_seconds: float | None = None
    """Between two looks at the metagraph; None: 120 for a chain, 5 for a local subnet, 1 for a file."""
    country: str | None = None
    max_in_flight: int = 1024
    request_memory_bytes: int = REQUEST_MEMORY_BYTES
    """What requests may hold at once, all together; one client half of it."""
    drain_delay_seconds: float = 5.0
    drain_seconds: float = 60.0
    cors_origins: frozenset[str] = frozenset()
    pages_origin: str | None = None
    """By which browsers reach the pages (`neurons.validator.pages`); None: there are none."""
    pages_per_minute: int = 120
    """Questions of all pages' visitors together."""
    licence_registers: tuple[str, ...] = ()
    interactions_store: str | None = None
    """Where conversations go that a doctor brings: fine-tunes read `<store>/<twin>/interactions`."""
    deliveries: str | None = None
    """Where adapters are put that miners deliver for their tasks; None: none are taken."""
    own_pod: OwnPod | None = None
    """Whose PodReport tells the operator what is seen of the subnet; None outside a cluster."""
    log_level: str = "INFO"


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the command line; exits with a message that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.validator.gateway", description="Answer patients by the best of several miners."
    )
    add = parser.add_argument
    add("--wallet-dir", type=Path, default=Path("/wallet"), help="folder with the validator's hotkey (%(default)s)")
    add("--keys-file", type=Path, default=environ.get("KEYS_FILE"), help="API keys (env KEYS_FILE)")
    add("--twins-file", type=Path, default=environ.get("TWINS_FILE"), help="twins and digests (env TWINS_FILE)")
    add("--state-dir", type=Path, default=environ.get("STATE_DIR", "/var/lib/bettertherapy"),
        help="queue and secret (env STATE_DIR; %(default)s)")  # fmt: skip
    add("--secret-file", type=Path, default=environ.get("SESSION_SECRET_FILE"),
        help="secret of session ids, the same for all replicas (env SESSION_SECRET_FILE)")  # fmt: skip
    add("--netuid", type=int, help="the subnet")
    add("--chain", help="finney, test, or the URL of a chain endpoint or local subnet")
    add("--metagraph-file", type=Path, help="follow this file instead of the chain, to run without one")
    add("--private-addresses", action="store_true", help="ask miners on private networks too")
    add("--host", help="address to listen on; all of them by default")
    add("--port", type=int, default=PORT, help="default %(default)s; 0 takes a free one")
    add("--metrics-port", type=int, default=METRICS_PORT, help="of /metrics alone (%(default)s); 0 takes a free one")
    add("--miners-per-query", type=_count, default=3, help="miners asked side by side (%(default)s)")
    add("--deadline-seconds", type=_seconds, default=30.0, help="longest wait for miners (%(default)s)")
    add("--hedge-seconds", type=_seconds, default=2.0, help="then one more is asked for a slow one (%(default)s)")
    add("--grace-seconds", type=_seconds, default=3.0, help="wait for others after the first answer (%(default)s)")
    add("--explore-percent", type=_percent, default=10, help="questions that try the least known (%(default)s)")
    add("--country", default=environ.get("COUNTRY"), help="ISO 3166, for emergency numbers (env COUNTRY)")
    add("--max-in-flight", type=_count, default=1024, help="questions in work at once (%(default)s)")
    add("--memory-limit-bytes", type=limit_of,
        help="memory of this process and its writer; that of its control group by default")  # fmt: skip
    add("--drain-delay", type=_seconds, default=5.0, help="go on accepting after SIGTERM (%(default)s)")
    add("--drain-seconds", type=_seconds, default=60.0, help="wait for questions then (%(default)s)")
    add("--cors-origins", type=_origins, default=environ.get("CORS_ORIGINS", ""),
        help="origins whose pages may ask, with commas; * for all (env CORS_ORIGINS)")  # fmt: skip
    add("--pages", type=_pages_origin, default=environ.get("PAGES_ORIGIN"), metavar="ORIGIN",
        help="show the pages, which browsers reach as https://HOST (env PAGES_ORIGIN); none by default")  # fmt: skip
    add("--pages-per-minute", type=_count, default=120, help="questions of all visitors together (%(default)s)")
    add("--licence-registers", type=_names, default=environ.get("LICENCE_REGISTERS", ""),
        help="where doctors' licences are looked up, with commas: nppes (env LICENCE_REGISTERS)")  # fmt: skip
    add("--interactions-store", default=environ.get("INTERACTIONS_STORE"), metavar="URI",
        help="store whose TWIN/interactions doctors' conversations are put in (env INTERACTIONS_STORE)")  # fmt: skip
    add("--deliveries", default=environ.get("DELIVERIES_URI") or None, metavar="URI",
        help="folder for adapters that miners deliver for their tasks (env DELIVERIES_URI)")  # fmt: skip
    add("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    given = parser.parse_args(arguments)
    if given.keys_file is None:
        parser.error("--keys-file (or KEYS_FILE) must name the file of API keys; make keys by python -m "
                     "neurons.validator.gateway.keys NAME")  # fmt: skip
    if given.metagraph_file is None and (given.chain is None or given.netuid is None):
        parser.error("name the subnet by --chain and --netuid, or --metagraph-file to run without a chain")
    return Settings(
        wallet_dir=given.wallet_dir,
        keys_file=given.keys_file,
        twins_file=given.twins_file,
        state_dir=given.state_dir,
        secret_file=given.secret_file,
        ledger_url=environ.get("LEDGER_URL") or None,  # it may hold a password: not on a command line
        netuid=given.netuid,
        chain=given.chain,
        metagraph_file=given.metagraph_file,
        private_addresses=given.private_addresses,
        host=given.host,
        port=given.port,
        metrics_port=given.metrics_port,
        patience=Patience(
            miners=given.miners_per_query,
            deadline=given.deadline_seconds,
            hedge=given.hedge_seconds,
            grace=given.grace_seconds,
            explore=given.explore_percent / 100,
            most_attempts=3 * given.miners_per_query,
        ),
        country=given.country,
        max_in_flight=given.max_in_flight,
        request_memory_bytes=request_memory(given.memory_limit_bytes or cgroup_limit(), beside=OWN_BYTES),
        drain_delay_seconds=given.drain_delay,
        drain_seconds=given.drain_seconds,
        cors_origins=given.cors_origins,
        pages_origin=given.pages,
        pages_per_minute=given.pages_per_minute,
        licence_registers=given.licence_registers,
        interactions_store=given.interactions_store,
        deliveries=given.deliveries,
        own_pod=_own_pod(environ),
        log_level=given.log_level,
    )


def _own_pod(environ: Mapping[str, str]) -> OwnPod | None:
    """Return which pod this is; None unless all of it is told, as the operator does."""
    validator, namespace, name, uid = (
        environ.get(f"POD_{each}", "") for each in ("VALIDATOR", "NAMESPACE", "NAME", "UID")
    )
    if not (validator and namespace and name and uid):
        return None
    return OwnPod(validator=validator, namespace=namespace, name=name, uid=uid)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no time between 0 and a day, in seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def _percent(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no percentage from 0 to 100")
    return value


def _origins(text: str) -> frozenset[str]:
    try:
        return read_origins(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _pages_origin(text: str) -> str:
    """Return the origin as browsers send it. Without TLS only this machine's own: a cookie must not travel in clear."""
    origins = _origins(text)
    origin = next(iter(origins)) if len(origins) == 1 else ""
    url = URL(origin) if origin not in ("", "*") else None
    if url is None or url.host is None or url.scheme not in ("http", "https"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no origin of pages: write https://HOST, with :PORT if it has one"
        )
    if url.scheme == "http" and url.host not in _LOOPBACK:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no TLS, and cookies would travel in clear: write https://HOST, and let a proxy before the "
            "gateway speak TLS"
        )
    return origin
