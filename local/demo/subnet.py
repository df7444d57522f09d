"""The local subnet that the demo's miners are on: its chart, its neurons' keys, and their registration."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api import names
from demo.doctors import BASE_MODEL
from demo.errors import DemoError
from demo.images import Images
from demo.installation import MODELS_CLAIM, NAMESPACE, POOL, helm_release, is_installed
from demo.kube import Json, Kube, troubled_pods
from demo.stage import Options
from demo.wallets import Wallet, open_wallet

RELEASE: Final = "subnet"
NETUID: Final = 1
PORT: Final = 9944
NETWORK: Final = f"http://{RELEASE}.{NAMESPACE}.svc:{PORT}"
STANDBY: Final = "standby"
"""A second pool, whose engines sleep: its miner is on the subnet and announces no twin."""
MINERS: Final = (POOL, STANDBY)
OTHERS: Final = ("second-miner", "careless-miner")
"""Miners in namespaces of their own, which are called as they are (`demo.miners`)."""
VALIDATOR: Final = "validator"
STAKE_TAO: Final = 1000.0

_BLOCK_SECONDS: Final = 2
_HYPERPARAMETERS: Final = {"tempo": 5, "max_regs_per_block": 8, "serving_rate_limit": 5, "weights_rate_limit": 5}
"""An epoch in ten seconds, after which the validator has its permit, and may set weights."""
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 0.5


@dataclass(frozen=True)
class Subnet:
    """One local subnet: a validator, which owns it, and a miner for each pool."""

    kube: Kube
    wallets: Mapping[str, Wallet]

    @classmethod
    def open(cls, kube: Kube, options: Options) -> Subnet:
        """Take the keys of earlier runs, or make them."""
        folder = options.cache / "subnet-wallets"
        return cls(kube=kube, wallets={name: open_wallet(folder, name) for name in (*MINERS, VALIDATOR)})

    def install(self, images: Images) -> None:
        """Install the chart, without waiting for it, and hand each neuron's pod its hotkey."""
        self.kube.apply(*(secret(name, wallet) for name, wallet in self.wallets.items()))
        helm_release(self.kube, RELEASE, NAMESPACE, "local-subnet", self.values(images), wait=False)

    def values(self, images: Images) -> Json:
        """Return the values of charts/local-subnet."""
        owner = self.wallets[VALIDATOR]
        return {
            "owner": {"coldkey": str(owner.coldkey.ss58_address), "hotkey": owner.address},
            "netuid": NETUID,
            "blockSeconds": _BLOCK_SECONDS,
            "hyperparameters": _HYPERPARAMETERS,
            "image": images["neuron"].values,
            "persistence": {"size": "256Mi", "keep": False},
            "networkPolicy": {
                "from": [
                    {"podSelector": {}},
                    {"namespaceSelector": {"matchExpressions": [named(OTHERS)]}},
                ]
            },
        }

    def miner(self, pool: str, *, await_address: bool) -> Json:
        """Return a pool's spec.miner.

        Its address on the chain is its Service's: known once the operator has made that, which `await_address` waits
        for. Raises DemoError when it doesn't come.
        """
        address = self._address(pool, patience=_PATIENCE_S if await_address else 0.0)
        return {
            "replicas": 1,
            "netuid": NETUID,
            "chain": NETWORK,
            "walletSecretRef": {"name": secret_name(pool)},
            **({"externalAddress": address} if address else {}),
            # The clinic's own pool has a base model and a store to train in; only there a task can be done.
            **({"tasks": {"accept": True}} if pool == POOL else {}),
        }

    def apply_standby(self, *, await_address: bool) -> None:
        """Have the second pool."""
        self.kube.apply(standby_pool(self.miner(STANDBY, await_address=await_address)))

    def enrol(self, others: Mapping[str, Wallet] | None = None) -> None:
        """Register all neurons and stake on the validator, unless that is done; wait for the validator's permit.

        `others` are registered, too. Coldkeys sign here, on this machine. Raises DemoError.
        """
        try:
            self.kube.kubectl(
                "rollout", "status", f"deployment/{RELEASE}", "-n", NAMESPACE, f"--timeout={_PATIENCE_S:.0f}s",
                timeout=_PATIENCE_S + 10,
            )  # fmt: skip
        except DemoError as error:
            raise DemoError(
                "The local subnet did not come up",
                evidence=troubled_pods(self.kube, NAMESPACE, "app.kubernetes.io/name=local-subnet"),
                remedy=error.remedy,
            ) from error
        with self.kube.forwarded(f"deployment/{RELEASE}", PORT, namespace=NAMESPACE) as url:
            asyncio.run(enrol_all(url, {**self.wallets, **(others or {})}))

    def await_registered(self) -> None:
        """Wait until both pools say that their miner is registered; raises DemoError."""
        try:
            self.kube.kubectl(
                "wait", "--for=condition=MinerRegistered", *(f"minerpool/{name}" for name in MINERS), "-n", NAMESPACE,
                f"--timeout={_PATIENCE_S:.0f}s", timeout=2 * _PATIENCE_S + 10,
            )  # fmt: skip
        except DemoError as error:
            said = [
                f"{name}: {c['status']} {c['reason']}: {c['message']}"
                for name in MINERS
                for c in ((self.kube.get("minerpool", name, "-n", NAMESPACE) or {}).get("status") or {}).get(
                    "conditions"
                )
                or []
                if c["type"] == "MinerRegistered"
            ]
            raise DemoError(
                "A miner is not registered on the local subnet",
                evidence="\n".join([*said, troubled_pods(self.kube, NAMESPACE, f"{names.LABEL_COMPONENT}=miner")]),
                remedy="MinerRegistered above says why; running the demo again goes on from here",
            ) from error

    def _address(self, pool: str, *, patience: float) -> str | None:
        deadline = time.monotonic() + patience
        while True:
            service = self.kube.get("service", names.miner_name(pool), "-n", NAMESPACE)
            if service is not None:
                return address_of(str(service["spec"]["clusterIP"]))
            if not patience:
                return None
            if time.monotonic() > deadline:
                raise DemoError(
                    f"The operator made no Service for pool {pool} within {patience:.0f} s",
                    remedy=f"`kubectl describe minerpool {pool} -n {NAMESPACE}` says why; run the demo again",
                )
            time.sleep(_PAUSE_S)


def is_on(kube: Kube) -> bool:
    """Tell whether an earlier run installed the local subnet."""
    return is_installed(kube, RELEASE)


def secret_name(neuron: str) -> str:
    """Return the name of the Secret with a neuron's hotkey."""
    return f"{neuron}-hotkey"


def secret(neuron: str, wallet: Wallet, *, namespace: str = NAMESPACE) -> Json:
    """Return the Secret with a neuron's hotkey, and its owner's address."""
    data = {name: base64.b64encode(content).decode() for name, content in wallet.secret.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(neuron), "namespace": namespace},
        "data": data,
    }


def named(namespaces: Sequence[str]) -> Json:
    """Return what selects these namespaces, as one of matchExpressions."""
    return {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}


def standby_pool(miner: Json) -> Json:
    """Return the second pool: a miner, and no engine pod."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "MinerPool",
        "metadata": {"name": STANDBY, "namespace": NAMESPACE},
        "spec": {
            "baseModel": {"name": BASE_MODEL, "uri": f"pvc://{MODELS_CLAIM}/{BASE_MODEL}"},
            "engine": {"device": "CPU"},
            "replicas": 0,
            "miner": miner,
        },
    }


def address_of(cluster_ip: str) -> str:
    """Return a Service's address as the chain takes it."""
    host = f"[{cluster_ip}]" if ":" in cluster_ip else cluster_ip
    return f"{host}:{names.MINER_SERVICE_PORT}"


async def enrol_all(url: str, wallets: Mapping[str, Wallet], *, patience: float = _PATIENCE_S) -> None:
    """Register whom the chain doesn't know yet, all at once, and wait until the validator may validate.

    Raises:
        DemoError: the chain refuses it, can't be read, or gives no permit within `patience` seconds.
    """
    import bittensor as bt  # noqa: PLC0415 - seconds to load

    from neurons.chain.local.enrolment import enrol, stake  # noqa: PLC0415
    from neurons.chain.local.substrate import LocalSubstrate  # noqa: PLC0415
    from neurons.subnet.errors import SubnetError  # noqa: PLC0415
    from neurons.subnet.reading import from_chain  # noqa: PLC0415

    async def put(client: Any, name: str, wallet: Wallet) -> None:
        neuron = known.get(wallet.address)
        wanted = STAKE_TAO if name == VALIDATOR else 0.0
        if neuron is None:
            await enrol(client, wallet.coldkey, wallet.address, NETUID, stake_tao=wanted)
        elif wanted and not neuron.stake:  # killed between the two
            await stake(client, wallet.coldkey, wallet.address, NETUID, wanted)

    try:
        known = {neuron.hotkey: neuron for neuron in (await from_chain(url, NETUID)).neurons}
        client = bt.Client("local", substrate=LocalSubstrate(url))
        await client.connect()
        try:
            await asyncio.gather(*(put(client, name, wallet) for name, wallet in wallets.items()))
        finally:
            await client.close()
        deadline = time.monotonic() + patience
        while not await _has_permit(url, wallets[VALIDATOR].address):
            if time.monotonic() > deadline:
                raise DemoError(
                    f"The validator has no permit after {patience:.0f} s: no epoch has run",
                    remedy=f"`kubectl logs deployment/{RELEASE} -n {NAMESPACE}` shows what the local chain does",
                )
            await asyncio.sleep(_PAUSE_S)
    except (bt.ChainError, SubnetError, OSError) as error:
        raise DemoError(
            f"The local subnet took no registration: {error}",
            remedy=f"`kubectl logs deployment/{RELEASE} -n {NAMESPACE}` shows what it says; run the demo again",
        ) from error


async def _has_permit(url: str, hotkey: str) -> bool:
    from neurons.subnet.reading import from_chain  # noqa: PLC0415 - as above

    neurons = (await from_chain(url, NETUID)).neurons
    return any(neuron.validator_permit for neuron in neurons if neuron.hotkey == hotkey)
