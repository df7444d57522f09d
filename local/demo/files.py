"""Files in a volume of the cluster, through a pod that mounts it: works on every cluster alike."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from demo.errors import DemoError
from demo.kube import Json, Kube, hopeless, troubled_pods
from demo.pods import waiting_pod

MOUNT: Final = "/mnt/pvc"
APP: Final = "demo-files"
_COPY_TIMEOUT_S = 600

_UNPACK: Final = """
import os, shutil, sys, tarfile
target = sys.argv[1]
partial = f"{os.path.dirname(target)}/.{os.path.basename(target)}.partial"
os.makedirs(os.path.dirname(target), exist_ok=True)
shutil.rmtree(partial, ignore_errors=True)
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    archive.extractall(partial)  # what the demo itself packed
shutil.rmtree(target, ignore_errors=True)
os.rename(partial, target)
"""
_PACK: Final = """
import sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    archive.add(sys.argv[1], arcname=".")
"""
_FETCH: Final = """
import os, shutil, subprocess, sys
uri, name, target = sys.argv[1:]
scratch = os.path.join(os.path.dirname(target), ".fetched")
subprocess.run(
    [sys.executable, "-m", "neurons.models", "fetch", "--uri", uri, "--name", name, "--dest", scratch], check=True
)
shutil.rmtree(target, ignore_errors=True)
os.rename(os.path.realpath(os.path.join(scratch, "current")), target)
"""
_REMOVE: Final = """
import shutil, sys
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
_READ: Final = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
sys.stdout.write(path.read_text() if path.is_file() else "")
"""


class Volume:
    """A claim, mounted read-write by a pod that lives while this is open. Paths start with `root`."""

    def __init__(self, kube: Kube, *, namespace: str, image: str, claim: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._image = image
        self._claim = claim
        self._pod_name = f"{APP}-{claim}"
        self.root = f"{MOUNT}/{claim}"
        """Where the pod mounts the claim; engine pods mount it in the same place."""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        """Start the pod; one that an earlier run left is removed.

        Raises:
            DemoError: it does not come up; with its events.
        """
        self._close()
        self._kube.apply(self._pod())
        try:
            self._kube.kubectl(
                "wait",
                "--for=condition=Ready",
                f"pod/{self._pod_name}",
                "-n",
                self._namespace,
                "--timeout=120s",
                timeout=130,
            )
        except DemoError as error:
            pods = self._kube.items("pods", "-n", self._namespace, "-l", f"app.kubernetes.io/name={APP}")
            raise DemoError(
                f"The pod that copies files into the claim {self._claim} did not start",
                evidence=troubled_pods(self._kube, self._namespace, f"app.kubernetes.io/name={APP}"),
                remedy="the image can't be pulled: see --registry and --tag"
                if any(hopeless(pod) for pod in pods)
                else "the events above say what it waits for (a volume, room on a node)",
            ) from error

    def _close(self) -> None:
        """Remove the pod."""
        self._kube.kubectl(
            "delete", "pod", self._pod_name, "-n", self._namespace, "--ignore-not-found", "--grace-period=0", "--force"
        )

    def read(self, path: str) -> str:
        """Return a text file's content; empty when it does not exist."""
        return self._kube.kubectl("exec", self._pod_name, "-n", self._namespace, "--", "python", "-c", _READ, path)

    def remove(self, path: str) -> None:
        """Remove a folder, if it is there."""
        self._kube.kubectl("exec", self._pod_name, "-n", self._namespace, "--", "python", "-c", _REMOVE, path)

    def fetch_model(self, uri: str, *, name: str, target: str) -> None:
        """Have the cluster fetch a base model from where it is published; raises DemoError."""
        command = ("python", "-c", _FETCH, uri, name, target)
        self._kube.kubectl("exec", self._pod_name, "-n", self._namespace, "--", *command, timeout=_COPY_TIMEOUT_S)

    def upload(self, folder: Path, target: str) -> None:
        """Copy a folder; it appears at `target` only when it is complete."""
        process = self._kube.popen(
            "exec",
            "-i",
            self._pod_name,
            "-n",
            self._namespace,
            "--",
            "python",
            "-c",
            _UNPACK,
            target,
            stdin=subprocess.PIPE,
        )
        try:
            if process.stdin is None:
                raise DemoError("kubectl has no standard input", remedy="run the demo again")
            with process.stdin as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
                archive.add(folder, arcname=".", filter=_anonymous)
        except BrokenPipeError:
            pass  # the far end ended early; it says why below
        self._finish(process, f"Copying {folder.name} to {target}")

    def download(self, source: str, folder: Path) -> None:
        """Copy a folder from the cluster; it appears only when it is complete."""
        process = self._kube.popen("exec", self._pod_name, "-n", self._namespace, "--", "python", "-c", _PACK, source)
        output, _error = process.communicate(timeout=_COPY_TIMEOUT_S)
        if process.returncode != 0:
            raise DemoError(f"Copying {source} from the cluster failed", remedy="run the demo again")
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(output)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:  # an adapter's folder is flat
                    (partial / Path(member.name).name).write_bytes(content.read())
        partial.rename(folder)

    @staticmethod
    def _finish(process: subprocess.Popen[bytes], what: str) -> None:
        try:
            process.wait(timeout=_COPY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise DemoError(f"{what} took longer than {_COPY_TIMEOUT_S} s", remedy="run the demo again") from None
        said = process.stderr.read().decode(errors="replace") if process.stderr else ""
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if process.returncode != 0:
            raise DemoError(f"{what} failed", evidence=said.strip()[-2000:], remedy="run the demo again")

    def _pod(self) -> Json:
        return waiting_pod(
            self._pod_name,
            "files",
            namespace=self._namespace,
            app=APP,
            image=self._image,
            memory="1Gi",
            mount={"mountPath": self.root},
            volume={"persistentVolumeClaim": {"claimName": self._claim}},
        )


def folder_digest(folder: Path) -> str:
    """Return a digest over the names and contents of a folder's files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)} {content}\n".encode())
    return total.hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 65532
    member.uname = member.gname = ""
    return member
