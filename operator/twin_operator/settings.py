"""Everything the operator reads from its environment and its command line."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.1.0"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images that pools use unless their spec names others."""

    neuron: str = f"bettertherapy/neuron:{VERSION}"
    engine_cpu: str = f"bettertherapy/engine-cpu:{VERSION}"
    engine_gpu: str = f"bettertherapy/engine-gpu:{VERSION}"
    trainer_cpu: str = f"bettertherapy/trainer-cpu:{VERSION}"
    trainer_gpu: str = f"bettertherapy/trainer-gpu:{VERSION}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this operator process runs. Times are in seconds."""

    identity: str
    """Holder of the Lease: the pod's name."""
    lease_namespace: str
    lease_name: str = "twin-operator"
    lease_duration: int = 10
    lease_renew_deadline: float = 6.0
    lease_retry: float = 2.0
    namespace: str | None = None
    """The one namespace to look after; None means all."""
    images: Images = Images()
    workers: int = 4
    http_port: int = 8080
    http_host: str = "0.0.0.0"  # noqa: S104  # probes and Prometheus come from outside the pod
    resync_seconds: float = 600.0
    request_seconds: float = 10.0
    log_level: str = "INFO"
    prometheus_url: str | None = None
    """Where canaries and pools' load are measured; None: canaries go by time and verification alone, pools stay."""
    prometheus_matchers: str = 'namespace="{namespace}"'
    """PromQL matchers that select a namespace's miners and engines."""
    fine_tune_window_seconds: int = 14400
    """Over how long the fine-tunes that are due at the same time are spread."""
    update_pools: int = 1
    """How many pools take a new release's images at a time."""
    update_delay_seconds: int = 60
    """How long a pool must have run with them before the next begins."""
    tenants: str | None = None
    """What tenants may name, as JSON (`domain.bounds.Bounds`); None: its own defaults, which are the chart's."""


def from_environment(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read settings; exits with a message when an argument or a number is wrong."""
    parser = argparse.ArgumentParser(
        prog="twin_operator",
        description="Operator of DoctorTwin, MinerPool, FineTuneRun, Validator and ValidatorRound.",
    )
    parser.add_argument("--namespace", default=environ.get("TWIN_NAMESPACE") or None, help="look after this one only")
    parser.add_argument("--http-port", type=int, default=environ.get("TWIN_HTTP_PORT", "8080"), help="0: any free port")
    parser.add_argument("--workers", type=int, default=environ.get("TWIN_WORKERS", "4"))
    parser.add_argument("--resync-seconds", type=float, default=environ.get("TWIN_RESYNC_SECONDS", "600"))
    parser.add_argument("--log-level", default=environ.get("TWIN_LOG_LEVEL", "INFO"))
    parser.add_argument(
        "--fine-tune-window-seconds", type=int, default=environ.get("TWIN_FINE_TUNE_WINDOW_SECONDS", "14400")
    )
    parser.add_argument("--update-pools", type=int, default=environ.get("TWIN_UPDATE_POOLS", "1"))
    parser.add_argument("--update-delay-seconds", type=int, default=environ.get("TWIN_UPDATE_DELAY_SECONDS", "60"))
    parser.add_argument("--prometheus-url", default=environ.get("TWIN_PROMETHEUS_URL") or None)
    parser.add_argument(
        "--prometheus-matchers", default=environ.get("TWIN_PROMETHEUS_MATCHERS", Settings.prometheus_matchers)
    )
    parsed = parser.parse_args(arguments)
    return Settings(
        identity=environ.get("POD_NAME") or socket.gethostname(),
        lease_namespace=environ.get("POD_NAMESPACE") or _service_account_namespace() or parsed.namespace or "default",
        lease_name=environ.get("TWIN_LEASE_NAME") or "twin-operator",
        namespace=parsed.namespace,
        images=Images(
            neuron=environ.get("TWIN_IMAGE_NEURON") or Images.neuron,
            engine_cpu=environ.get("TWIN_IMAGE_ENGINE_CPU") or Images.engine_cpu,
            engine_gpu=environ.get("TWIN_IMAGE_ENGINE_GPU") or Images.engine_gpu,
            trainer_cpu=environ.get("TWIN_IMAGE_TRAINER_CPU") or Images.trainer_cpu,
            trainer_gpu=environ.get("TWIN_IMAGE_TRAINER_GPU") or Images.trainer_gpu,
        ),
        workers=parsed.workers,
        http_port=parsed.http_port,
        resync_seconds=parsed.resync_seconds,
        log_level=parsed.log_level.upper(),
        prometheus_url=parsed.prometheus_url,
        prometheus_matchers=parsed.prometheus_matchers,
        fine_tune_window_seconds=parsed.fine_tune_window_seconds,
        update_pools=parsed.update_pools,
        update_delay_seconds=parsed.update_delay_seconds,
        tenants=environ.get("TWIN_TENANTS") or None,
    )


def _service_account_namespace() -> str | None:
    try:
        return NAMESPACE_FILE.read_text().strip() or None
    except OSError:
        return None
