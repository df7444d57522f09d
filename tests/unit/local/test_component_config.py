"""What the components are told."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from localcluster import config
from localcluster.apiclient import path_of
from localcluster.config import ClusterSpec
from localcluster.layout import Layout
from localcluster.network import Network
from localcluster.tools import BINARIES


def _spec(name: str, *, slot: int, audit: bool = False) -> ClusterSpec:
    return ClusterSpec(
        layout=Layout.of(name, root=Path("/srv/clusters")),
        network=Network(slot),
        binaries={binary: Path("/opt") / binary for binary in BINARIES},
        audit=audit,
        python="/usr/bin/python3",
        package_root=Path("/opt/lib"),
    )


@pytest.fixture
def spec() -> ClusterSpec:
    return _spec("demo", slot=1)


def _commands(spec: ClusterSpec) -> dict[str, tuple[str, ...]]:
    return {component.name: component.command for component in config.components(spec)}


def test_two_clusters_share_no_folder_socket_or_address() -> None:
    texts = []
    for name, slot in (("one", 1), ("two", 2)):
        spec = _spec(name, slot=slot)
        commands = "\n".join(" ".join(command) for command in _commands(spec).values())
        rendered = "\n".join(
            [
                commands,
                config.containerd_toml(spec),
                config.corefile(spec),
                repr(config.kubelet_configuration(spec)),
                repr(config.kube_proxy_configuration(spec)),
                repr(config.cni_configuration(spec)),
                repr(config.base_objects(spec)),
            ]
        )
        texts.append(set(re.findall(r"/srv/clusters/[\w./-]+|\b10\.21[345]\.[\d.]+", rendered)))

    assert texts[0]
    assert texts[0].isdisjoint(texts[1])


def test_containerd_may_not_lower_oom_scores(spec: ClusterSpec) -> None:
    rendered = tomllib.loads(config.containerd_toml(spec))

    assert rendered["plugins"]["io.containerd.grpc.v1.cri"]["restrict_oom_score_adj"] is True


def test_scrubbing_runs_containerd_without_its_kubernetes_part_on_the_same_images(spec: ClusterSpec) -> None:
    normal = tomllib.loads(config.containerd_toml(spec))
    scrubbing = tomllib.loads(config.containerd_toml(spec, with_cri=False))

    assert "io.containerd.grpc.v1.cri" in scrubbing["disabled_plugins"]
    assert "io.containerd.grpc.v1.cri" not in normal["disabled_plugins"]
    assert scrubbing["root"] == normal["root"]
    assert scrubbing["grpc"]["address"] != normal["grpc"]["address"]


def test_a_half_full_disk_neither_evicts_pods_nor_removes_images(spec: ClusterSpec) -> None:
    rendered = config.kubelet_configuration(spec)

    assert not [limit for limit in rendered["evictionHard"].values() if limit.endswith("%")]
    assert rendered["imageGCHighThresholdPercent"] == 100


def test_the_kubelet_leaves_the_machines_kernel_settings_alone(spec: ClusterSpec) -> None:
    assert config.kubelet_configuration(spec)["protectKernelDefaults"] is True


def test_writes_are_logged_only_when_asked_for() -> None:
    def audited(*, audit: bool) -> bool:
        command = config.kube_apiserver(_spec("demo", slot=1, audit=audit))
        return any(argument.startswith("--audit-log-path=") for argument in command)

    assert audited(audit=True)
    assert not audited(audit=False)


def test_the_audit_log_leaves_out_reads() -> None:
    assert config.audit_policy()["rules"][0] == {"level": "None", "verbs": ["get", "list", "watch"]}


def test_only_fake_nodes_are_given_to_kwok(spec: ClusterSpec) -> None:
    command = config.kwok(spec, binary=Path("/opt/kwok")).command
    selector = next(a.partition("=")[2] for a in command if a.startswith("--manage-nodes-with-annotation-selector="))
    key, _, value = selector.partition("=")
    node = config.fake_node("kwok-0001")

    assert node["metadata"]["annotations"][key] == value
    assert node["spec"]["taints"] == [{"key": key, "value": value, "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["type"] == "kwok"


def test_every_volume_is_the_folder_of_its_name(spec: ClusterSpec) -> None:
    volumes = [o for o in config.base_objects(spec) if o["kind"] == "PersistentVolume"]

    assert len(volumes) == config.VOLUME_COUNT
    assert all(v["spec"]["hostPath"]["path"] == str(spec.layout.volumes / v["metadata"]["name"]) for v in volumes)


def test_one_storage_class_is_the_default(spec: ClusterSpec) -> None:
    classes = [o for o in config.base_objects(spec) if o["kind"] == "StorageClass"]

    assert [c["metadata"]["name"] for c in classes] == ["standard"]
    assert classes[0]["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_pods_find_the_name_server_where_its_service_is(spec: ClusterSpec) -> None:
    service = next(o for o in config.base_objects(spec) if o["kind"] == "Service")

    assert [service["spec"]["clusterIP"]] == config.kubelet_configuration(spec)["clusterDNS"]


def test_every_base_object_has_a_path_of_its_own(spec: ClusterSpec) -> None:
    paths = [path_of(manifest) for manifest in config.base_objects(spec)]

    assert len(set(paths)) == len(paths)
    assert "/api/v1/namespaces/kube-system/services/kube-dns" in paths


def test_prometheus_listens_where_pods_reach_it_and_finds_pods_by_itself(spec: ClusterSpec) -> None:
    command = config.prometheus(spec, binary=Path("/opt/prometheus")).command
    jobs = config.prometheus_configuration(spec)["scrape_configs"]

    assert f"--web.listen-address={spec.network.node}:{config.PROMETHEUS_PORT}" in command
    assert {job["kubernetes_sd_configs"][0]["role"] for job in jobs} == {"pod"}
    assert str(spec.layout.root / "prometheus") in " ".join(command)


def test_prometheus_keeps_the_projects_pods_and_names_their_namespace(spec: ClusterSpec) -> None:
    operator, pods = config.prometheus_configuration(spec)["scrape_configs"]

    def found(job: dict[str, Any], port: str) -> bool:
        kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if "action" in rule}
        added = {
            rule["target_label"]: rule["source_labels"][0] for rule in job["relabel_configs"] if "target_label" in rule
        }
        assert kept["__meta_kubernetes_pod_label_app_kubernetes_io_part_of"] == "bettertherapy"
        # The operator's chart selects miners by it.
        assert added["namespace"] == "__meta_kubernetes_namespace"
        return re.fullmatch(kept["__meta_kubernetes_pod_label_app_kubernetes_io_name"], port) is not None

    assert [found(operator, port) for port in ("twin-operator;http", "miner;metrics")] == [True, False]
    # Where patients and miners ask there are no metrics: each look would be counted as a request.
    ports = ("miner;metrics", "engine;metrics", "miner;http", "engine;agent", "twin-operator;http")
    assert [found(pods, port) for port in ports] == [True, True, False, False, False]
    # Whoever has a pod of their own could else speak for another's namespace.
    assert operator["honor_labels"] is True
    assert "honor_labels" not in pods


def test_prometheus_may_look_at_pods_and_do_nothing_else() -> None:
    role = next(each for each in config.prometheus_objects() if each["kind"] == "ClusterRole")

    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


def test_a_component_is_read_back_as_it_was_written(spec: ClusterSpec) -> None:
    for component in (*config.components(spec), config.prometheus(spec, binary=Path("/opt/prometheus"))):
        assert config.Component.from_json(component.to_json()) == component


def test_components_know_the_node_by_name_without_a_name_server(spec: ClusterSpec) -> None:
    assert f"{spec.network.node} {spec.node_name}" in config.hosts(spec).splitlines()
