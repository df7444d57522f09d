"""ServiceAccounts P-engine and P-miner: the identities of the pool's pods at the API server."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import SERVICE_ACCOUNT, Manifest
from twin_operator.kinds.podspec.parts import labels


def build_engine_service_account(pool: Pool) -> Manifest:
    """Return the engine pods' account."""
    return _account(pool, names.engine_name(pool.name), "engine")


def build_miner_service_account(pool: Pool) -> Manifest:
    """Return the miner pods' account."""
    return _account(pool, names.miner_name(pool.name), "miner")


def _account(pool: Pool, name: str, component: str) -> Manifest:
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": {"name": name, "labels": labels(pool, component)},
        "automountServiceAccountToken": False,  # a pod that needs the token mounts it itself
    }
