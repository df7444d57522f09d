"""All that an agent is told from outside; the only module here that reads the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bettertherapy_api import names

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""Twice what a miner takes of a client: it adds the doctor's rules, lessons, and what a broken stream said already."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this agent runs. Durations are seconds."""

    pool: str
    namespace: str
    pod_name: str
    pod_uid: str
    host: str | None = None
    """Address to listen on; None means all, IPv4 and IPv6."""
    port: int = names.AGENT_PORT
    metrics_port: int = names.METRICS_PORT
    """Where `/metrics` is, and nothing else."""
    socket: Path = Path(names.ENGINE_SOCKET)
    endpoint: str | None = None
    """URL of an OpenAI-compatible server that runs already; then `socket` and the run folder are not used."""
    endpoint_key_file: Path | None = None
    run_dir: Path = Path(names.ENGINE_RUN_DIR)
    adapters_dir: Path = Path(names.ADAPTERS_DIR)
    adapters_bytes: int | None = None
    """What all adapters together may take of the disk; None means what the disk has."""
    pvc_dir: Path = Path(names.PVC_DIR)
    base_model_dir: Path | None = None
    """The base model's folder, or one that holds the headers of its files; None where neither is in this pod."""
    wedge_seconds: float = 60.0
    """Requests run and nothing moves for this long: the engine is wedged."""
    drain_seconds: float = 120.0
    linger_seconds: float = 2.0
    """An adapter stays this long after it left the routing, for miners that still have the old one."""
    settle_seconds: float = 60.0
    """How long an unreachable store may keep the pod un-Ready once another adapter is verified."""
    load_seconds: float = 60.0
    demand_seconds: float = 20.0
    """How long a request waits for an adapter that is loaded because of it."""
    poll_seconds: float = 5.0
    """Longest wait for an answer to one poll of the engine."""
    request_seconds: float = 600.0
    """Longest silence within one proxied request."""
    tokens_dir: Path = Path(names.POOL_TOKENS_DIR)
    """Tokens by which the pool's miners are known."""
    store_uri: str | None = None
    """Root of the pool's adapter store, where twins without an adapter have their lessons, too."""
    lessons_seconds: float = 15.0
    """Between two looks at a twin's lessons."""
    fetches: int = 4
    loads: int = 4
    """Adapters fetched, and loaded, at the same time."""
    max_body_bytes: int = MAX_BODY_BYTES
    max_in_flight: int = 1024
    """Requests at once; beyond it, an eighth for twins below their fair share, and an eighth divided among all."""
    lora_targets: str = ""
    """Attention: the engine wraps attention's projections alone, and adapters that change others are refused."""
    max_lora_rank: int | None = None
    """What the engine was started for, where the operator restarts it for a higher rank."""
    follows_adapters: bool = False
    """The operator restarts the engine for adapters that change more than attention."""
    images: bool = False
    """Messages may hold images, as data URLs: the pool allows them."""
    retry_first: float = 0.2
    retry_most: float = 30.0
    log_level: str = "INFO"

    @property
    def wedged_file(self) -> Path:
        """Its existence fails the engine container's liveness probe."""
        return self.run_dir / Path(names.ENGINE_WEDGED_FILE).name

    @property
    def drain_file(self) -> Path:
        """Made by the engine container's preStop hook."""
        return self.run_dir / Path(names.ENGINE_DRAIN_FILE).name

    @property
    def drained_file(self) -> Path:
        """What the preStop hook waits for."""
        return self.run_dir / Path(names.ENGINE_DRAINED_FILE).name

    @property
    def routing_file(self) -> Path:
        """Where the last routing is kept for a restart without an API server."""
        return self.adapters_dir / ".routing.json"

    def adapter_path(self, twin: str, digest: str) -> Path:
        """Return the folder of an adapter; it is also vLLM's `root` for it."""
        return self.adapters_dir / Path(names.adapter_path(twin, digest)).relative_to(names.ADAPTERS_DIR)


def parse_settings(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read arguments, each with an environment variable as its default; exits with a usage line when one is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.agent",
        description="Stand before one engine: let questions in, fetch, load and prove adapters.",
    )

    def option(flag: str, variable: str, default: str | None, text: str) -> None:
        value = environ.get(variable, default)
        parser.add_argument(flag, default=value, required=value is None, help=f"{text} [{variable}]")

    option("--pool", "POOL", None, "name of the MinerPool")
    option("--namespace", "POD_NAMESPACE", None, "namespace of the pool")
    option("--pod-name", "POD_NAME", None, "metadata.name by the downward API")
    option("--pod-uid", "POD_UID", None, "metadata.uid by the downward API")
    option("--host", "AGENT_HOST", "", "address to listen on; all of them by default")
    option(
        "--port",
        "AGENT_PORT",
        str(names.AGENT_PORT),
        "where miners ask; the pod's only other port is that of its metrics",
    )
    option("--metrics-port", "AGENT_METRICS_PORT", str(names.METRICS_PORT), "of /metrics; 0 takes a free one")
    option("--socket", "ENGINE_SOCKET", names.ENGINE_SOCKET, "vLLM's Unix socket")
    option("--endpoint", "ENGINE_ENDPOINT", "", "URL of an OpenAI-compatible server to use instead of the socket")
    option("--endpoint-key-file", "ENGINE_ENDPOINT_KEY_FILE", "", "file with that server's API key")
    option("--run-dir", "ENGINE_RUN_DIR", names.ENGINE_RUN_DIR, "folder of the wedged, drain and drained files")
    option("--adapters-dir", "ADAPTERS_DIR", names.ADAPTERS_DIR, "folder that vLLM loads adapters from")
    option("--adapters-bytes", "POD_ADAPTERS_BYTES", "", "most that the adapters take; what the disk has by default")
    option("--pvc-dir", "PVC_DIR", names.PVC_DIR, "folder below which claims are mounted")
    option("--base-model-dir", "BASE_MODEL_DIR", "", "the base model's folder, or the headers of its files")
    option("--tokens-dir", "POOL_TOKENS_DIR", names.POOL_TOKENS_DIR, "folder with the tokens of the pool's miners")
    option("--store-uri", "STORE_URI", "", "root of the pool's adapter store")
    option("--lora-targets", "ENGINE_LORA_TARGETS", "", "Attention: what the engine wraps; all it can by default")
    option("--max-lora-rank", "ENGINE_MAX_LORA_RANK", "", "rank that the engine was started for; the pool's by default")
    option("--follows-adapters", "ENGINE_FOLLOWS_ADAPTERS", "", "true: it is restarted for adapters that change more")
    option("--wedge-seconds", "WEDGE_SECONDS", "60", "no progress with requests in flight for this long is a wedge")
    option("--drain-seconds", "DRAIN_SECONDS", "120", "longest wait for running requests when the pod stops")
    option("--max-body-bytes", "MAX_BODY_BYTES", str(MAX_BODY_BYTES), "largest request body")
    option("--images", "IMAGES", "", "true: let images in messages through, as data URLs")
    option("--log-level", "LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR")
    args = parser.parse_args(argv)
    return Settings(
        pool=args.pool,
        namespace=args.namespace,
        pod_name=args.pod_name,
        pod_uid=args.pod_uid,
        host=args.host or None,
        port=int(args.port),
        metrics_port=int(args.metrics_port),
        socket=Path(args.socket),
        endpoint=args.endpoint.rstrip("/").removesuffix("/v1") or None,
        endpoint_key_file=Path(args.endpoint_key_file) if args.endpoint_key_file else None,
        run_dir=Path(args.run_dir),
        adapters_dir=Path(args.adapters_dir),
        adapters_bytes=int(args.adapters_bytes) if args.adapters_bytes else None,
        pvc_dir=Path(args.pvc_dir),
        base_model_dir=Path(args.base_model_dir) if args.base_model_dir else None,
        tokens_dir=Path(args.tokens_dir),
        store_uri=args.store_uri or None,
        wedge_seconds=float(args.wedge_seconds),
        drain_seconds=float(args.drain_seconds),
        max_body_bytes=int(args.max_body_bytes),
        lora_targets=args.lora_targets,
        max_lora_rank=int(args.max_lora_rank) if args.max_lora_rank else None,
        follows_adapters=args.follows_adapters.lower() in ("1", "true"),
        images=args.images.lower() in ("1", "true"),
        log_level=args.log_level,
    )
