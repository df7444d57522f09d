"""Asking: what is looked up, what is sent, and the sentence for everything that may be missing."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import nullcontext
from typing import Any

import pytest

from kubectl_twin.api import Api, ResourceOfPath, refusal
from kubectl_twin.ask import Answer, Question, access_token, ask, choose_pool, miner_pod
from kubectl_twin.commands.twins import ask_command
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.lookup import find_twin, near, no_such_twin

from .objects import DIGEST, Json, condition, secret, serving_twin, twin
from .objects import miner_pod as pod


class FakeApi(Api):
    """Answers from a dict of paths."""

    def __init__(self, objects: dict[str, Any], *, far_end: bytes = b"") -> None:
        self.objects = objects
        self.namespace = "clinic"
        self.far_end = far_end
        self.received = b""

    def get(self, path: str, query: Any = None) -> Json:
        found = self.objects.get(path)
        if isinstance(found, ApiError):
            raise found
        if found is None:
            raise refusal(404, b"{}", verb="get", path=path)
        return dict(found)

    def forward(self, *, namespace: str, pod: str, port: int) -> Any:
        near_end, far_end = socket.socketpair()
        thread = threading.Thread(target=self._answer, args=(far_end,), daemon=True)
        thread.start()
        return FakeForward(near_end, thread)

    def _answer(self, end: socket.socket) -> None:
        with end:
            end.settimeout(10)
            while True:
                self.received += end.recv(65536)
                head, _, body = self.received.partition(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                if len(body) >= length:
                    break
            end.sendall(self.far_end)


class FakeForward:
    error = None

    def __init__(self, near_end: socket.socket, thread: threading.Thread) -> None:
        self.socket = near_end
        self._thread = thread

    def close(self) -> None:
        self.socket.close()
        self._thread.join(timeout=10)


BASE = "/apis/bettertherapy.io/v1alpha1/namespaces/clinic"
CORE = "/api/v1/namespaces/clinic"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
    b"x-twin-adapter-digest: " + DIGEST.encode() + b"\r\nx-twin-pod: engine-1\r\n\r\n"
    b'data: {"choices":[{"delta":{"content":"Drink "}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"water."},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.fixture
def objects() -> dict[str, Any]:
    return {
        f"{BASE}/doctortwins/dr-gurung": serving_twin(),
        f"{BASE}/doctortwins": {"items": [serving_twin()]},
        f"{BASE}/minerpools/pool-a": {"spec": {}},
        f"{CORE}/secrets/pool-a-access": secret(me="t0ken"),
        f"{CORE}/pods": {"items": [pod("pool-a-miner-1", ready=True)]},
    }


def asked(api: FakeApi, **changes: Any) -> tuple[Answer, list[str]]:
    heard: list[str] = []
    values = {"twin": "dr-gurung", "text": "What now?", "namespace": "clinic", "timeout_seconds": 10.0, **changes}
    return ask(api, Question(**values), on_text=heard.append), heard


def test_the_answer_arrives_in_pieces_and_names_its_adapter_and_pod(objects: dict[str, Any]) -> None:
    answer, heard = asked(FakeApi(objects, far_end=STREAM))
    assert heard == ["Drink ", "water."]
    assert (answer.text, answer.adapter_digest, answer.pod) == ("Drink water.", DIGEST, "engine-1")
    assert (answer.doctor, answer.pool, answer.tokens) == ("Dr. Indra Gurung", "pool-a", 3)


def test_the_request_carries_the_token_and_the_question(objects: dict[str, Any]) -> None:
    api = FakeApi(objects, far_end=STREAM)
    asked(api, max_tokens=7)
    head, _, body = api.received.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions ")
    assert b"Authorization: Bearer t0ken" in head
    sent = json.loads(body)
    assert sent["model"] == "dr-gurung"
    assert sent["messages"] == [{"role": "user", "content": "What now?"}]
    assert (sent["max_tokens"], sent["stream"]) == (7, True)


def test_without_streaming_the_answer_comes_whole(objects: dict[str, Any]) -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": "Rest."}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    ).encode()
    api = FakeApi(objects, far_end=b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    answer, heard = asked(api, stream=False)
    assert heard == ["Rest."]
    assert answer.tokens_per_second is None


def test_a_refusal_of_the_miner_is_passed_on_in_its_own_words(objects: dict[str, Any]) -> None:
    body = json.dumps({"error": {"message": "not verified yet; wait"}}).encode()
    api = FakeApi(objects, far_end=b"HTTP/1.1 503 x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    with pytest.raises(TwinCliError, match="answered 503: not verified yet; wait"):
        asked(api)


def test_a_connection_that_ends_early_is_said_to_have_broken(objects: dict[str, Any]) -> None:
    with pytest.raises(TwinCliError, match="broke"):
        asked(FakeApi(objects, far_end=b""))


def test_a_twin_of_no_pool_gives_its_own_condition_as_the_reason() -> None:
    lonely = twin(conditions=[condition("Serving", "False", "NoPoolMatches", "no MinerPool has these labels")])
    with pytest.raises(TwinCliError, match="no MinerPool has these labels"):
        choose_pool(lonely, None)


def test_a_pool_that_does_not_serve_the_twin_is_refused_with_those_that_do() -> None:
    with pytest.raises(TwinCliError, match="pool-a, pool-b"):
        choose_pool(serving_twin(), "other")


def test_a_missing_secret_is_named_with_the_command_that_makes_it(objects: dict[str, Any]) -> None:
    del objects[f"{CORE}/secrets/pool-a-access"]
    with pytest.raises(TwinCliError, match=r"Secret pool-a-access does not exist.*create secret generic pool-a-access"):
        access_token(FakeApi(objects), namespace="clinic", pool="pool-a")


def test_an_empty_secret_is_said_to_hold_no_token(objects: dict[str, Any]) -> None:
    objects[f"{CORE}/secrets/pool-a-access"] = secret(me="  ")
    with pytest.raises(TwinCliError, match="holds no token"):
        access_token(FakeApi(objects), namespace="clinic", pool="pool-a")


def test_the_pool_may_name_another_secret(objects: dict[str, Any]) -> None:
    objects[f"{BASE}/minerpools/pool-a"] = {"spec": {"miner": {"accessSecretRef": {"name": "mine"}}}}
    objects[f"{CORE}/secrets/mine"] = secret(a="other")
    assert access_token(FakeApi(objects), namespace="clinic", pool="pool-a") == "other"


def test_a_secret_that_may_not_be_read_is_named(objects: dict[str, Any]) -> None:
    path = f"{CORE}/secrets/pool-a-access"
    objects[path] = refusal(403, b"{}", verb="get", path=path)
    with pytest.raises(TwinCliError, match="may not read Secret pool-a-access"):
        access_token(FakeApi(objects), namespace="clinic", pool="pool-a")


def test_a_ready_miner_pod_is_chosen(objects: dict[str, Any]) -> None:
    objects[f"{CORE}/pods"] = {"items": [pod("down", ready=False), pod("up", ready=True)]}
    assert miner_pod(FakeApi(objects), namespace="clinic", pool="pool-a") == "up"


def test_without_a_ready_miner_pod_it_says_what_to_look_at(objects: dict[str, Any]) -> None:
    objects[f"{CORE}/pods"] = {"items": [pod("down", ready=False)]}
    with pytest.raises(TwinCliError, match="None of pool pool-a's 1 miner pods is ready"):
        miner_pod(FakeApi(objects), namespace="clinic", pool="pool-a")


def test_an_unknown_twin_gets_near_names(objects: dict[str, Any]) -> None:
    with pytest.raises(TwinCliError, match=r"no twin dr-gurun in namespace clinic. Did you mean dr-gurung\?"):
        find_twin(FakeApi(objects), namespace="clinic", name="dr-gurun")


def test_a_twin_in_another_namespace_is_pointed_to() -> None:
    assert "add `-n ward`" in no_such_twin("dr-x", namespace="clinic", here=[], elsewhere=["ward"])


def test_names_that_share_a_word_are_near() -> None:
    assert near("gurung", ["dr-indra-gurung", "dr-tomas-okafor"]) == ["dr-indra-gurung"]


def test_a_namespace_without_twins_is_said() -> None:
    assert "no twins at all" in no_such_twin("x", namespace="clinic", here=[], elsewhere=[])


def test_a_forbidden_request_names_the_right_that_is_missing() -> None:
    error = refusal(403, b"{}", verb="list", path=f"{BASE}/doctortwins")
    assert "may not list doctortwins.bettertherapy.io in namespace clinic" in str(error)
    assert "kubectl auth can-i list doctortwins.bettertherapy.io" in str(error)


def test_a_cluster_without_the_operator_is_said() -> None:
    error = refusal(404, b"404 page not found", verb="list", path="/apis/bettertherapy.io/v1alpha1/doctortwins")
    assert "Install the operator first" in str(error)


def test_other_refusals_carry_the_servers_own_message() -> None:
    error = refusal(500, b'{"message":"etcd is down"}', verb="get", path=f"{CORE}/secrets/x")
    assert "etcd is down" in str(error)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{BASE}/doctortwins/a", ResourceOfPath("doctortwins", "clinic", "a")),
        ("/apis/bettertherapy.io/v1alpha1/doctortwins", ResourceOfPath("doctortwins", None, None)),
        (f"{CORE}/secrets/s", ResourceOfPath("secrets", "clinic", "s")),
    ],
)
def test_messages_know_what_a_path_speaks_of(path: str, expected: ResourceOfPath) -> None:
    assert ResourceOfPath.parse(path) == expected


def test_an_answer_can_not_control_the_terminal(
    objects: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi(objects, far_end=STREAM.replace(b"Drink ", rb"Drink\u001b[2J\r "))
    monkeypatch.setattr("kubectl_twin.commands.twins.connect", lambda _: nullcontext(api))
    ask_command("dr-gurung", "What now?")
    told = capsys.readouterr().out
    assert told.startswith("Drink\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER} water.\n")
