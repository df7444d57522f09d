"""Secret P-access."""

from __future__ import annotations

import base64

from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.access_secret import (
    access_secret_name,
    build_access_secret,
    build_pool_tokens,
    build_probe,
)


def test_it_holds_one_clients_token() -> None:
    secret = build_access_secret(pool(), token="t" * 43)
    assert secret is not None
    assert secret["metadata"]["name"] == "p-access"
    assert {key: base64.b64decode(value) for key, value in secret["data"].items()} == {"default": b"t" * 43}


def test_none_is_made_where_the_pool_names_one() -> None:
    named = pool(miner={"accessSecretRef": {"name": "mine"}})
    assert build_access_secret(named, token="t") is None
    assert build_probe(named, access_secret_name(named))["metadata"] == {"name": "mine", "namespace": "clinic"}


def test_a_probe_has_no_token() -> None:
    assert build_probe(pool(), "p-access").keys() == {"apiVersion", "kind", "metadata"}


def test_miners_and_agents_have_a_secret_of_their_own() -> None:
    """Whoever may ask a miner isn't let in by its agents."""
    made = build_pool_tokens(pool(accessSecretRef={"name": "mine"}), token="x" * 43)
    assert made["metadata"]["name"] == "p-pool-tokens"
    assert made["type"] == "Opaque"
    assert len(made["data"]) == 1
