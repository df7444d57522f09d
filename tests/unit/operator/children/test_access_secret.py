"""Secret P-access."""

from __future__ import annotations

import base64

from tests.unit.operator.samples import pool
from twin_operator.kinds.miner_pool.access_secret import build_access_probe, build_access_secret


def test_it_holds_one_clients_token() -> None:
    secret = build_access_secret(pool(), token="t" * 43)
    assert secret is not None
    assert secret["metadata"]["name"] == "p-access"
    assert {key: base64.b64decode(value) for key, value in secret["data"].items()} == {"default": b"t" * 43}


def test_none_is_made_where_the_pool_names_one() -> None:
    named = pool(miner={"accessSecretRef": {"name": "mine"}})
    assert build_access_secret(named, token="t") is None
    assert build_access_probe(named)["metadata"] == {"name": "mine", "namespace": "clinic"}


def test_a_probe_has_no_token() -> None:
    assert build_access_probe(pool()).keys() == {"apiVersion", "kind", "metadata"}
