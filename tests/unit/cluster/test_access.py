"""Finding the API server and proving who we are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from neurons.cluster import Backoff, ClusterAccessError, KubeconfigAccess, ServiceAccountAccess
from neurons.cluster.access import access_from_environment
from neurons.cluster.client import ClusterError
from neurons.cluster.object_watch import _event

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    access = ServiceAccountAccess(directory=tmp_path, environ=IN_POD)
    assert access.headers() == {"Authorization": "Bearer old"}
    token.write_text("new\n")
    os.utime(token, (1, 1))
    assert access.headers() == {"Authorization": "Bearer new"}


def test_a_token_that_is_gone_for_a_moment_is_remembered(tmp_path: Path) -> None:
    """kubelet swaps a symlink; between two looks the file may not be there."""
    token = tmp_path / "token"
    token.write_text("old")
    access = ServiceAccountAccess(directory=tmp_path, environ=IN_POD)
    access.headers()
    token.unlink()
    assert access.headers() == {"Authorization": "Bearer old"}


def test_a_pod_without_a_token_says_what_is_missing(tmp_path: Path) -> None:
    access = ServiceAccountAccess(directory=tmp_path, environ=IN_POD)
    with pytest.raises(ClusterAccessError, match="mount the pod's token"):
        access.headers()


def test_an_ipv6_api_server_stands_in_brackets(tmp_path: Path) -> None:
    access = ServiceAccountAccess(directory=tmp_path, environ={"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert access.server == "https://[fd00::1]:443"


def test_outside_a_pod_it_asks_for_a_kubeconfig() -> None:
    with pytest.raises(ClusterAccessError, match="set KUBECONFIG"):
        access_from_environment({})


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    path = tmp_path / "config"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://host:6443/"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(config))
    access = KubeconfigAccess(path)
    assert access.server == "https://host:6443"
    assert access.headers() == {"Authorization": "Bearer t"}


def test_a_broken_kubeconfig_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("contexts: []\n")
    with pytest.raises(ClusterAccessError, match="config"):
        KubeconfigAccess(path)


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    backoff = Backoff(first=0.2, most=10.0)
    pauses = [backoff.next() for _ in range(12)]
    assert 0.1 <= pauses[0] <= 0.2
    assert all(5.0 <= pause <= 10.0 for pause in pauses[-3:])
    backoff.reset()
    assert backoff.next() <= 0.2


def test_an_error_within_a_watch_is_an_error() -> None:
    line = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
    with pytest.raises(ClusterError, match="410 Expired"):
        _event(line)
