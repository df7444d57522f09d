"""One cluster: up, down, and what it is used with."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from localcluster import cgroups, config, images, network, pki, tools, volumes
from localcluster import preflight as machine
from localcluster.apiclient import ApiClient, ApiError
from localcluster.config import ClusterSpec
from localcluster.errors import ImageError, LocalClusterError, StartError
from localcluster.layout import Layout, locked
from localcluster.steps import LoggedSteps, Steps

_INIT_TIMEOUT_S = 20.0
_READY_TIMEOUT_S = 180.0
_RECOVERY_TIMEOUT_S = 60.0
_DEATH_TIMEOUT_S = 30.0
_POLL_S = 0.1
_KUBECTL_TIMEOUT_S = 300.0
_NODES = "/api/v1/nodes"

# What the kubelet demands of the kernel. It is shown these values; the machine keeps its own.
_PRETENDED_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0"}


@dataclass(frozen=True)
class Init:
    """The process that holds a cluster's namespaces, told from a later one with the same number."""

    pid: int
    started: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> Init | None:
        """The process ``pid`` as it is now; None when there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid=pid, started=fields[18], boot=boot)


@dataclass(frozen=True)
class ComponentStatus:
    """What the supervisor says of one component."""

    name: str
    pid: int
    """Within the cluster's own PID namespace; 0 while it does not run."""
    restarts: int
    last_exit: int | None
    finished: bool


@dataclass(frozen=True)
class Status:
    """A cluster as it is now."""

    name: str
    running: bool
    ready: bool
    components: tuple[ComponentStatus, ...] = ()
    nodes: tuple[tuple[str, bool], ...] = ()
    memory_bytes: int | None = None
    """What the control plane and the pods use together."""


class Cluster:
    """A cluster of this machine, by name. Making one of these touches nothing."""

    def __init__(
        self, name: str = "demo", *, state: Path | None = None, audit: bool | None = None, steps: Steps | None = None
    ) -> None:
        self.layout = Layout.of(name, root=state)
        self.name = name
        self.audit = name == "test" if audit is None else audit
        self._steps: Steps = steps or LoggedSteps()
        self._launcher: subprocess.Popen[bytes] | None = None

    # What others use.

    @property
    def kubeconfig_path(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON line per write to the API, where the cluster keeps an audit log."""
        return self.layout.audit_log

    @property
    def network(self) -> network.Network:
        """The cluster's addresses."""
        return network.allocate(self.name, registry=self._registry)

    @property
    def running(self) -> bool:
        """Whether its processes exist."""
        return self._init() is not None

    @staticmethod
    def bin(program: str) -> Path:
        """The path of kubectl, helm, kwok, versitygw, …; built first when need be."""
        return tools.build(tools.tool_of(program)) / program

    def client(self) -> ApiClient:
        """A small client with the administrator's rights."""
        return ApiClient(self.kubeconfig_path)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = _KUBECTL_TIMEOUT_S) -> str:
        """Run kubectl against this cluster and return what it printed.

        Raises:
            LocalClusterError: it failed; the message is kubectl's.
        """
        command = [str(self.bin("kubectl")), f"--kubeconfig={self.kubeconfig_path}", *arguments]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise LocalClusterError(
                f"`kubectl {' '.join(arguments)}` took longer than {timeout_s:.0f} s", remedy="see what it waits for"
            ) from None
        if done.returncode != 0:
            raise LocalClusterError(
                f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}", remedy="see the message above"
            )
        return done.stdout

    # Up.

    def preflight(self, *, memory_gb: float = machine.MEMORY_GB, disk_gb: float | None = None) -> None:
        """Check the machine, and install Debian packages that are missing.

        Raises:
            PreflightError: something is missing that can't be installed from here.
        """
        wanted = tuple(tool for tool in tools.TOOLS if tool.for_cluster)
        if os.geteuid() == 0:
            machine.install_packages(self._steps.note)
        findings = machine.check(tools=wanted, memory_gb=memory_gb, disk_gb=disk_gb)
        machine.require(findings)
        for finding in findings:
            if finding.remedy:
                self._steps.note(f"{finding.name}: {finding.found} ({finding.remedy})")

    def build(self, names: Sequence[str] = ()) -> None:
        """Build the named tools of `tools.TOOLS`, or all of them."""
        for tool in tools.TOOLS:
            if (not names or tool.name in names) and not tool.built:
                with self._steps.step(f"build {tool.name}"):
                    tools.build(tool)

    def up(self, *, memory_gb: float = machine.MEMORY_GB, disk_gb: float | None = None) -> None:
        """Bring the cluster up, unless it is.

        A cluster that is up and answers is left alone. Whatever else is left of an earlier run is removed first.
        Objects never survive; images do.

        Raises:
            LocalClusterError: what failed, with the end of its log and what to do.
        """
        with self._lock():
            if self._healthy():
                return
            with self._steps.step("check the machine"):
                self.preflight(memory_gb=memory_gb, disk_gb=disk_gb)
                if machine.raise_inotify_limit():
                    self._steps.note("raised this machine's fs.inotify.max_user_instances")
            self.build([tool.name for tool in tools.TOOLS if tool.for_cluster])
            with self._steps.step("clear what an earlier run left"):
                self._clear()
            try:
                self._start()
            except BaseException:
                # Half a cluster would only be in the way; its logs stay.
                self._kill()
                raise

    def _start(self) -> None:
        spec = self._spec()
        with self._steps.step("write certificates and configuration"):
            self._write(spec)
        with self._steps.step("start the API server"):
            self._launch(spec)
            client = self.client()
            self._await(client.ready, what="the API server is not ready", log="kube-apiserver")
        with self._steps.step("create storage, DNS and rights"):
            client.apply(config.base_objects(spec))
            self.layout.furnished.touch()
        with self._steps.step("wait for the node and DNS"):
            self._await(lambda: self._node_ready(client, spec), what="the node is not ready", log="kubelet")
            self._await(lambda: self._usable(client), what="no ServiceAccount appears", log="kube-controller-manager")
            self._await(lambda: self._dns_ready(spec), what="DNS is not ready", log="coredns")
        self._publish(spec)

    def _spec(self) -> ClusterSpec:
        programs = {
            binary: tool.folder / binary for tool in tools.TOOLS if tool.for_cluster for binary, _ in tool.packages
        }
        return ClusterSpec(
            layout=self.layout,
            network=self.network,
            binaries=programs,
            audit=self.audit,
            python=sys.executable,
            package_root=Path(__file__).resolve().parent.parent,
        )

    def _write(self, spec: ClusterSpec) -> None:
        layout = self.layout
        layout.root.mkdir(parents=True, exist_ok=True)
        layout.root.chmod(0o711)
        for folder in (layout.etc, layout.etc / "cni", layout.pki, layout.log, layout.sockets, layout.volumes):
            folder.mkdir(parents=True)
        for folder in (layout.pki, layout.etc):
            folder.chmod(0o700)
        for name in ("kubelet", "cni", "flexvolumes"):
            (layout.root / name).mkdir()
        for index in range(config.VOLUME_COUNT):
            volumes.prepare(layout.volumes / config.volume_name(index))
        self._write_pki(spec)
        files = {
            "kubelet.json": json.dumps(config.kubelet_configuration(spec), indent=1),
            "kube-proxy.json": json.dumps(config.kube_proxy_configuration(spec), indent=1),
            "audit-policy.json": json.dumps(config.audit_policy(), indent=1),
            "cni/10-pods.conflist": json.dumps(config.cni_configuration(spec), indent=1),
            "containerd.toml": config.containerd_toml(spec),
            "containerd-scrub.toml": config.containerd_toml(spec, with_cri=False),
            "Corefile": config.corefile(spec),
            "prometheus.yml": json.dumps(config.prometheus_configuration(spec), indent=1),
            "hosts": config.hosts(spec),
            "resolv.conf": f"nameserver {spec.network.dns_service}\n",
        }
        for file, content in files.items():
            (layout.etc / file).write_text(content, encoding="utf-8")
        pause = tools.build(tools.tool_of("pause")) / "pause"
        images.write_pause_archive(pause, layout.etc / "pause.tar", name=config.PAUSE_IMAGE)
        self._write_spec(spec, config.components(spec))

    def _write_pki(self, spec: ClusterSpec) -> None:
        folder, etc, addresses = self.layout.pki, self.layout.etc, spec.network
        authority, front = pki.Authority("kubernetes-ca"), pki.Authority("front-proxy-ca")
        service = f"kubernetes.default.svc.{config.DOMAIN}"
        pairs = {
            "ca": authority.pair,
            "front-proxy-ca": front.pair,
            "front-proxy-client": front.client("front-proxy-client"),
            "service-account": pki.signing_key(),
            "apiserver": authority.server(
                "kube-apiserver",
                names=["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", service],
                addresses=[addresses.node, addresses.api_service, IPv4Address("127.0.0.1")],
            ),
            "apiserver-kubelet-client": authority.client(
                "kube-apiserver-kubelet-client", organization="system:masters"
            ),
            "kubelet-server": authority.server(spec.node_name, names=[spec.node_name], addresses=[addresses.node]),
        }
        for name, pair in pairs.items():
            pair.write(folder, name)
        clients = {
            etc / "kube-controller-manager.kubeconfig": ("system:kube-controller-manager", None),
            etc / "kube-scheduler.kubeconfig": ("system:kube-scheduler", None),
            etc / "kube-proxy.kubeconfig": ("system:kube-proxy", None),
            etc / "kubelet.kubeconfig": (f"system:node:{spec.node_name}", "system:nodes"),
            etc / "coredns.kubeconfig": (config.COREDNS_USER, None),
            etc / "volumes.kubeconfig": (config.VOLUMES_USER, None),
            etc / "kwok.kubeconfig": ("localcluster:kwok", "system:masters"),
            etc / "prometheus.kubeconfig": (config.PROMETHEUS_USER, None),
            self.layout.kubeconfig: ("admin", "system:masters"),
        }
        for path, (user, group) in clients.items():
            content = pki.kubeconfig(
                cluster=self.name,
                server=spec.api_url,
                authority=authority.pair.certificate,
                client=authority.client(user, organization=group),
            )
            pki.write_private(path, json.dumps(content, indent=1).encode())

    def _write_spec(self, spec: ClusterSpec, components: Sequence[config.Component]) -> None:
        layout = self.layout
        content = {
            "hostname": spec.node_name,
            "binds": [
                [str(layout.root / "kubelet"), str(config.KUBELET_ROOT)],
                [str(layout.root / "cni"), "/var/lib/cni"],
                [str(layout.etc / "hosts"), "/etc/hosts"],
            ],
            "pretended_sysctls": _PRETENDED_SYSCTLS,
            "sysctls": _SYSCTLS,
            "log": str(layout.log),
            "status": str(layout.components),
            "environment": {
                "PATH": config.PROGRAM_PATH,
                "HOME": "/root",
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(spec.package_root),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            "components": [component.to_json() for component in components],
        }
        partial = layout.spec.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.rename(layout.spec)

    def _launch(self, spec: ClusterSpec) -> None:
        layout = self.layout
        cgroups.create(spec.cgroup)
        for target in (config.KUBELET_ROOT, Path("/var/lib/cni")):
            target.mkdir(parents=True, exist_ok=True)
        command = [
            *("unshare", "--mount", "--pid", "--net", "--uts", "--ipc"),
            *("--fork", "--kill-child", "--propagation=private", "--mount-proc"),
            *(sys.executable, "-m", "localcluster.supervisor", str(layout.spec)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(spec.package_root), "PYTHONDONTWRITEBYTECODE": "1"}
        with (layout.log / "supervisor.log").open("ab") as log:
            launcher = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True, cwd="/"
            )
        self._launcher = launcher
        cgroups.add(spec.cgroup, launcher.pid)
        pid = self._await_child(launcher)
        cgroups.add(spec.cgroup, pid)
        init = Init.of(pid)
        if init is None:
            raise StartError("the supervisor ended at once", remedy=self._retry, log=layout.log / "supervisor.log")
        layout.init.write_text(json.dumps(init.__dict__), encoding="utf-8")
        network.connect(self.name, spec.network, pid=pid)
        if launcher.stdin is not None:
            launcher.stdin.write(b"go\n")
            launcher.stdin.close()

    def _await_child(self, launcher: subprocess.Popen[bytes]) -> int:
        """The supervisor, once ``unshare`` has become its parent."""
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
        deadline = time.monotonic() + _INIT_TIMEOUT_S
        while time.monotonic() < deadline and launcher.poll() is None:
            with suppress(OSError):
                found = children.read_text(encoding="utf-8").split()
                if found:
                    return int(found[0])
            time.sleep(0.02)
        raise StartError(
            "the namespaces could not be made",
            remedy="check that you are root and may make namespaces (`unshare --mount --pid --net --fork true`)",
            log=self.layout.log / "supervisor.log",
        )

    def _await(
        self, condition: Callable[[], bool], *, what: str, log: str, timeout_s: float = _READY_TIMEOUT_S
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.running:
                raise StartError("the supervisor ended", remedy=self._retry, log=self.layout.log / "supervisor.log")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{what} after {timeout_s:.0f} s", remedy=self._retry, log=self.layout.log / f"{log}.log"
                )
            time.sleep(_POLL_S)

    @property
    def _retry(self) -> str:
        return f"read the logs in {self.layout.log}, then run the same command again: it starts afresh"

    @staticmethod
    def _node_ready(client: ApiClient, spec: ClusterSpec) -> bool:
        try:
            node = client.request("GET", f"{_NODES}/{spec.node_name}")
        except (ApiError, OSError):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    @staticmethod
    def _usable(client: ApiClient) -> bool:
        try:
            client.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        except (ApiError, OSError):
            return False
        return True

    @staticmethod
    def _dns_ready(spec: ClusterSpec) -> bool:
        return _answers(str(spec.network.node), config.DNS_READY_PORT, "/ready")

    def _publish(self, spec: ClusterSpec) -> None:
        self._steps.note(f"cluster {self.name} is up: export KUBECONFIG={self.kubeconfig_path}")
        self._steps.note(f"node {spec.node_name} at {spec.network.node}, pods {spec.network.pods}")

    def _healthy(self) -> bool:
        """Whether the cluster is up and answers. One that has just lost a component gets time to get it back."""
        if not self.running or not self.layout.furnished.is_file():
            return False
        try:
            client, spec = self.client(), self._spec()
            for what, log, condition in (
                ("the API server is not ready", "kube-apiserver", client.ready),
                ("the node is not ready", "kubelet", lambda: self._node_ready(client, spec)),
                ("DNS is not ready", "coredns", lambda: self._dns_ready(spec)),
            ):
                self._await(condition, what=what, log=log, timeout_s=_RECOVERY_TIMEOUT_S)
        except (StartError, OSError, ValueError, KeyError) as error:
            self._steps.note(f"cluster {self.name} runs, but does not recover, so it is started afresh: {error}")
            return False
        return True

    # Down.

    def down(self, *, purge: bool = False) -> None:
        """End every process of the cluster, and with them its namespaces, mounts, interfaces and cgroups.

        Images are kept for the next start. ``purge`` removes them too, and everything else that the cluster kept.
        """
        with self._lock():
            self._kill()
            self._remove_runtime_state()
            if purge:
                shutil.rmtree(self.layout.root, ignore_errors=True)
                network.release(self.name, registry=self._registry)
        if purge:
            self.layout.lock.unlink(missing_ok=True)

    def _init(self) -> Init | None:
        try:
            known = Init(**json.loads(self.layout.init.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return known if Init.of(known.pid) == known else None

    def _kill(self) -> None:
        init = self._init()
        if init is not None:
            with suppress(ProcessLookupError):
                os.kill(init.pid, signal.SIGKILL)
            deadline = time.monotonic() + _DEATH_TIMEOUT_S
            while Init.of(init.pid) == init and time.monotonic() < deadline:
                time.sleep(0.02)
        try:
            cgroups.remove(f"bt-{self.name}")
        except TimeoutError as error:
            raise StartError(
                f"processes of cluster {self.name} won't end: {error}",
                remedy="see `ps` for what they wait for (state D is the disk or the kernel), then run it again",
            ) from error
        network.disconnect(self.name)
        if self._launcher is not None:
            self._launcher.wait(timeout=_DEATH_TIMEOUT_S)
            self._launcher = None
        self.layout.init.unlink(missing_ok=True)

    def _clear(self) -> None:
        self._kill()
        previous = self.layout.root / "log.previous"
        shutil.rmtree(previous, ignore_errors=True)
        if self.layout.log.is_dir():
            self.layout.log.rename(previous)
        self._remove_runtime_state()

    def _remove_runtime_state(self) -> None:
        layout = self.layout
        for folder in (layout.etc, layout.pki, layout.sockets, layout.volumes):
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("etcd", "kubelet", "cni", "flexvolumes", "prometheus"):
            shutil.rmtree(layout.root / name, ignore_errors=True)
        for file in (layout.kubeconfig, layout.spec, layout.components, layout.init):
            file.unlink(missing_ok=True)

    @property
    def _registry(self) -> Path:
        return self.layout.root.parent / "networks.json"

    def _lock(self) -> AbstractContextManager[None]:
        """One start or end at a time; a second one waits."""
        return locked(self.layout.lock)

    # What it is used for.

    def status(self) -> Status:
        """The cluster as it is now."""
        if not self.running:
            return Status(name=self.name, running=False, ready=False)
        components: list[ComponentStatus] = []
        with suppress(OSError, ValueError):
            reported = json.loads(self.layout.components.read_text(encoding="utf-8"))
            components = [ComponentStatus(name=name, **values) for name, values in reported.items()]
        nodes: list[tuple[str, bool]] = []
        ready = False
        with suppress(OSError, ApiError, ValueError):
            client = self.client()
            ready = client.ready()
            for node in client.request("GET", _NODES)["items"]:
                conditions = node.get("status", {}).get("conditions", [])
                is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                nodes.append((node["metadata"]["name"], is_ready))
        return Status(
            name=self.name,
            running=True,
            ready=ready and bool(nodes),
            components=tuple(components),
            nodes=tuple(nodes),
            memory_bytes=cgroups.memory_bytes(f"bt-{self.name}"),
        )

    def load_images(self, archives: Sequence[Path | str]) -> list[str]:
        """Import ``docker save`` archives; those whose images are there already take no time.

        Returns:
            The images' full names, such as ``docker.io/bettertherapy/operator:0.1.0``.

        Raises:
            ImageError: an archive can't be read or imported, or the cluster is down.
        """
        if not self.running:
            raise ImageError(
                f"cluster {self.name} is down", remedy=f"bring it up first: localcluster --name {self.name} up"
            )
        store = images.ImageStore(socket=self.layout.containerd_socket, root=self.layout.containerd)
        names: list[str] = []
        with locked(self.layout.sockets / "images.lock"):
            for path in archives:
                archive = images.read_archive(Path(path))
                with self._steps.step(f"image {', '.join(archive.names)}"):
                    store.load(archive)
                names += archive.names
        return names

    def kwok(self, nodes: int, *, timeout_s: float = 120.0) -> list[str]:
        """Have exactly ``nodes`` fake nodes, played by kwok; 0 removes them and ends kwok.

        Pods go there when they tolerate the taint ``kwok.x-k8s.io/node=fake:NoSchedule`` and select ``type=kwok``.
        """
        if not self.running:
            raise StartError(f"cluster {self.name} is down", remedy="bring it up first")
        binary = self.bin("kwok")
        spec, client = self._spec(), self.client()
        wanted = [f"kwok-{index:04d}" for index in range(nodes)]
        with self._lock():
            self._set_extra("kwok", config.kwok(spec, binary=binary) if nodes else None)
            present = client.request("GET", f"{_NODES}?labelSelector=type%3Dkwok")["items"]
            names = {node["metadata"]["name"] for node in present}
            with closing(client.connect()) as connection:
                for name in sorted(names.difference(wanted)):
                    client.request("DELETE", f"{_NODES}/{name}", connection=connection)
                for name in sorted(set(wanted) - names):
                    client.request("POST", _NODES, config.fake_node(name), connection=connection)
        deadline = time.monotonic() + timeout_s
        while sum(ready for name, ready in self.status().nodes if name in set(wanted)) < nodes:
            if time.monotonic() > deadline:
                raise StartError(
                    f"the fake nodes are not ready after {timeout_s:.0f} s",
                    remedy=self._retry,
                    log=self.layout.log / "kwok.log",
                )
            time.sleep(0.2)
        return wanted

    def prometheus(self, *, timeout_s: float = 60.0) -> str:
        """Have a Prometheus that scrapes every pod of the project; returns its URL, the same for pods and this machine.

        Raises:
            LocalClusterError: it can't be built, or does not come up.
        """
        if not self.running:
            raise StartError(f"cluster {self.name} is down", remedy="bring it up first")
        binary, spec = self.bin("prometheus"), self._spec()
        if not (self.layout.etc / "prometheus.kubeconfig").is_file():
            raise StartError(
                f"cluster {self.name} was started by a version that had no Prometheus",
                remedy="end it and start it again: its images stay",
            )
        with self._steps.step("Prometheus"):
            with self._lock():
                self.client().apply(config.prometheus_objects())
                self._set_extra("prometheus", config.prometheus(spec, binary=binary))
            self._await(
                lambda: _answers(str(spec.network.node), config.PROMETHEUS_PORT, "/-/ready"),
                what="Prometheus is not ready", log="prometheus", timeout_s=timeout_s,
            )  # fmt: skip
        return f"http://{spec.network.node}:{config.PROMETHEUS_PORT}"

    def _set_extra(self, name: str, component: config.Component | None) -> None:
        """Run a component that not every cluster has, or end it; other such components stay as they are."""
        spec = self._spec()
        base = config.components(spec)
        known = {each.name for each in base} | {name}
        told = json.loads(self.layout.spec.read_text(encoding="utf-8"))["components"]
        others = [config.Component.from_json(entry) for entry in told if entry["name"] not in known]
        self._write_spec(spec, [*base, *others, *([component] if component is not None else [])])
        init = self._init()
        if init is not None:
            os.kill(init.pid, signal.SIGHUP)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
