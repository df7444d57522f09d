"""What a gateway's pod gets for its pages: arguments, and the store that doctors' conversations are put in."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from bettertherapy_api.miner_pool import Store
from bettertherapy_api.validator import Gateway
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import mount
from twin_operator.kinds.podspec.sources import claim_in, claim_mounts, claim_volumes

_CREDENTIALS: Final = "store-secret"


def pages_arguments(gateway: Gateway) -> list[str]:
    """Return what is added to the gateway's command line; nothing without pages."""
    pages = gateway.pages
    if pages is None:
        return []
    return [
        f"--pages={pages.origin}",
        f"--pages-per-minute={pages.per_minute}",
        *([f"--licence-registers={','.join(pages.licence_registers)}"] if pages.licence_registers else []),
        *([f"--interactions-store={pages.store.uri}"] if pages.store is not None else []),
    ]


def pages_volumes(gateway: Gateway) -> list[Manifest]:
    """Return the store's claim and the Secret with its credentials, which follows a rotation."""
    store = _store(gateway)
    if store is None:
        return []
    claim, secret = pages_claim(gateway), store.secret_ref
    return [
        *(claim_volumes([claim], writable=claim) if claim is not None else []),
        *([{"name": _CREDENTIALS, "secret": {"secretName": secret.name, "defaultMode": 0o440}}] if secret else []),
    ]


def pages_mounts(gateway: Gateway) -> list[Manifest]:
    """Return the mounts of those volumes."""
    store = _store(gateway)
    if store is None:
        return []
    claim = pages_claim(gateway)
    return [
        *(claim_mounts([claim], [claim], writable=claim) if claim is not None else []),
        *([mount(_CREDENTIALS, names.STORE_SECRET_DIR, read_only=True)] if store.secret_ref is not None else []),
    ]


def pages_claim(gateway: Gateway) -> str | None:
    """Return the claim that doctors' conversations are put on, where one is."""
    store = _store(gateway)
    return claim_in(store.uri) if store is not None else None


def _store(gateway: Gateway) -> Store | None:
    return gateway.pages.store if gateway.pages is not None else None
