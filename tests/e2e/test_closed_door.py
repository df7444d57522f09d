"""Nobody but the agent reaches the engine: every route that the real vLLM lists is tried from outside its pod."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import NAMESPACE, Clinic, http

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ALLOWED = {
    ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/embeddings"),
    ("GET", "/metrics"),
}  # fmt: skip
MINERS_OWN = {("POST", "/v1/responses")}
"""The miner answers it itself, by chats; the engine's route of that name is closed."""
AGENTS_OWN = {("POST", "/tokenize")}
"""The agent lets the miner count what a prompt takes; a client can't reach the route by the miner."""
UNLISTED = [("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json"), ("POST", "/v1/load_lora_adapter/")]

LIST_ROUTES = """
import http.client, json, socket
connection = http.client.HTTPConnection("engine")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/engine/vllm.sock")
connection.request("GET", "/openapi.json")
paths = json.loads(connection.getresponse().read())["paths"]
print(json.dumps([[m.upper(), p] for p, ms in paths.items() for m in ms]))
"""


def test_no_route_that_controls_the_engine_is_reachable(clinic: Clinic) -> None:
    pod = clinic.pods("engine")[0]["metadata"]["name"]
    listed = clinic.kubectl("exec", "-n", NAMESPACE, pod, "-c", "engine", "--", "python3", "-c", LIST_ROUTES).stdout
    routes = [(method, path) for method, path in json.loads(listed)]
    assert ("POST", "/v1/load_lora_adapter") in routes, "the engine itself must have the route, or this proves nothing"
    assert len(routes) > 15
    before = clinic.ask("dr-indra-gurung")
    agent, miner, as_miner = clinic.agent, clinic.miner, clinic.as_miner
    for method, path in [*routes, *UNLISTED]:
        if (method, path) in ALLOWED:
            continue
        concrete = path.replace("{adapter_name}", "x").replace("{response_id}", "x")
        closed_at = {agent, miner}
        if (method, path) in MINERS_OWN:
            closed_at.remove(miner)
        if (method, path) in AGENTS_OWN:
            closed_at.remove(agent)
        for target in closed_at:
            known = as_miner if target == agent else None
            body = {"lora_name": "x", "lora_path": "/tmp"}
            answer = http(method, target + concrete, body=body, token=clinic.token, headers=known)
            assert answer.status in {404, 405}, f"{method} {concrete} answered {answer.status} at {target}"
    assert clinic.ask("dr-indra-gurung").text == before.text


def test_the_pod_listens_on_the_agents_two_ports_only(clinic: Clinic) -> None:
    pod = clinic.pods("engine")[0]["metadata"]["name"]
    tables = clinic.kubectl(
        "exec", "-n", NAMESPACE, pod, "-c", "engine", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"
    )
    rows = [line.split() for line in tables.stdout.splitlines() if ":" in line and "local_address" not in line]
    loopback = ("0100007F", "00000000000000000000000001000000")
    open_ports = {
        int(row[1].rsplit(":", 1)[1], 16) for row in rows if row[3] == "0A" and row[1].rsplit(":", 1)[0] not in loopback
    }
    assert open_ports == {8080, 8081}  # requests, and figures for whoever `metricsFrom` allows


def test_an_unverified_name_is_refused_before_the_engine_sees_it(clinic: Clinic) -> None:
    body = {"model": "dr-nobody-00000000", "messages": [{"role": "user", "content": "hello"}]}
    answer = http("POST", f"{clinic.agent}/v1/chat/completions", body=body, headers=clinic.as_miner)
    assert answer.status == 421
    assert answer.headers["x-twin-retry"]


def test_an_agent_answers_nobody_but_the_miners_of_its_pool(clinic: Clinic) -> None:
    agent = clinic.agent
    for path in ("/v1/models", "/v1/chat/completions", "/tokenize", "/agent/v1/status"):
        body = {"model": "dr-indra-gurung", "messages": [{"role": "user", "content": "hello"}]}
        answer = http("POST" if path != "/v1/models" else "GET", agent + path, body=body, token=clinic.token)
        assert answer.status == 401, f"{path} answered {answer.status} to who is no miner"
