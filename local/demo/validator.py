"""A validator's pod: it has a hotkey, and asks the local subnet's miners as validators do."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from demo.errors import DemoError
from demo.installation import NAMESPACE
from demo.kube import Json, Kube, troubled_pods
from demo.pods import waiting_pod
from demo.subnet import NETUID, NETWORK, VALIDATOR, secret_name

POD: Final = "demo-validator"
_WALLET: Final = "/wallet"
_TIMEOUT_S: Final = 150.0


class Validator:
    """Lives while this is entered."""

    def __init__(self, kube: Kube, *, image: str) -> None:
        self._kube, self._image = kube, image

    def __enter__(self) -> Self:
        """Start the pod; one that an earlier run left is removed. Raises DemoError."""
        self._remove()
        self._kube.apply(pod(self._image))
        try:
            self._kube.kubectl(
                "wait", "--for=condition=Ready", f"pod/{POD}", "-n", NAMESPACE, "--timeout=120s", timeout=130
            )
        except DemoError as error:
            raise DemoError(
                "The validator's pod did not start",
                evidence=troubled_pods(self._kube, NAMESPACE, f"app.kubernetes.io/name={POD}"),
                remedy="the events above say what it waits for; running the demo again goes on from here",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def run(self, command: str, *arguments: str) -> str:
        """Run a command of `python -m neurons.subnet` and return what it printed; raises DemoError."""
        return self._kube.kubectl(
            "exec", POD, "-n", NAMESPACE, "--", *subnet_command(command, *arguments), timeout=_TIMEOUT_S
        )

    def _remove(self) -> None:
        self._kube.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--ignore-not-found", "--grace-period=0", "--force")


def subnet_command(
    command: str, *arguments: str, network: str = NETWORK, netuid: int = NETUID, wallet: str = _WALLET
) -> list[str]:
    """Return a command that asks the subnet, signed by the validator."""
    where = ["--network", network, "--netuid", str(netuid), "--wallet", wallet]
    return ["python", "-m", "neurons.subnet", command, *arguments, *where]


def pod(image: str) -> Json:
    """Return the pod: it waits for commands."""
    return waiting_pod(
        POD,
        "validator",
        namespace=NAMESPACE,
        app=POD,
        image=image,
        memory="512Mi",
        mount={"mountPath": _WALLET, "readOnly": True},
        volume={"secret": {"secretName": secret_name(VALIDATOR), "defaultMode": 0o440}},
    )
