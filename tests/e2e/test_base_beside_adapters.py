"""The base model answers as itself beside adapters, also once every slot for adapters is taken. On the real vLLM."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import NAMESPACE, Clinic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PROBE = """
import http.client, json, socket, threading
def call(method, path, body=None):
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/engine/vllm.sock")
    connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()
TEXT = [311, 857, 402, 119, 640, 233, 918, 505, 176, 729]
def opinion(model):
    asked = {"model": model, "prompt": TEXT[:6], "max_tokens": 1, "temperature": 0, "logprobs": 3}
    status, answer = call("POST", "/v1/completions", asked)
    assert status == 200, answer
    return json.loads(answer)["choices"][0]["logprobs"]["top_logprobs"][0]
base, adapter, *_ = json.loads(call("GET", "/v1/models")[1])["data"]
alone = opinion(base["id"])
taken = []
for number in range(SLOTS):  # the agent takes them out again, as no twin wants them; their slots stay taken
    name = f"probe-{number}"
    assert call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": adapter["root"]})[0] == 200
    taken.append(opinion(name))
asking = True
def keep_asking():
    while asking:
        call("POST", "/v1/completions", {"model": adapter["id"], "prompt": TEXT, "max_tokens": 8, "temperature": 0})
clients = [threading.Thread(target=keep_asking) for _ in range(2)]
for client in clients: client.start()
beside = [opinion(base["id"]) for _ in range(5)]
asking = False
for client in clients: client.join()
print(json.dumps({"alone": alone, "adapters": taken, "beside": beside}))
"""


def test_the_base_model_is_itself_beside_adapters_in_every_slot(clinic: Clinic) -> None:
    [pod, *_] = [pod["metadata"]["name"] for pod in clinic.pods("engine")]
    arguments = clinic.get("pod", pod)["spec"]["containers"]
    slots = next(
        int(each.partition("=")[2])
        for container in arguments
        for each in container.get("args", [])
        if each.startswith("--max-loras=")
    )
    script = PROBE.replace("SLOTS", str(slots))
    done = clinic.kubectl("exec", "-n", NAMESPACE, pod, "-c", "engine", "--", "python3", "-c", script, timeout=300)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(each != said["alone"] for each in said["adapters"]), (
        "the adapter changes nothing, so this proves nothing"
    )
    for each in said["beside"]:
        assert each == pytest.approx(said["alone"], abs=0.05)
