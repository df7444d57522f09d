"""kubectl and helm, run as programs; and what a person would look at when something does not come up."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from demo.errors import DemoError

Json = dict[str, Any]

_TIMEOUT_S = 60.0
_EVENTS = 8
_LOG_LINES = 15


@dataclass(frozen=True)
class Kube:
    """One cluster, through its command line tools."""

    kubectl_program: str
    helm_program: str
    kubeconfig: Path | None
    """None: whatever the environment says."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment that both programs run in."""
        env = dict(os.environ)
        if self.kubeconfig is not None:
            env["KUBECONFIG"] = str(self.kubeconfig)
        return env

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout: float = _TIMEOUT_S, check: bool = True
    ) -> str:
        """Run kubectl and return what it printed.

        Raises:
            DemoError: it failed (unless `check` is off), or took longer than `timeout` seconds.
        """
        return self._run([self.kubectl_program, *arguments], stdin=stdin, timeout=timeout, check=check)

    def helm(self, *arguments: str, timeout: float = _TIMEOUT_S) -> str:
        """Run helm; raises as `kubectl`."""
        return self._run([self.helm_program, *arguments], stdin=None, timeout=timeout, check=True)

    def apply(self, *objects: Json) -> None:
        """Apply objects server-side; raises as `kubectl`."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-", stdin=text)

    def patch(self, kind: str, name: str, change: Json, *, namespace: str) -> None:
        """Merge a change into an object; raises as `kubectl`."""
        self.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(change))

    def get(self, *arguments: str) -> Json | None:
        """Return an object or list as JSON; None when it does not exist. Raises as `kubectl`."""
        text = self.kubectl("get", "-o", "json", "--ignore-not-found", *arguments)
        return cast(Json, json.loads(text)) if text.strip() else None

    def items(self, *arguments: str) -> list[Json]:
        """Return the objects of a list."""
        return list((self.get(*arguments) or {}).get("items") or [])

    def popen(self, *arguments: str, stdin: IO[bytes] | int | None = None) -> subprocess.Popen[bytes]:
        """Start kubectl with its output as a pipe; the caller waits for it."""
        return subprocess.Popen(
            [self.kubectl_program, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    @contextmanager
    def forwarded(self, target: str, port: int, *, namespace: str, local: int | None = None) -> Iterator[str]:
        """Forward a port of this machine, while this is entered, to that of a pod; returns its URL.

        `target` is a pod, or what has pods, such as `deployment/NAME`; `local` is the port here, any free one if not
        given. Raises DemoError when none can be had.
        """
        ports = f"{local or ''}:{port}"
        process = self.popen("port-forward", target, "-n", namespace, ports)
        output, errors = process.stdout, process.stderr
        try:
            told = output.readline() if output and select.select([output], [], [], _TIMEOUT_S)[0] else b""
            found = re.search(rb"127\.0\.0\.1:(\d+)", told)
            if found is None:
                process.terminate()
                said = errors.read().decode(errors="replace").strip() if errors else ""
                raise DemoError(
                    f"`kubectl port-forward {target} -n {namespace} {ports}` gave no port",
                    evidence=said[-2000:],
                    remedy="the message above says why; running the demo again goes on from here",
                )
            yield f"http://127.0.0.1:{int(found[1])}"
        finally:
            process.terminate()
            process.wait()
            for stream in (output, errors):
                if stream is not None:
                    stream.close()

    def _run(self, command: Sequence[str], *, stdin: str | None, timeout: float, check: bool) -> str:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        try:
            done = subprocess.run(
                list(command),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                env=self.environment,
            )
        except subprocess.TimeoutExpired:
            raise DemoError(
                f"`{shown}` took longer than {timeout:.0f} s",
                remedy="run the command by hand to see what it waits for; running the demo again goes on from here",
            ) from None
        if check and done.returncode != 0:
            raise DemoError(
                f"`{shown}` failed",
                evidence=(done.stderr.strip() or done.stdout.strip())[-2000:],
                remedy="the message above says why; running the demo again goes on from here",
            )
        return done.stdout


def troubled_pods(kube: Kube, namespace: str, selector: str = "") -> str:
    """Return what is wrong with the pods that are not ready: states, events, the ends of their logs."""
    arguments = ["pods", "-n", namespace, *(["-l", selector] if selector else [])]
    report: list[str] = []
    for pod in kube.items(*arguments):
        lines = pod_trouble(pod)
        if not lines:
            continue
        name = pod["metadata"]["name"]
        report.append(f"pod {name}: {pod.get('status', {}).get('phase', '?')}")
        report += [f"  {line}" for line in lines]
        events = kube.items("events", "-n", namespace, "--field-selector", f"involvedObject.name={name}")
        events.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
        report += [f"  event {e.get('reason')}: {str(e.get('message', ''))[:300]}" for e in events[-_EVENTS:]]
        log = kube.kubectl(
            "logs", name, "-n", namespace, "--all-containers", "--prefix", f"--tail={_LOG_LINES}", check=False
        )
        report += [f"  {line[:300]}" for line in log.splitlines()[-2 * _LOG_LINES :]]
    return "\n".join(report)


def pod_trouble(pod: Json) -> list[str]:
    """Return one line for each reason why the pod is not ready; none when it is, or when it succeeded."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return []
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return []
    lines = []
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        lines.append(f"not scheduled: {scheduled.get('message', '')}")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if container.get("ready"):
            continue
        state = container.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting:
            lines.append(
                f"container {container['name']} waits: {waiting.get('reason')} {waiting.get('message', '')}".rstrip()
            )
        elif ended and ended.get("exitCode") != 0:
            lines.append(
                f"container {container['name']} ended with {ended.get('exitCode')}: "
                f"{ended.get('message') or ended.get('reason', '')}"
            )
        elif "running" in state:
            lines.append(f"container {container['name']} runs but is not ready")
    return lines or ["not ready"]


IMPOSSIBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})
"""Waiting reasons that don't go away by waiting."""


def hopeless(pod: Json) -> bool:
    """Tell whether waiting for the pod is in vain."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return any(((c.get("state") or {}).get("waiting") or {}).get("reason") in IMPOSSIBLE for c in containers)
