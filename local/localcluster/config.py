"""What each component is told: its arguments and its configuration file. Pure: nothing here touches the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.layout import MODULES, Layout
from localcluster.network import Network

Json = dict[str, Any]

DOMAIN = "cluster.local"
PAUSE_IMAGE = "registry.k8s.io/pause:3.6"
VOLUME_COUNT = 64
VOLUME_SIZE = "20Gi"
KUBELET_ROOT = Path("/var/lib/kubelet")
CNI_BINARIES = Path("/usr/lib/cni")
API_PORT = 6443
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where components look for programs, and where they are looked for."""
DNS_READY_PORT = 8181
ETCD_CLIENT = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
FAKE_PODS = "10.216.0.1/16"
"""The addresses that kwok invents; nothing answers there."""
KWOK_SELECTOR = "kwok.x-k8s.io/node=fake"
PROMETHEUS_PORT = 9090
SCRAPE_SECONDS = 2
"""How often Prometheus reads each pod: a canary's steps in a demo or a test last seconds."""
WORKLOAD_UID = 65532
"""Who the project's containers run as, and so who owns the volumes."""


@dataclass(frozen=True)
class ClusterSpec:
    """All that the configuration depends on."""

    layout: Layout
    network: Network
    binaries: dict[str, Path]
    """Where each program is."""
    audit: bool
    python: str
    package_root: Path
    """The folder that holds the package ``localcluster``."""

    @property
    def node_name(self) -> str:
        """The one real node."""
        return f"bt-{self.layout.name}"

    @property
    def cgroup(self) -> str:
        """The cluster's cgroup, below each hierarchy's root."""
        return f"bt-{self.layout.name}"

    @property
    def api_url(self) -> str:
        """The API server, the same inside and outside."""
        return f"https://{self.network.node}:{API_PORT}"


@dataclass(frozen=True)
class Component:
    """One process that the supervisor keeps running."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Started once these answer: ``tcp:HOST:PORT``, ``unix:PATH``, ``file:PATH``, ``ready:URL``."""
    once: bool = False
    """Runs to its end and is not started again."""

    def to_json(self) -> Json:
        """As the supervisor reads it."""
        return {"name": self.name, "command": list(self.command), "needs": list(self.needs), "once": self.once}

    @classmethod
    def from_json(cls, told: Json) -> Component:
        """The reverse of `to_json`."""
        return cls(told["name"], tuple(told["command"]), needs=tuple(told["needs"]), once=told["once"])


def components(spec: ClusterSpec) -> list[Component]:
    """The processes of a cluster, in the order in which they start."""
    layout = spec.layout
    api = f"ready:{spec.api_url}/readyz"
    containerd = f"unix:{layout.containerd_socket}"
    scrubbed = layout.sockets / "containerd-scrubbed"
    furnished = f"file:{layout.furnished}"
    package = (spec.python, "-m")
    return [
        Component("etcd", etcd(spec)),
        Component("scrub", (*package, "localcluster.scrub", str(layout.etc), str(scrubbed)), once=True),
        Component("kube-apiserver", kube_apiserver(spec), needs=("tcp:127.0.0.1:2379",)),
        Component(
            "containerd",
            ("containerd", "--config", str(layout.etc / "containerd.toml")),
            needs=(f"file:{scrubbed}",),
        ),
        Component(
            "pause-image",
            (
                *("ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io"),
                *("images", "import", str(layout.etc / "pause.tar")),
            ),
            needs=(containerd,),
            once=True,
        ),
        Component("kube-controller-manager", kube_controller_manager(spec), needs=(api,)),
        Component("kube-scheduler", kube_scheduler(spec), needs=(api,)),
        Component("kubelet", kubelet(spec), needs=(api, containerd)),
        Component("kube-proxy", kube_proxy(spec), needs=(api,)),
        Component(
            "coredns",
            (str(spec.binaries["coredns"]), "-conf", str(layout.etc / "Corefile"), "-quiet"),
            needs=(furnished,),
        ),
        Component(
            "volumes",
            (*package, "localcluster.volumes", str(layout.etc / "volumes.kubeconfig"), str(layout.volumes)),
            needs=(furnished,),
        ),
    ]


def etcd(spec: ClusterSpec) -> tuple[str, ...]:
    """The store. It doesn't sync to disk: the cluster's objects don't outlive it anyway."""
    return (
        str(spec.binaries["etcd"]),
        "--name=default",
        f"--data-dir={spec.layout.root / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_CLIENT}",
        f"--advertise-client-urls={ETCD_CLIENT}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=default={ETCD_PEER}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=30m",
        "--log-level=warn",
    )


def kube_apiserver(spec: ClusterSpec) -> tuple[str, ...]:
    """RBAC, the Node authorizer, NodeRestriction and Pod Security, as a cluster of kubeadm has them."""
    pki, network = spec.layout.pki, spec.network
    command = [
        str(spec.binaries["kube-apiserver"]),
        f"--advertise-address={network.node}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers={ETCD_CLIENT}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={network.services}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={pki / 'service-account.crt'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--enable-aggregator-routing=true",
        "--profiling=false",
    ]
    if spec.audit:
        command += [
            f"--audit-policy-file={spec.layout.etc / 'audit-policy.json'}",
            f"--audit-log-path={spec.layout.audit_log}",
            "--audit-log-format=json",
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=2",
        ]
    return tuple(command)


def kube_controller_manager(spec: ClusterSpec) -> tuple[str, ...]:
    """One instance, so no leader election: an idle cluster stays idle."""
    pki, etc = spec.layout.pki, spec.layout.etc
    return (
        str(spec.binaries["kube-controller-manager"]),
        f"--kubeconfig={etc / 'kube-controller-manager.kubeconfig'}",
        f"--authentication-kubeconfig={etc / 'kube-controller-manager.kubeconfig'}",
        f"--authorization-kubeconfig={etc / 'kube-controller-manager.kubeconfig'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--flex-volume-plugin-dir={spec.layout.root / 'flexvolumes'}",
        "--profiling=false",
    )


def kube_scheduler(spec: ClusterSpec) -> tuple[str, ...]:
    """One instance, so no leader election."""
    kubeconfig = spec.layout.etc / "kube-scheduler.kubeconfig"
    return (
        str(spec.binaries["kube-scheduler"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    )


def kubelet(spec: ClusterSpec) -> tuple[str, ...]:
    """The node. What can be set in its configuration file is set there."""
    return (
        str(spec.binaries["kubelet"]),
        f"--config={spec.layout.etc / 'kubelet.json'}",
        f"--kubeconfig={spec.layout.etc / 'kubelet.kubeconfig'}",
        f"--hostname-override={spec.node_name}",
        f"--node-ip={spec.network.node}",
        f"--root-dir={KUBELET_ROOT}",
    )


def kube_proxy(spec: ClusterSpec) -> tuple[str, ...]:
    """ClusterIPs, by nftables."""
    return (str(spec.binaries["kube-proxy"]), f"--config={spec.layout.etc / 'kube-proxy.json'}")


def kwok(spec: ClusterSpec, *, binary: Path) -> Component:
    """The controller that plays the kubelet of every fake node, and of no other."""
    return Component(
        "kwok",
        (
            str(binary),
            f"--kubeconfig={spec.layout.etc / 'kwok.kubeconfig'}",
            f"--config={MODULES / 'kwok' / 'stages.yaml'}",
            f"--manage-nodes-with-annotation-selector={KWOK_SELECTOR}",
            f"--cidr={FAKE_PODS}",
            "--node-lease-duration-seconds=40",
            "--server-address=127.0.0.1:10247",
        ),
        needs=(f"ready:{spec.api_url}/readyz",),
    )


def prometheus(spec: ClusterSpec, *, binary: Path) -> Component:
    """Prometheus beside the node, where pods and this machine both reach it."""
    return Component(
        "prometheus",
        (
            str(binary),
            f"--config.file={spec.layout.etc / 'prometheus.yml'}",
            f"--storage.tsdb.path={spec.layout.root / 'prometheus'}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={spec.network.node}:{PROMETHEUS_PORT}",
            "--log.level=warn",
        ),
        needs=(f"ready:{spec.api_url}/readyz",),
    )


def prometheus_configuration(spec: ClusterSpec) -> Json:
    """What is scraped: every pod of the project, found through the API server.

    The operator's series name the namespaces of others; what any other pod says of namespace and pod doesn't count.
    """
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            # The operator's one port is for nobody else; neurons have one of their own for this.
            _scrape(spec, "operator", ports="twin-operator;http") | {"honor_labels": True},
            _scrape(spec, "pods", ports="[^;]*;metrics"),
        ],
    }


def _scrape(spec: ClusterSpec, job: str, *, ports: str) -> Json:
    """One scrape configuration; `ports`: what the pod is by its label, and the name of its port."""
    meta = "__meta_kubernetes_pod"
    kept = [
        {"source_labels": [f"{meta}_label_app_kubernetes_io_part_of"], "regex": "bettertherapy", "action": "keep"},
        {
            "source_labels": [f"{meta}_label_app_kubernetes_io_name", f"{meta}_container_port_name"],
            "regex": ports,
            "action": "keep",
        },
        {"source_labels": [f"{meta}_phase"], "regex": "Running", "action": "keep"},
    ]
    labels = {
        "namespace": "__meta_kubernetes_namespace",
        "pod": f"{meta}_name",
        "component": f"{meta}_label_app_kubernetes_io_name",
        "pool": f"{meta}_label_bettertherapy_io_pool",
        "validator": f"{meta}_label_bettertherapy_io_validator",
    }
    return {
        "job_name": job,
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(spec.layout.etc / "prometheus.kubeconfig")}],
        "relabel_configs": [
            *kept,
            *({"source_labels": [source], "target_label": label} for label, source in labels.items()),
        ],
    }


def prometheus_objects() -> list[Json]:
    """The rights of Prometheus: to see pods."""
    return _role(
        PROMETHEUS_USER,
        user=PROMETHEUS_USER,
        rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    )


def kubelet_configuration(spec: ClusterSpec) -> Json:
    """KubeletConfiguration."""
    pki = spec.layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(spec.network.node),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{spec.layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{spec.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "protectKernelDefaults": True,
        "oomScoreAdj": 0,
        "clusterDomain": DOMAIN,
        "clusterDNS": [str(spec.network.dns_service)],
        "resolvConf": str(spec.layout.etc / "resolv.conf"),
        "maxPods": 250,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": str(spec.layout.root / "flexvolumes"),
        "healthzBindAddress": "127.0.0.1",
        # Absolute: the default percentages taint a half-full disk, and then images go that nothing can pull again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "10s",
        "containerLogMaxSize": "10Mi",
        "logging": {"format": "text"},
    }


def kube_proxy_configuration(spec: ClusterSpec) -> Json:
    """KubeProxyConfiguration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(spec.layout.etc / "kube-proxy.kubeconfig")},
        "clusterCIDR": str(spec.network.pods),
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": spec.node_name,
        "bindAddress": str(spec.network.node),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # These settings are the machine's, not the namespace's.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s",
            "udpStreamTimeout": "0s",
        },
    }


def audit_policy() -> Json:
    """Every write and nothing else, without its body."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "verbs": ["get", "list", "watch"]},
            {"level": "Metadata"},
        ],
    }


def containerd_toml(spec: ClusterSpec, *, with_cri: bool = True) -> str:
    """containerd 1.6's configuration. Without CRI it only manages what is stored."""
    layout = spec.layout
    disabled = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    if not with_cri:
        disabled.append("io.containerd.grpc.v1.cri")
    quoted = ", ".join(f'"{name}"' for name in disabled)
    socket = layout.containerd_socket if with_cri else layout.sockets / "scrub.sock"
    state = "/run/containerd" if with_cri else "/run/containerd-scrub"
    return f"""\
version = 2
root = "{layout.containerd}"
state = "{state}"
oom_score = 0
disabled_plugins = [{quoted}]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without this, every sandbox fails where a process may not lower its own OOM score.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  max_concurrent_downloads = 1

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_BINARIES}"
    conf_dir = "{layout.etc / "cni"}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni_configuration(spec: ClusterSpec) -> Json:
    """A pair of interfaces per pod, routed: a bridge would need br_netfilter for ClusterIPs."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(spec.layout.root / "cni" / "addresses"),
                    "ranges": [[{"subnet": str(spec.network.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def corefile(spec: ClusterSpec) -> str:
    """The cluster's own names. There is no way out, so every other name does not exist, and that at once."""
    return f"""\
{DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {spec.network.node}
    errors
    health 127.0.0.1:8080
    ready {spec.network.node}:{DNS_READY_PORT}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {spec.layout.etc / "coredns.kubeconfig"}
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {spec.network.node}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def hosts(spec: ClusterSpec) -> str:
    """The components' /etc/hosts: who looks up the node's name waits for no name server, which is out of reach."""
    return f"127.0.0.1 localhost\n{spec.network.node} {spec.node_name}\n"


def _dns_objects(spec: ClusterSpec) -> list[Json]:
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": str(spec.network.dns_service),
                "ports": [{"name": name, "port": 53, "targetPort": 53, "protocol": kind} for name, kind in ports],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-node",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "localcluster",
                },
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [str(spec.network.node)], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": 53, "protocol": kind} for name, kind in ports],
        },
    ]


def _role(name: str, *, user: str, rules: list[Json]) -> list[Json]:
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
        },
    ]


COREDNS_USER = "system:coredns"
VOLUMES_USER = "localcluster:volumes"
PROMETHEUS_USER = "localcluster:prometheus"


def volume_name(index: int) -> str:
    """The name of a PersistentVolume and of its folder."""
    return f"standard-{index:02d}"


def _storage(spec: ClusterSpec) -> list[Json]:
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Retain",
    }
    volumes: list[Json] = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume_name(index)},
            "spec": {
                "storageClassName": "standard",
                "capacity": {"storage": VOLUME_SIZE},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(spec.layout.volumes / volume_name(index)), "type": "Directory"},
            },
        }
        for index in range(VOLUME_COUNT)
    ]
    return [storage_class, *volumes]


def base_objects(spec: ClusterSpec) -> list[Json]:
    """What every cluster has from the start."""
    return [
        *_role(
            "system:coredns",
            user=COREDNS_USER,
            rules=[
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        ),
        *_role(
            "localcluster:volumes",
            user=VOLUMES_USER,
            rules=[{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "patch"]}],
        ),
        *_dns_objects(spec),
        *_storage(spec),
    ]


def fake_node(name: str) -> Json:
    """A node that kwok plays. Only pods that tolerate its taint go there."""
    key, _, value = KWOK_SELECTOR.partition("=")
    capacity = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {key: value, "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/role": "agent",
            },
        },
        "spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }
