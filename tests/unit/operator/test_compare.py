"""A live object that says what we want, in the API server's words, differs in nothing."""

from __future__ import annotations

from typing import Any

import pytest

from twin_operator.engine.compare import first_difference


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1"}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}),
        ({"limits": {"nvidia.com/gpu": 1}}, {"limits": {"nvidia.com/gpu": "1"}}),
        ({"emptyDir": {"sizeLimit": "1e3"}}, {"emptyDir": {"sizeLimit": "1k"}}),
        ({"c": [{"name": "x", "v": 1}]}, {"c": [{"name": "sidecar"}, {"name": "x", "v": 1, "d": 2}]}),
        ({"m": [{"mountPath": "/a"}]}, {"m": [{"mountPath": "/b"}, {"mountPath": "/a", "readOnly": False}]}),
        ({"selector": {}}, {}),
        ({"list": []}, {}),
    ],
)
def test_the_same(wanted: Any, live: Any) -> None:
    assert first_difference(wanted, live) is None


@pytest.mark.parametrize(
    ("wanted", "live", "where"),
    [
        ({"a": 1}, {"a": 2}, "a"),
        ({"a": {"b": 1}}, {}, "a"),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "2"}}, "requests.cpu"),
        ({"env": [{"name": "N", "value": "1000m"}]}, {"env": [{"name": "N", "value": "1"}]}, "env[N].value"),
        ({"c": [{"name": "x"}]}, {"c": []}, "c[x]"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, "args"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args[0]"),
        ({"a": True}, {"a": "True"}, "a"),
        ({"selector": {"a": "b"}}, {"selector": {"a": "b", "c": "d"}}, "selector.c"),
        ({"a": {"x": 1}}, {"a": [1]}, "a"),
    ],
)
def test_different(wanted: Any, live: Any, where: str) -> None:
    assert (first_difference(wanted, live) or "").startswith(f"{where}: ")
