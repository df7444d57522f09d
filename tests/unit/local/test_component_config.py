"""What the components are told."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
