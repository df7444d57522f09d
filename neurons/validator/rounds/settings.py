"""All settings of a round's processes; the only module that reads their command line and environment."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bettertherapy_api.round_progress import ORDER_DIR, ORDER_KEY


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one process runs. Times are in seconds."""

    command: str
    """`run`, `weights` or `recompute`."""
    order: Path
    ledger_url: str
    token: str = ""
    wallet_dir: Path = Path("/etc/bettertherapy/wallet")
    twins_file: Path | None = None
    prometheus_url: str | None = None
    judge_key: str | None = None
    corpora: tuple[Path, ...] = ()
    """Corpora on disk; a source named `local` is the first of them."""
    pubmed_email: str = ""
    private_addresses: bool = False
    answer_seconds: float = 30.0
    """The longest that one answer may take, as at the gateway."""
    ask_share: float = 0.5
    """Of the round's time, over so much the questions are spread."""
    attempt: str = ""
    """The pod's UID."""
    namespace: str | None = None
    configmap: str | None = None


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the command line; exits with a message that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.validator.rounds", description="Examine a subnet's miners, and set their weights."
    )
    parser.add_argument("command", choices=("run", "weights", "recompute"))
    add = parser.add_argument
    add("--order", type=Path, default=Path(ORDER_DIR) / ORDER_KEY, help="what the round is (%(default)s)")
    add("--token", default="", help="for which demand a round is recomputed")
    add(
        "--wallet-dir",
        type=Path,
        default=Path("/etc/bettertherapy/wallet"),
        help="the validator's hotkey (%(default)s)",
    )
    add("--twins-file", type=Path, default=environ.get("TWINS_FILE", "/etc/bettertherapy/twins/twins.json"),
        help="twins and digests (env TWINS_FILE; %(default)s)")  # fmt: skip
    add(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        help="a corpus on disk; FILE.digest beside it has its digest",
    )
    add("--private-addresses", action="store_true", help="ask miners on private networks too")
    add("--answer-seconds", type=float, default=30.0, help="longest wait for one answer (%(default)s)")
    add(
        "--ask-share",
        type=float,
        default=0.5,
        help="share of the round's time that asking is spread over (%(default)s)",
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.ask_share <= 0.9 or not 0 < given.answer_seconds <= 600:
        parser.error("--ask-share is from 0 to 0.9, --answer-seconds above 0 and at most 600")
    if not environ.get("LEDGER_URL"):
        parser.error("LEDGER_URL must name the ledger: postgresql://… or sqlite:////path/to/file")
    return Settings(
        command=given.command,
        order=given.order,
        ledger_url=environ["LEDGER_URL"],  # it may hold a password: not on a command line
        token=given.token,
        wallet_dir=given.wallet_dir,
        twins_file=given.twins_file if given.twins_file.exists() else None,
        prometheus_url=environ.get("PROMETHEUS_URL") or None,
        judge_key=environ.get("JUDGE_API_KEY") or None,
        corpora=tuple(given.corpus),
        pubmed_email=environ.get("PUBMED_EMAIL", ""),
        private_addresses=given.private_addresses,
        answer_seconds=given.answer_seconds,
        ask_share=given.ask_share,
        attempt=environ.get("POD_UID") or secrets.token_hex(16),
        namespace=environ.get("POD_NAMESPACE") or None,
        configmap=environ.get("PROGRESS_CONFIGMAP") or None,
    )
