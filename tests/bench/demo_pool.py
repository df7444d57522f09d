"""The demo's pool, with the real engine: what is measured on it, and how it is left as it was found."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, Lineage, manifest_digest
from bettertherapy_api.report import AdapterState, PodReport
from demo.errors import DemoError
from demo.files import MOUNT, Volume
from demo.installation import NAMESPACE, POOL, STORE_CLAIM
from demo.kube import Kube
from localcluster import Cluster
from localcluster.errors import LocalClusterError
from tests.bench import versions
from tests.bench.registry import BenchmarkError

SETTLE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Version:
    """One version of the bench's twin, in the store."""

    uri: str
    digest: str
    rank: int


@dataclass(frozen=True)
class DemoPool:
    """The pool `clinic` of the cluster `demo`."""

    cluster: Cluster
    kube: Kube
    namespace: str = NAMESPACE
    name: str = POOL

    @classmethod
    def connect_or_note(cls, notes: list[str]) -> DemoPool | None:
        """Return the pool; None where it is not well, which a further note then says."""
        try:
            return cls.connect()
        except BenchmarkError as error:
            notes.append(f"Not measured on the real vLLM: {error}")
            return None

    @classmethod
    def connect(cls) -> DemoPool:
        """Return the pool; raises BenchmarkError unless it is up, and its twins and pods are well."""
        cluster = Cluster("demo")
        if not cluster.running:
            raise BenchmarkError("the demo's cluster is down: run `make demo` first")
        pool = cls(
            cluster,
            Kube(
                kubectl_program=str(cluster.bin("kubectl")), helm_program="helm", kubeconfig=cluster.kubeconfig_path
            ),
        )  # fmt: skip
        with _explained():
            if not pool.twins() or not pool.engine_pods():
                raise BenchmarkError("the demo's pool has no twins or no engine: run `make demo` first")
            pool.settle()
        return pool

    def twins(self) -> list[dict[str, Any]]:
        """Return the twins there are."""
        return self.kube.items("doctortwins", "-n", self.namespace)

    def engine_pods(self) -> list[str]:
        """Return the names of the engine pods that are not on their way out."""
        return [pod["metadata"]["name"] for pod in self._pods("engine")]

    def miner_url(self) -> str:
        """Return where the miner answers; pods of the local cluster can be reached from this machine."""
        address = next(pod["status"]["podIP"] for pod in self._pods("miner") if pod["status"].get("podIP"))
        return f"http://{address}:{names.MINER_PORT}"

    def token(self) -> str:
        """Return a token that the miner takes."""
        secret = self.kube.get("secret", names.access_secret_name(self.name), "-n", self.namespace) or {}
        return base64.b64decode(next(iter(secret["data"].values()))).decode().strip()

    def reports(self) -> list[PodReport]:
        """Return what the agents say now."""
        found = self.kube.get("podreports", "-n", self.namespace, "-l", f"{names.LABEL_POOL}={self.name}") or {}
        return [PodReport.model_validate(thing) for thing in found.get("items") or []]

    def software(self) -> dict[str, str]:
        """Return what runs there, as it says itself."""
        engines = {report.engine.version for report in self.reports() if report.engine.version}
        return {"vLLM": ", ".join(sorted(engines)), **versions.of_cluster(self.cluster), **versions.of_python()}

    def settle(self) -> None:
        """Wait until all twins are Ready and every pod holds what it should; raises BenchmarkError."""
        deadline, waiting = time.monotonic() + SETTLE_SECONDS, ["no report"]
        while time.monotonic() < deadline:
            waiting = [twin["metadata"]["name"] for twin in self.twins() if not _is_ready(twin)]
            reports = self.reports()
            waiting += [report.pod.name for report in reports if not report.ready]
            waiting += [
                name
                for report in reports
                for name, adapter in report.adapters.items()
                if adapter.state is not AdapterState.VERIFIED
            ]
            if reports and not waiting:
                return
            time.sleep(_POLL_SECONDS)
        raise BenchmarkError(f"the demo's pool doesn't come to rest: {', '.join(waiting)}; see `make demo`")

    def twin_manifest(self, name: str, version: Version) -> dict[str, Any]:
        """Return a twin for the bench that this pool serves."""
        model = self.twins()[0]["spec"]
        return {
            "apiVersion": names.API_VERSION,
            "kind": "DoctorTwin",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "doctor": {"name": "Dr. Bench", "licence": "BENCH-1"},
                "baseModel": {"name": model["baseModel"]["name"]},
                "poolSelector": model["poolSelector"],
                "adapter": {"uri": version.uri, "digest": version.digest, "rank": version.rank},
            },
        }

    @contextlib.contextmanager
    def twin_gone_afterwards(self, name: str) -> Iterator[None]:
        """Delete the twin at the end, and wait until no engine holds a version of it; an earlier run's goes first."""
        self._remove(name)
        try:
            yield
        finally:
            self._remove(name)

    @contextlib.contextmanager
    def versions(self, twin: str, count: int) -> Iterator[list[Version]]:
        """Have so many versions of one adapter in the store while the block lasts.

        They are the first twin's adapter, with another `run` in the manifest's lineage: other digests, and so other
        names and folders, with the weights and the fingerprint that belong together. Nothing is trained.
        """
        with _explained(), self._store() as store, tempfile.TemporaryDirectory() as scratch:
            folder = f"{store.root}/adapters/{twin}"
            source = next(found["status"]["activeVersion"] for found in self.twins() if found.get("status"))
            original, made = Path(scratch, "original"), Path(scratch, "made")
            store.download(f"{MOUNT}/{source['uri'].removeprefix('pvc://')}", original)
            digests = _write_versions(original, made, count)
            store.upload(made, folder)
        try:
            root = f"pvc://{STORE_CLAIM}/adapters/{twin}"
            yield [
                Version(f"{root}/{names.digest_hex(digest)}", digest, source["rank"]) for digest in digests
            ]  # fmt: skip
        finally:
            with _explained(), self._store() as store:
                store.remove(folder)

    def _store(self) -> Volume:
        miner = self.kube.get("deployment", names.miner_name(self.name), "-n", self.namespace) or {}
        image = miner["spec"]["template"]["spec"]["containers"][0]["image"]
        return Volume(self.kube, namespace=self.namespace, image=image, claim=STORE_CLAIM)

    def _pods(self, component: str) -> list[dict[str, Any]]:
        selector = f"{names.LABEL_POOL}={self.name},{names.LABEL_COMPONENT}={component}"
        found = self.kube.items("pods", "-n", self.namespace, "-l", selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def _remove(self, twin: str) -> None:
        with _explained():
            self.kube.kubectl("delete", "doctortwin", twin, "-n", self.namespace, "--ignore-not-found", timeout=90)
            deadline = time.monotonic() + _AWAY_SECONDS
            while any(held.twin == twin for report in self.reports() for held in report.adapters.values()):
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"an engine still holds a version of {twin} after {_AWAY_SECONDS:.0f} s")
                time.sleep(_POLL_SECONDS)


def _write_versions(original: Path, made: Path, count: int) -> list[str]:
    """Make a folder with `count` versions of an adapter that share their files by hard links; returns the digests."""
    manifest = AdapterManifest.model_validate_json((original / MANIFEST_FILE).read_bytes())
    digests = []
    for number in range(count):
        lineage = Lineage(**manifest.lineage.model_dump() | {"run": f"bench-{number}"})
        data = manifest.model_copy(update={"lineage": lineage}).to_bytes()
        digest = manifest_digest(data)
        folder = made / names.digest_hex(digest)
        folder.mkdir(parents=True)
        for entry in manifest.files:
            os.link(original / entry.path, folder / entry.path)
        (folder / MANIFEST_FILE).write_bytes(data)
        digests.append(digest)
    return digests


def _is_ready(twin: dict[str, Any]) -> bool:
    conditions = (twin.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what the demo's tools say into a BenchmarkError."""
    try:
        yield
    except DemoError as error:
        raise BenchmarkError(f"{error.what}: {error.evidence or error.remedy}") from error
    except LocalClusterError as error:
        raise BenchmarkError(str(error)) from error
    except (KeyError, StopIteration, json.JSONDecodeError) as error:
        raise BenchmarkError(f"the demo's cluster is not as `make demo` leaves it: {error!r}") from error
