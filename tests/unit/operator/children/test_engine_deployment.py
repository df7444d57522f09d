"""Deployment P-engine: the engine's command line, where it runs, what it may hold."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from neurons.store.base_model import folder_modules
from tests.unit.operator.children.pods import ENDPOINT, GPU, OVERLAY, built, children, computing, containers, pod_of
from twin_operator.domain.tuning import Needs
from twin_operator.kinds.miner_pool.engine_deployment import tuning_in


def deployment(**spec: Any) -> dict[str, Any]:
    return children(**spec)["Deployment", "p-engine"]


def engine_pod(**spec: Any) -> dict[str, Any]:
    return pod_of(deployment(**spec))


def test_an_argument_stands_as_it_is_given() -> None:
    """A variable could hold a flag that only the operator sets."""
    arguments = containers(engine_pod(engine={"args": ["$(DOOR)"]}))["engine"]["args"]
    assert "$(DOOR)" not in arguments
    assert "$$(DOOR)" in arguments


def test_the_engine_opens_no_port_and_listens_on_the_socket_only() -> None:
    engine = containers(engine_pod())["engine"]
    assert "ports" not in engine
    assert f"--uds={names.ENGINE_SOCKET}" in engine["args"]
    assert not any(argument.startswith(("--host", "--port")) for argument in engine["args"])


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_the_engines_own_processes_talk_over_loopback_only(device: str) -> None:
    variables = {v["name"]: v["value"] for v in containers(engine_pod(engine={"device": device}))["engine"]["env"]}
    assert variables["VLLM_HOST_IP"] == "127.0.0.1"
    assert variables["GLOO_SOCKET_IFNAME"] == variables["NCCL_SOCKET_IFNAME"] == "lo"


def test_our_arguments_come_after_the_users() -> None:
    arguments = containers(
        engine_pod(engine={"device": "CPU", "args": ["--seed=1"], "maxLoras": "Auto", "maxModelLength": 512})
    )["engine"]["args"]
    assert arguments.index("--seed=1") < arguments.index("--model=/models/current")
    assert {
        "--enable-lora",
        "--max-loras=8",
        "--max-lora-rank=16",
        "--max-model-len=512",
        "--shutdown-timeout=60",
    } <= set(arguments)


@pytest.mark.parametrize(
    ("said", "running"),
    [
        ([], ["--max-num-seqs=256"]),
        (["--max-num-batched-tokens=64"], ["--max-num-seqs=64"]),
        (["--max-num-batched-tokens=2k"], []),
        (["--max-num-active-seqs=512"], ["--max-num-seqs=512"]),
        (["--max_num_seqs=1024"], ["--max_num_seqs=1024"]),
    ],
)
def test_an_engine_runs_as_many_at_once_as_miners_count_with(said: list[str], running: list[str]) -> None:
    """Else vLLM ran 1,024 on a large card, and a pool would be taken for full at a quarter of that."""
    arguments = containers(engine_pod(engine={"device": "GPU", "args": said}))["engine"]["args"]
    assert [each for each in arguments if each.replace("_", "-").startswith("--max-num-seqs")] == running


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (None, {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}}),
        ({"requests": {"nvidia.com/gpu": 2}}, {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}),
        ({"limits": {"nvidia.com/gpu": 2}}, {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1"}}),
    ],
)
def test_gpus_are_requested_and_limited_alike(resources: Any, expected: dict[str, Any]) -> None:
    assert (
        computing(containers(engine_pod(**GPU, **({"resources": resources} if resources else {})))["engine"])
        == expected
    )


def test_where_engines_run_follows_the_spec() -> None:
    pod = engine_pod(
        **GPU,
        runtimeClassName="nvidia",
        nodeSelector={"gpu": "h100"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    assert (pod["runtimeClassName"], pod["nodeSelector"]) == ("nvidia", {"gpu": "h100"})
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


@pytest.mark.parametrize(("device", "image"), [("CPU", "c:1"), ("GPU", "g:1")])
def test_images_are_the_operators_unless_the_spec_names_others(device: str, image: str) -> None:
    assert containers(engine_pod(engine={"device": device}))["engine"]["image"] == image
    own = containers(engine_pod(engine={"device": device, "image": "own:2"}, miner={"image": "mine:3"}))
    assert (own["engine"]["image"], own["agent"]["image"], own["model"]["image"]) == ("own:2", "mine:3", "mine:3")


def test_a_pod_may_drain_before_it_is_killed() -> None:
    pod = engine_pod(drainSeconds=90)
    assert pod["terminationGracePeriodSeconds"] == 120
    command = containers(pod)["engine"]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert names.ENGINE_DRAIN_FILE in command
    assert names.ENGINE_DRAINED_FILE in command


def test_an_endpoint_pool_runs_agents_only() -> None:
    pod = engine_pod(**ENDPOINT)
    assert list(containers(pod)) == ["agent"]
    variables = {variable["name"]: variable.get("value") for variable in containers(pod)["agent"]["env"]}
    assert variables["ENGINE_ENDPOINT"] == "http://gpu:8000"
    assert variables["ENGINE_ENDPOINT_KEY_FILE"] == "/etc/bettertherapy/endpoint/apiKey"


def test_before_an_endpoint_the_agent_has_the_claim_with_the_adapters_manifests_and_no_other() -> None:
    model = {"baseModel": {"name": "m", "uri": "pvc://models/m"}}
    pod = engine_pod(**ENDPOINT | model, store={"uri": "pvc://adapters/twins"})
    found = {each["name"]: each["persistentVolumeClaim"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
    [(name, claim)] = found.items()
    assert claim == {"claimName": "adapters", "readOnly": True}
    [mount] = [each for each in containers(pod)["agent"]["volumeMounts"] if each["name"] == name]
    assert (mount["mountPath"], mount["readOnly"]) == (f"{names.PVC_DIR}/adapters", True)
    remote = engine_pod(**ENDPOINT, store={"uri": "s3://b/x"})
    assert not [each for each in remote["volumes"] if "persistentVolumeClaim" in each]


def test_a_model_in_the_engines_image_is_used_in_place() -> None:
    pod = engine_pod(baseModel={"name": "m", "uri": "file:///opt/m"})
    assert "model" not in containers(pod)
    assert "--model=/opt/m" in containers(pod)["engine"]["args"]


def test_store_credentials_reach_only_who_reads_the_store() -> None:
    found = containers(engine_pod(store={"uri": "s3://b/x", "secretRef": {"name": "s3"}}))
    assert {name for name, container in found.items() if container.get("envFrom")} == {"model", "agent"}
    mounted = {
        name
        for name, container in found.items()
        if any(mount["name"] == "store-secret" for mount in container["volumeMounts"])
    }
    assert mounted == {"agent"}


def test_without_a_store_secret_none_is_mounted() -> None:
    assert all(volume["name"] != "store-secret" for volume in engine_pod(store={"uri": "s3://b/x"})["volumes"])


@pytest.mark.parametrize(
    ("asked", "surge", "unavailable"),
    [(None, 1, 0), ({"maxSurge": 0, "maxUnavailable": 1}, 0, 1), ({"maxUnavailable": "25%"}, 1, "25%")],
)
def test_pods_are_replaced_bit_by_bit_as_asked(asked: Any, surge: int, unavailable: int | str) -> None:
    engine = {"device": "GPU", **({"updateStrategy": asked} if asked else {})}
    assert deployment(engine=engine)["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    }


def test_recreate_ends_all_pods_first() -> None:
    assert deployment(engine={"updateStrategy": {"type": "Recreate"}})["spec"]["strategy"] == {"type": "Recreate"}


def test_the_users_own_number_of_adapters_at_hand_stays_alone() -> None:
    for argument in ("--max-cpu-loras=7", "--max_cpu_loras=7"):
        arguments = containers(engine_pod(engine={"args": [argument]}))["engine"]["args"]
        assert [each for each in arguments if "cpu" in each] == [argument]
    assert "--max-cpu-loras=64" in containers(engine_pod())["engine"]["args"]


def started_with(**engine: Any) -> list[str]:
    return list(containers(engine_pod(engine=engine))["engine"]["args"])


def told_to_agent(**engine: Any) -> dict[str, str]:
    variables = containers(engine_pod(engine=engine))["agent"]["env"]
    return {each["name"]: each["value"] for each in variables if each["name"].startswith("ENGINE_")}


def test_kernels_are_sized_by_the_batch_on_a_gpu_alone() -> None:
    assert "--specialize-active-lora" in started_with(device="GPU")
    assert "--specialize-active-lora" not in started_with(device="CPU")


def test_only_attention_is_wrapped_where_the_pool_says_so() -> None:
    found = started_with(loraTargets="Attention")
    begin = found.index("--lora-target-modules")
    assert found[begin : begin + 6] == ["--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"]
    assert found[begin + 6].startswith("--")
    assert "--lora-target-modules" not in started_with()


def test_the_agent_is_told_what_the_engine_was_started_for_where_that_is_less_than_all() -> None:
    assert told_to_agent() == {}
    assert told_to_agent(loraTargets="Attention") == {"ENGINE_LORA_TARGETS": "Attention"}
    assert told_to_agent(loraTargets="Auto", maxLoraRank="Auto") == {"ENGINE_MAX_LORA_RANK": "16"}
    follows = built(spec={"engine": {"loraTargets": "Auto"}}, needs=Needs(adapters=1, twins=1, rank=8))
    [engine, _] = [each for each in follows.manifests if each["kind"] == "Deployment"]
    told = [each["name"] for each in containers(pod_of(engine))["agent"]["env"]]
    assert {"ENGINE_LORA_TARGETS", "ENGINE_FOLLOWS_ADAPTERS"} <= set(told)


@pytest.mark.parametrize(
    "engine",
    [
        {}, {"loraTargets": "Attention", "maxLoras": 32}, {"device": "CPU", "maxLoraRank": 64},
        {"args": ["--max-cpu-loras=70"]}, {"maxLoraRank": "Auto"},
    ],
)  # fmt: skip
def test_a_deployment_tells_how_its_engines_are_started(engine: dict[str, Any]) -> None:
    made = built(spec={"engine": engine})
    [applied, _] = [each for each in made.manifests if each["kind"] == "Deployment"]
    assert made.tuning is not None
    assert tuning_in(applied) == made.tuning.tuning


def test_a_deployment_without_an_engine_of_ours_tells_nothing() -> None:
    assert tuning_in(None) is None
    assert tuning_in(deployment(**ENDPOINT)) is None
    assert built(spec=ENDPOINT).tuning is None
    odd = deployment()
    pod_of(odd)["containers"][0]["args"] = ["--max-loras=many"]
    assert tuning_in(odd) is None


def test_the_agents_resources_are_the_pools_own() -> None:
    own = {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}
    assert computing(containers(engine_pod(agent={"resources": own}))["agent"]) == own
    assert computing(containers(engine_pod())["agent"])["limits"] == {"memory": "1Gi"}


def test_an_overlay_reaches_the_engine_and_what_fetches_its_model_but_not_the_agent() -> None:
    found = containers(engine_pod(engine={"device": "CPU", "pod": OVERLAY}))
    for name in ("engine", "model"):
        assert OVERLAY["env"][0] in found[name]["env"]
        assert {"/data", "/keys", "/conf", "/ram"} <= {mount["mountPath"] for mount in found[name]["volumeMounts"]}
    assert "HF_TOKEN" not in {variable["name"] for variable in found["agent"]["env"]}
    assert "/data" not in {mount["mountPath"] for mount in found["agent"]["volumeMounts"]}


def mounts_of(container: dict[str, Any]) -> dict[str, bool]:
    return {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("uri", "cache", "places"),
    [
        ("hf://clinic/model", None, {"/models"}),
        ("s3://bucket/model", {"claimName": "kept"}, {"/models", "/cache"}),
        ("pvc://weights/model", None, {"/models", "/mnt/pvc/weights"}),
    ],
)
def test_the_agent_reads_the_base_models_sizes_where_the_model_was_brought(
    uri: str, cache: dict[str, Any] | None, places: set[str]
) -> None:
    pod = engine_pod(baseModel={"name": "base", "uri": uri}, **({"cache": cache} if cache else {}))
    agent = containers(pod)["agent"]
    assert {v["name"]: v.get("value") for v in agent["env"]}["BASE_MODEL_DIR"] == "/models/current"
    mounts = mounts_of(agent)
    assert places <= mounts.keys()
    assert all(mounts[place] for place in places), "read only"
    assert not any(container["name"] == "model-headers" for container in pod["initContainers"])


def test_of_a_model_in_the_engines_image_the_headers_are_shown_to_the_agent(tmp_path: Path) -> None:
    pod = engine_pod(baseModel={"name": "base", "uri": "file:///models/in-image"})
    init = containers(pod)["model-headers"]
    assert init["image"] == containers(pod)["engine"]["image"]
    agent = containers(pod)["agent"]
    assert {v["name"]: v.get("value") for v in agent["env"]}["BASE_MODEL_DIR"] == "/models/headers"
    assert mounts_of(agent)["/models"]
    order = [container["name"] for container in pod["initContainers"]]
    assert order.index("model-headers") < order.index("agent")

    source, target = tmp_path / "in-image", tmp_path / "shown"
    source.mkdir()
    header = b'{"model.layers.0.mlp.down_proj.weight":{"dtype":"BF16","shape":[512,1024],"data_offsets":[0,1048576]}}'
    (source / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x01" * 1048576)
    (source / "config.json").write_text('{"vision_config": {}}')
    *command, _, _ = init["command"]
    subprocess.run([*command, source, target], check=True, timeout=60)
    shown = target / "model.safetensors"
    assert shown.stat().st_size == (source / "model.safetensors").stat().st_size
    assert shown.stat().st_blocks * 512 < 100_000, "weights are not copied"
    assert folder_modules(target) == folder_modules(source)
    subprocess.run([*command, tmp_path / "nothing", target], check=True, timeout=60)
    (source / "model-2.safetensors").symlink_to(tmp_path / "nothing")
    (source / "model-3.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    subprocess.run([*command, source, target], check=True, timeout=60)
    assert not list(target.glob("*.safetensors")), "a part of the modules would have good adapters refused"


@pytest.mark.parametrize("name", ["engine", "model-headers"])
def test_nothing_lies_over_a_model_in_the_engines_image(name: str) -> None:
    container = containers(engine_pod(baseModel={"name": "base", "uri": "file:///models/in-image"}))[name]
    assert not [place for place in mounts_of(container) if "/models/in-image".startswith(f"{place}/")]


def test_before_an_endpoint_no_sizes_are_known() -> None:
    agent = containers(engine_pod(**ENDPOINT))["agent"]
    assert "BASE_MODEL_DIR" not in {v["name"] for v in agent["env"]}
    assert "/models" not in mounts_of(agent)


def test_a_cache_on_the_node_is_given_to_the_pods_user_before_anything_is_fetched() -> None:
    """The kubelet makes the folder as root's: what fetches could not write there."""
    pod = engine_pod(baseModel={"name": "b", "uri": "hf://o/m"}, cache={"hostPath": "/data/models"})
    names_in_order = [container["name"] for container in pod["initContainers"]]
    assert names_in_order.index("cache-owner") < names_in_order.index("model")
    owner = containers(pod)["cache-owner"]
    assert owner["command"][-2:] == ["/cache", "65532"]
    assert owner["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert [mounted["mountPath"] for mounted in owner["volumeMounts"]] == ["/cache"]
    for cache in (None, {"claimName": "models"}, {"sizeLimit": "20Gi"}):
        plain = engine_pod(baseModel={"name": "b", "uri": "hf://o/m"}, **({} if cache is None else {"cache": cache}))
        assert "cache-owner" not in containers(plain)


def test_agents_and_miners_have_the_pools_tokens_and_the_engine_has_not() -> None:
    pod = engine_pod()
    volume = next(each for each in pod["volumes"] if each["name"] == "pool-tokens")
    assert volume["secret"] == {"secretName": "p-pool-tokens", "optional": True, "defaultMode": 0o440}
    assert mounts_of(containers(pod)["agent"])["/etc/bettertherapy/pool-tokens"]
    assert not [name for name in containers(pod) if name != "agent" and "pool-tokens" in str(containers(pod)[name])]


def test_agents_are_told_whether_the_pool_takes_images() -> None:
    def told(**miner: Any) -> list[str]:
        agent = containers(engine_pod(miner=miner))["agent"]
        return [each["value"] for each in agent["env"] if each["name"] == "IMAGES"]

    assert (told(), told(images=True)) == ([], ["true"])


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (None, []),
        ({"limits": {"nvidia.com/gpu": 1}}, []),
        ({"limits": {"nvidia.com/gpu": 4}}, ["--tensor-parallel-size=4"]),
        ({"requests": {"nvidia.com/gpu": "8"}}, ["--tensor-parallel-size=8"]),
        ({"limits": {"amd.com/gpu": 2, "memory": "64Gi"}}, ["--tensor-parallel-size=2"]),
    ],
)
def test_an_engine_is_spread_over_all_gpus_of_its_pod(resources: Any, expected: list[str]) -> None:
    spec = {"engine": {"device": "GPU"}, **({"resources": resources} if resources else {})}
    arguments = containers(engine_pod(**spec))["engine"]["args"]
    assert [each for each in arguments if "parallel-size" in each] == expected


def test_an_engine_on_cpus_is_not_spread() -> None:
    spec = {"engine": {"device": "CPU"}, "resources": {"limits": {"nvidia.com/gpu": 4}}}
    assert not any("parallel" in each for each in containers(engine_pod(**spec))["engine"]["args"])


@pytest.mark.parametrize(
    "argument", ["--tensor-parallel-size=2", "--pipeline_parallel_size=4", "--data-parallel-size=4"]
)
def test_who_says_how_the_model_is_split_says_all_of_it(argument: str) -> None:
    spec = {"engine": {"device": "GPU", "args": [argument]}, "resources": {"limits": {"nvidia.com/gpu": 4}}}
    arguments = containers(engine_pod(**spec))["engine"]["args"]
    assert [each for each in arguments if "parallel" in each] == [argument]


@pytest.mark.parametrize(("gpus", "size"), [(1, "2Gi"), (8, "16Gi")])
def test_shared_memory_grows_with_the_gpus(gpus: int, size: str) -> None:
    pod = engine_pod(engine={"device": "GPU"}, resources={"limits": {"nvidia.com/gpu": gpus}})
    (shared,) = [each for each in pod["volumes"] if each["name"] == "shm"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
    assert {"name": "shm", "mountPath": "/dev/shm"} in containers(pod)["engine"]["volumeMounts"]
