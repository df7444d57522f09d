"""All the miner's settings; the only module that reads its command line and environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from neurons.candidates import ScorerSettingError, Weighted, read_scorers
from neurons.lessons.likeness import FLOOR
from neurons.memory_limit import REQUEST_MEMORY_BYTES, cgroup_limit, limit_of, request_memory
from neurons.miner import cors
from neurons.miner.limits import Limits

MAX_BODY_BYTES: Final = 1024 * 1024
OWN_BYTES: Final = 160 * MAX_BODY_BYTES
"""What a miner takes beside requests: its code, tables and embedding model, and what Python doesn't give back."""
SERVICE_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


MAX_CANDIDATES: Final = 16
DEFAULT_SCORERS: Final = "agreement:2,likelihood,support:2"
MAX_CACHE_BYTES: Final = 128 * 1024 * 1024
"""Half of a miner's memory limit."""
LESSONS: Final = ("approved", "all", "off")
TOKEN_DOOR: Final = "token"  # noqa: S105 - a door's name
SIGNED_DOOR: Final = "signed"


@dataclass(frozen=True, kw_only=True)
class SubnetSettings:
    """What a miner with a wallet is told more. Times are in seconds."""

    wallet_dir: Path
    """The mounted Secret with the hotkey."""
    netuid: int | None = None
    chain: str | None = None
    """local, finney, test or the URL of a chain endpoint."""
    external_address: str | None = None
    """host:port that is published on the chain."""
    metagraph_file: Path | None = None
    """Followed instead of the chain, to run without one."""
    replicas: int = 1
    """Miner pods of this pool."""
    nonce_store: str | None = None
    """URL of a Redis-protocol server in which replicas share the nonces that they accepted."""
    min_stake: float = 0.0
    """Alpha that a caller must have at stake, beside a validator permit."""
    caller_rate: float = 50.0
    """Requests a second of one hotkey, at each replica."""
    caller_burst: int = 100
    tasks: bool = False
    """Whether validators' fine-tune tasks are taken."""
    pod_name: str | None = None
    """Whose report says where this miner stands on its subnet; None without a pod, where nobody is told."""
    pod_uid: str | None = None
    max_age_seconds: float = 10.0
    """A signed request may be so old."""
    skew_seconds: float = 2.0
    """A caller's clock may be so far ahead."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one miner process runs. Times are in seconds."""

    pool: str
    namespace: str
    host: str | None = None
    """None listens on every address, IPv4 and IPv6."""
    port: int = names.MINER_PORT
    metrics_port: int = names.METRICS_PORT
    """Where `/metrics` is, and nothing else."""
    access_dir: Path = Path(names.ACCESS_DIR)
    tokens_dir: Path = Path(names.POOL_TOKENS_DIR)
    """Tokens by which the pool's agents know this miner."""
    access_secret: str
    """Named in the 401 that a client gets while no token exists."""
    tables_dir: Path | None = None
    """A folder with slices/<name>.json and reports/<pod>.json to follow instead of the API server."""
    hold_seconds: float = 30.0
    """How long a request waits for a pod (a rollout, a scale-up from zero) before it is answered 503."""
    wakes: bool = False
    """Whether the operator is told that requests wait while no engine pod is ready: the pool may sleep."""
    pod: tuple[str, str] | None = None
    """Name and UID of this miner's pod, whose report that is; None without a pod, where nobody is told."""
    request_seconds: float = 600.0
    """Longest life of one request, from its headers to the last byte of its answer."""
    connect_seconds: float = 2.0
    drain_delay_seconds: float = 5.0
    """After SIGTERM the miner accepts new requests this long: endpoints are removed from Services asynchronously."""
    drain_seconds: float = 60.0
    """Longest wait for requests in flight once the miner has stopped listening."""
    max_held: int = 1024
    """Requests that wait for a pod, or for a place at one, at once; beyond it, an eighth for twins below their fair
    share, and an eighth divided among all."""
    turn_seconds: float = 30.0
    """How long a request waits for a place at an engine that is there and full, before it is answered 429."""
    twin_weights: Mapping[str, float] = field(default_factory=dict)
    """Shares of a full engine's places by twin; 1 for who isn't named."""
    max_in_flight: int = 4096
    """Requests at once, waiting ones included; beyond it as many as with `max_held`."""
    max_connections: int = 4096
    """Of clients, idle ones included."""
    request_memory_bytes: int = REQUEST_MEMORY_BYTES
    """What requests may hold at once, all together (`memory`)."""
    client_memory_percent: int = 50
    """Of that, at most so much for one client."""
    client_requests: int = 1024
    """Requests of one client at once."""
    cors_origins: frozenset[str] = frozenset()
    """Origins whose pages may call the miner from a browser; `*` allows all."""
    limits: Limits = field(default_factory=Limits)
    """What one request may ask for."""
    lessons: str = "approved"
    """Which lessons of a twin stand in its prompts: what its doctor approved, also what was merely liked, or none."""
    lesson_floor: float = FLOOR
    """How alike two questions must be, as the cosine of their embeddings."""
    lessons_seconds: float = 5.0
    """Between two looks at what the agents have of them."""
    history: bool = True
    """Shorten conversations that the pool's context doesn't hold; otherwise the engine refuses them."""
    doors: frozenset[str] = frozenset({TOKEN_DOOR, SIGNED_DOOR})
    """Which doors are open; the signed one only with a wallet."""
    subnet: SubnetSettings | None = None
    """None without a wallet."""
    candidates: int = 1
    """Answers drawn per question where the client leaves it to the miner; 1 compares nothing."""
    latency_budget_seconds: float = 30.0
    """From a request's arrival: what is complete by then is compared. 0 compares nothing."""
    patience: float = 1.5
    """Once half of the candidates are complete, the rest may take this multiple of their time."""
    keep_alive_seconds: float = 5.0
    scorers: tuple[Weighted, ...] = ()
    """What compares candidates."""
    cache_bytes: int = 0
    """Most memory for answers that may be given again; 0 keeps none."""
    cache_seconds: float = 300.0
    log_level: str = "INFO"


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the command line; exits with a message that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m neurons.miner", description="Serve one MinerPool's twins.")
    parser.add_argument("--pool", default=environ.get("POOL"), help="name of the MinerPool (env POOL)")
    parser.add_argument(
        "--namespace",
        default=environ.get("POD_NAMESPACE"),
        help="its namespace (env POD_NAMESPACE; default: the pod's own)",
    )
    parser.add_argument("--host", default=None, help="address to listen on; all of them by default")
    parser.add_argument("--port", type=int, default=names.MINER_PORT, help="default %(default)s; 0 takes a free one")
    parser.add_argument(
        "--metrics-port", type=int, default=names.METRICS_PORT, help="of /metrics; default %(default)s; 0: a free one"
    )
    parser.add_argument("--access-dir", type=Path, default=Path(names.ACCESS_DIR), help="folder with a file per client")
    parser.add_argument(
        "--tokens-dir", type=Path, default=Path(names.POOL_TOKENS_DIR), help="folder with the pool's own tokens"
    )
    parser.add_argument("--access-secret", help="name of the Secret mounted there; default <pool>-access")
    parser.add_argument("--tables-dir", type=Path, help="follow files instead of the API server, to run without it")
    parser.add_argument("--hold-seconds", type=_seconds, default=30.0, help="longest wait for a pod (%(default)s)")
    parser.add_argument(
        "--wakes", action="store_true", help="tell the operator of requests that no engine is there for"
    )
    parser.add_argument("--request-seconds", type=_seconds, default=600.0, help="longest request (%(default)s)")
    parser.add_argument("--drain-delay", type=_seconds, default=5.0, help="go on accepting after SIGTERM (%(default)s)")
    parser.add_argument("--drain-seconds", type=_seconds, default=60.0, help="wait for requests then (%(default)s)")
    parser.add_argument("--max-held", type=int, default=1024, help="requests that may wait for a pod (%(default)s)")
    parser.add_argument(
        "--turn-seconds", type=_seconds, default=30.0, help="longest wait for a place at a full engine (%(default)s)"
    )
    parser.add_argument(
        "--twin-weights", type=_weights, default=environ.get("TWIN_WEIGHTS", ""), metavar="TWIN=WEIGHT,...",
        help="shares of a full engine's places, 1 for twins that aren't named (env TWIN_WEIGHTS)",
    )  # fmt: skip
    parser.add_argument("--max-in-flight", type=int, default=4096, help="requests in all (%(default)s)")
    parser.add_argument(
        "--memory-limit-bytes", type=limit_of, help="memory of this process; that of its control group by default"
    )
    parser.add_argument(
        "--client-memory-percent", type=_percent, default=50,
        help="of what requests may hold, at most so much for one client (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--client-requests", type=_count, default=1024, help="of one client at once (%(default)s)")
    parser.add_argument(
        "--cors-origins",
        default=environ.get("CORS_ORIGINS", ""),
        type=_origins,
        help="origins, with commas between, whose pages may call the miner; * for all (env CORS_ORIGINS)",
    )
    _add_limits(parser, environ)
    _add_candidates(parser, environ)
    parser.add_argument(
        "--lessons",
        choices=LESSONS,
        default=environ.get("LESSONS", "approved"),
        help="corrections and liked answers in prompts: what the doctor approved, all, or off (env LESSONS)",
    )
    parser.add_argument(
        "--lesson-floor",
        type=_cosine,
        default=environ.get("LESSON_FLOOR", str(FLOOR)),
        help="how alike a lesson's question must be (env LESSON_FLOOR; %(default)s)",
    )
    parser.add_argument(
        "--whole-history",
        action="store_true",
        default=environ.get("WHOLE_HISTORY", "").lower() in ("1", "true"),
        help="leave conversations that are too long to the engine, which refuses them (env WHOLE_HISTORY)",
    )
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    _add_subnet(parser, environ)
    given = parser.parse_args(arguments)
    if not given.pool:
        parser.error("--pool (or POOL) must name the MinerPool to serve")
    doors = frozenset(door.strip() for door in given.doors.split(","))
    if not doors or not doors <= {TOKEN_DOOR, SIGNED_DOOR}:
        parser.error(f"--doors must be {TOKEN_DOOR}, {SIGNED_DOOR}, or both with a comma between")
    if given.lessons not in LESSONS:  # argparse does not look at defaults
        parser.error(f"--lessons (or LESSONS) must be one of {', '.join(LESSONS)}")
    if doors == {SIGNED_DOOR} and given.wallet_dir is None:
        parser.error(f"--doors={SIGNED_DOOR} needs --wallet-dir: without a hotkey nobody can sign for this miner")
    return Settings(
        pool=given.pool,
        namespace=given.namespace or _own_namespace() or "default",
        host=given.host,
        port=given.port,
        metrics_port=given.metrics_port,
        access_dir=given.access_dir,
        tokens_dir=given.tokens_dir,
        access_secret=given.access_secret or names.access_secret_name(given.pool),
        tables_dir=given.tables_dir,
        hold_seconds=given.hold_seconds,
        wakes=given.wakes,
        pod=(given.pod_name, given.pod_uid) if given.pod_name and given.pod_uid else None,
        request_seconds=given.request_seconds,
        drain_delay_seconds=given.drain_delay,
        drain_seconds=given.drain_seconds,
        max_held=given.max_held,
        turn_seconds=given.turn_seconds,
        twin_weights=given.twin_weights,
        max_in_flight=given.max_in_flight,
        request_memory_bytes=request_memory(
            given.memory_limit_bytes or cgroup_limit(), beside=OWN_BYTES + given.answer_cache_bytes
        ),
        client_memory_percent=given.client_memory_percent,
        client_requests=given.client_requests,
        cors_origins=given.cors_origins,
        limits=_limits(given),
        lessons=given.lessons,
        lesson_floor=given.lesson_floor,
        history=not given.whole_history,
        doors=doors,
        subnet=_subnet(given),
        candidates=given.candidates,
        latency_budget_seconds=given.latency_budget_seconds,
        patience=given.candidate_patience,
        scorers=given.candidate_scorers,
        cache_bytes=given.answer_cache_bytes,
        cache_seconds=given.answer_cache_seconds,
        log_level=given.log_level,
    )


def _add_limits(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    own = parser.add_argument_group("what one request may ask for")

    def switch(flag: str, variable: str, text: str) -> None:
        default = environ.get(variable, "").lower() in ("1", "true")
        own.add_argument(flag, action="store_true", default=default, help=f"{text} (env {variable})")

    switch("--images", "IMAGES", "take images as data URLs, where the base model sees them")
    switch("--patterns", "PATTERNS", "take regular expressions and grammars that answers must follow")
    switch("--ignore-eos", "IGNORE_EOS", "let answers go on after their end")
    standard = Limits()
    own.add_argument(
        "--max-messages", type=_count, default=standard.messages, help="messages, parts and calls (%(default)s)"
    )
    own.add_argument("--max-answers", type=_count, default=standard.answers, help="answers to one (%(default)s)")
    own.add_argument("--max-tokens", type=_count, help="tokens of an answer; as many as the engine takes by default")


def _limits(given: argparse.Namespace) -> Limits:
    return Limits(
        images=given.images,
        messages=given.max_messages,
        answers=given.max_answers,
        tokens=given.max_tokens,
        patterns=given.patterns,
        ignore_eos=given.ignore_eos,
    )


def _add_candidates(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    own = parser.add_argument_group("comparing and keeping answers")
    own.add_argument(
        "--candidates",
        type=_candidates,
        default=1,
        help="answers drawn per question, of which the best is given (%(default)s: none are compared)",
    )
    own.add_argument(
        "--latency-budget-seconds",
        type=_seconds,
        default=30.0,
        help="compare what is complete so long after a request came (%(default)s; 0 compares nothing)",
    )
    own.add_argument(
        "--candidate-scorers",
        type=_scorers,
        default=environ.get("CANDIDATE_SCORERS", DEFAULT_SCORERS),
        help="NAME or NAME:WEIGHT with commas between: agreement, likelihood, support, or a plug-in's name"
        " (env CANDIDATE_SCORERS; %(default)s)",
    )
    own.add_argument(
        "--candidate-patience",
        type=_patience,
        default=environ.get("CANDIDATE_PATIENCE", "1.5"),
        help="once half of the candidates are complete, wait at most this multiple of their time for the others"
        " (env CANDIDATE_PATIENCE; %(default)s)",
    )
    own.add_argument(
        "--answer-cache-bytes",
        type=_bytes,
        default=environ.get("ANSWER_CACHE_BYTES", "0"),
        help="memory for answers to questions of one turn, given again to the same question; 0 keeps none"
        " (env ANSWER_CACHE_BYTES; %(default)s)",
    )
    own.add_argument(
        "--answer-cache-seconds",
        type=_seconds,
        default=environ.get("ANSWER_CACHE_SECONDS", "300"),
        help="how long one is given again (env ANSWER_CACHE_SECONDS; %(default)s)",
    )


def _add_subnet(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    own = parser.add_argument_group("on a subnet", "All but --doors count with --wallet-dir only.")
    own.add_argument("--wallet-dir", type=Path, help="folder with the hotkey that signs answers, never a coldkey")
    own.add_argument("--netuid", type=_netuid, help="the subnet")
    own.add_argument("--chain", help="local, finney, test or the URL of a chain endpoint")
    own.add_argument("--external-address", metavar="HOST:PORT", help="what is published on the chain")
    own.add_argument("--metagraph-file", type=Path, help="follow this file instead of the chain, to run without one")
    own.add_argument("--replicas", type=_count, default=1, help="miners that share the hotkey (%(default)s)")
    own.add_argument(
        "--doors",
        default=environ.get("DOORS", f"{TOKEN_DOOR},{SIGNED_DOOR}"),
        help="who may ask: token, signed or both (env DOORS; %(default)s)",
    )
    own.add_argument(
        "--min-stake",
        type=_amount,
        default=environ.get("MIN_VALIDATOR_STAKE", "0"),
        help="alpha that callers must have at stake (env MIN_VALIDATOR_STAKE; %(default)s)",
    )
    own.add_argument(
        "--caller-rate",
        type=_rate,
        default=environ.get("CALLER_RATE", "50"),
        help="requests a second of one hotkey (env CALLER_RATE; %(default)s)",
    )
    own.add_argument(
        "--caller-burst",
        type=_count,
        default=environ.get("CALLER_BURST", "100"),
        help="and at once (env CALLER_BURST; %(default)s)",
    )
    own.add_argument("--tasks", action="store_true", help="take validators' fine-tune tasks, as the operator decides")
    # No flag: its password would stand in the list of processes.
    own.set_defaults(nonce_store=environ.get("NONCE_STORE_URL") or None)
    own.set_defaults(pod_name=environ.get("POD_NAME") or None, pod_uid=environ.get("POD_UID") or None)


def _subnet(given: argparse.Namespace) -> SubnetSettings | None:
    if given.wallet_dir is None:
        return None
    return SubnetSettings(
        wallet_dir=given.wallet_dir,
        netuid=given.netuid,
        chain=given.chain,
        external_address=given.external_address,
        metagraph_file=given.metagraph_file,
        replicas=given.replicas,
        nonce_store=given.nonce_store,
        min_stake=given.min_stake,
        caller_rate=given.caller_rate,
        caller_burst=given.caller_burst,
        tasks=given.tasks,
        pod_name=given.pod_name,
        pod_uid=given.pod_uid,
    )


def _percent(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1e12")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1000000")
    return value


def _netuid(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000000")
    return value


def _candidates(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_CANDIDATES:
        raise argparse.ArgumentTypeError(f"{text} candidates: it must be 1 (compare none) to {MAX_CANDIDATES}")
    return value


def _patience(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 (wait for half of them) and 100")
    return value


def _bytes(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_CACHE_BYTES:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 (keep none) and {MAX_CACHE_BYTES} bytes")
    return value


def _scorers(text: str) -> tuple[Weighted, ...]:
    try:
        return read_scorers(text)
    except ScorerSettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return value


def _weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        twin, equals, given = part.partition("=")
        try:
            weight = float(given)
        except ValueError:
            weight = 0.0
        if not twin.strip() or not equals or not 0.01 <= weight <= 100:
            raise argparse.ArgumentTypeError(f"{part!r} is not TWIN=WEIGHT with a weight between 0.01 and 100")
        weights[twin.strip()] = weight
    return weights


def _cosine(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _origins(text: str) -> frozenset[str]:
    try:
        return cors.read_origins(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _own_namespace() -> str | None:
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return None
