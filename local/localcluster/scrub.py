"""Removes the containers of an earlier run from containerd's store and keeps its images.

containerd is started without its Kubernetes part for that: that part would remember containers that are gone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

_START_TIMEOUT_S = 30.0
_CTR_TIMEOUT_S = 120


def _ctr(socket: Path, *arguments: str) -> str:
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_CTR_TIMEOUT_S).stdout


def scrub(configuration: Path) -> None:
    """Remove every container and its writable layer."""
    settings = tomllib.loads(configuration.read_text(encoding="utf-8"))
    socket, root = Path(settings["grpc"]["address"]), Path(settings["root"])
    if not (root / "io.containerd.metadata.v1.bolt" / "meta.db").is_file():
        return
    for kind in ("containers", "sandboxes"):
        shutil.rmtree(root / "io.containerd.grpc.v1.cri" / kind, ignore_errors=True)
    shutil.rmtree(root / "io.containerd.runtime.v2.task", ignore_errors=True)
    containerd = subprocess.Popen(["containerd", "--config", str(configuration)])
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                left = _ctr(socket, "containers", "list", "--quiet").split()
                break
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        if left:
            _ctr(socket, "containers", "delete", *left)
        print(f"removed {len(left)} containers of an earlier run", flush=True)
    finally:
        containerd.terminate()
        containerd.wait(timeout=_START_TIMEOUT_S)


def main() -> None:
    """Scrub, then say so by a file. A store that can't be scrubbed is given up: images can be imported again."""
    etc, done = Path(sys.argv[1]), Path(sys.argv[2])
    configuration = etc / "containerd-scrub.toml"
    try:
        scrub(configuration)
    except (OSError, subprocess.SubprocessError) as error:
        root = Path(tomllib.loads(configuration.read_text(encoding="utf-8"))["root"])
        print(f"{root} can't be used any more and is removed: {error}", flush=True)
        shutil.rmtree(root, ignore_errors=True)
    done.touch()


if __name__ == "__main__":
    main()
