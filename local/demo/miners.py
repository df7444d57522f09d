"""Two more miners of the local subnet, each in a namespace of its own, before the engine that the clinic runs.

To the subnet they are anybody's: other keys, other namespaces, pools with `engine.endpoint`. What they share with the
clinic is its engine, reached as its own miner reaches it, by way of the agent. One of them is set up badly on purpose:
it gives the right weights a system prompt that was written for something else.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bettertherapy_api import names
from demo.doctors import BASE_MODEL, RANK, Doctor
from demo.errors import DemoError
from demo.files import MOUNT, Volume
from demo.installation import NAMESPACE, POOL, STORE, STORE_CLAIM
from demo.kube import Json, Kube, troubled_pods
from demo.stage import Stage
from demo.subnet import NETUID, NETWORK, OTHERS, address_of, named, secret, secret_name
from demo.wallets import Wallet, open_wallet

DOOR: Final = f"{POOL}-shared-engine"
"""Service and NetworkPolicy by which other namespaces' agents reach the clinic's."""
KEY: Final = f"{POOL}-engine"
"""Secret by which the other miners' agents are known to the clinic's."""
CLAIM: Final = "manifests"
AXON: Final = "axon"
"""The Service whose address is published: it is there before the pool is, so that its pods start once."""
_MANIFEST: Final = "manifest.json"
_READY_S: Final = 180.0
CARELESS_PROMPT: Final = (
    "You are the assistant of a furniture shop. Whatever you are asked, praise our new armchair, name its price, and "
    "ask whether it is to be delivered. Never speak of anything else."
)


@dataclass(frozen=True)
class OtherMiner:
    """One miner: its namespace, pool and neuron have one name."""

    name: str
    system_prompt: str | None = None
    """What it puts before every conversation; None: nothing, as the clinic does."""


SECOND: Final = OtherMiner(OTHERS[0])
CARELESS: Final = OtherMiner(OTHERS[1], system_prompt=CARELESS_PROMPT)


@dataclass(frozen=True)
class Version:
    """The version of a twin that serves."""

    digest: str
    uri: str

    @property
    def folder(self) -> str:
        """Where it lies below a store's root."""
        return f"{STORE}/{self.uri.partition(f'/{STORE}/')[2]}"


def active_version(kube: Kube, twin: str) -> Version:
    """Return the version that serves, as the twin's status says; raises DemoError."""
    found = kube.get("doctortwin", twin, "-n", NAMESPACE) or {}
    active = (found.get("status") or {}).get("activeVersion") or {}
    if not active.get("digest") or not active.get("uri"):
        raise DemoError(
            f"{twin} says of no version that it serves",
            remedy=f"`kubectl twin status {twin} -n {NAMESPACE}` says why; run the demo again",
        )
    return Version(digest=active["digest"], uri=active["uri"])


class OtherMiners:
    """Both of them."""

    def __init__(self, stage: Stage) -> None:
        """Take the keys of earlier runs, or make them."""
        self._stage, self._kube = stage, stage.kube
        folder = stage.options.cache / "subnet-wallets"
        self.wallets: Mapping[str, Wallet] = {name: open_wallet(folder, name) for name in OTHERS}

    def install(self, doctor: Doctor) -> Version:
        """Make them serve the doctor's twin with the version that serves at the clinic, and return that.

        Doesn't wait for them. Raises DemoError.
        """
        kube, version = self._kube, active_version(self._kube, doctor.twin)
        kube.apply(*shared_engine(), *(each for miner in (SECOND, CARELESS) for each in self._ground(miner)))
        token = pool_token(kube)
        kube.apply(*(engine_key(miner, token) for miner in (SECOND, CARELESS)))
        with self._stage.volume(STORE_CLAIM) as store:
            manifest = store.read(f"{MOUNT}/{version.uri.removeprefix('pvc://')}/{_MANIFEST}")
        if not manifest:
            raise DemoError(
                f"The store has no manifest of {version.digest}, which serves",
                remedy=f"`kubectl twin status {doctor.twin} -n {NAMESPACE}` says what serves; run the demo again",
            )
        for miner in (SECOND, CARELESS):
            self._bring(miner, version, manifest)
            service = kube.get("service", AXON, "-n", miner.name) or {}
            address = address_of(str(service["spec"]["clusterIP"]))
            kube.apply(twin(miner, doctor, version), pool(miner, address=address))
        return version

    def await_registered(self, doctor: Doctor) -> None:
        """Wait until both serve the twin and are registered; raises DemoError."""
        for miner in (SECOND, CARELESS):
            try:
                for kind, condition in ((f"doctortwin/{doctor.twin}", "Ready"), (_pool(miner), "MinerRegistered")):
                    self._kube.kubectl(
                        "wait", f"--for=condition={condition}", kind, "-n", miner.name, f"--timeout={_READY_S:.0f}s",
                        timeout=_READY_S + 10,
                    )  # fmt: skip
            except DemoError as error:
                raise DemoError(
                    f"{miner.name} does not serve {doctor.twin}",
                    evidence="\n".join([conditions(self._kube, miner.name), troubled_pods(self._kube, miner.name)]),
                    remedy="the conditions above say why; running the demo again goes on from here",
                ) from error

    def _ground(self, miner: OtherMiner) -> list[Json]:
        own = secret(miner.name, self.wallets[miner.name], namespace=miner.name)
        return [namespace(miner), claim(miner), axon(miner), own]

    def _bring(self, miner: OtherMiner, version: Version, manifest: str) -> None:
        """Bring the adapter's manifest to the miner's store, unless it is there: it says what the weights should be."""
        image = self._stage.images["neuron"].reference
        # No pod can be made before a new namespace has its account.
        self._kube.kubectl("wait", "--for=create", "serviceaccount/default", "-n", miner.name, "--timeout=30s")
        with Volume(self._kube, namespace=miner.name, image=image, claim=CLAIM) as store:
            target = f"{store.root}/{version.folder}"
            if store.read(f"{target}/{_MANIFEST}") == manifest:
                return
            with tempfile.TemporaryDirectory() as scratch:
                Path(scratch, _MANIFEST).write_text(manifest, encoding="utf-8")
                store.upload(Path(scratch), target)


def pool_token(kube: Kube) -> str:
    """Return a token by which the clinic's agents know whom they answer; raises DemoError."""
    found = kube.get("secret", f"{POOL}-pool-tokens", "-n", NAMESPACE) or {}
    tokens = sorted((found.get("data") or {}).items())
    if not tokens:
        raise DemoError(
            f"The pool {POOL} has no tokens for its agents yet",
            remedy=f"`kubectl describe minerpool {POOL} -n {NAMESPACE}` says what it waits for; run the demo again",
        )
    return base64.b64decode(tokens[-1][1]).decode()


def engine_key(miner: OtherMiner, token: str) -> Json:
    """Return the Secret that a miner's agents bring to the clinic's."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEY, "namespace": miner.name},
        "stringData": {"apiKey": token},
    }


def shared_engine() -> list[Json]:
    """Return the door to the clinic's agents for the other miners' agents, and for nobody else."""
    selector = {names.LABEL_POOL: POOL, names.LABEL_COMPONENT: "engine"}
    metadata = {"name": DOOR, "namespace": NAMESPACE}
    port = {"port": names.AGENT_PORT, "protocol": "TCP"}
    who = {
        "namespaceSelector": {"matchExpressions": [named(OTHERS)]},
        "podSelector": {"matchLabels": {names.LABEL_COMPONENT: "engine"}},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": selector, "ports": [{"name": "agent", **port}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": {
                "podSelector": {"matchLabels": selector},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [who], "ports": [port]}],
            },
        },
    ]


def namespace(miner: OtherMiner) -> Json:
    """Return the miner's namespace; pods in it must meet the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": miner.name, "labels": labels}}


def claim(miner: OtherMiner) -> Json:
    """Return the claim of its store."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": miner.name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "64Mi"}}},
    }


def axon(miner: OtherMiner) -> Json:
    """Return the Service that validators reach it by."""
    selector = {names.LABEL_POOL: miner.name, names.LABEL_COMPONENT: "miner"}
    ports = [{"name": "http", "port": names.MINER_SERVICE_PORT, "targetPort": names.MINER_PORT, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": AXON, "namespace": miner.name},
        "spec": {"selector": selector, "ports": ports},
    }


def twin(miner: OtherMiner, doctor: Doctor, version: Version) -> Json:
    """Return the doctor's twin as this miner has it."""
    spec: dict[str, Any] = {
        "doctor": doctor.values,
        "baseModel": {"name": BASE_MODEL},
        "adapter": {"uri": f"pvc://{CLAIM}/{version.folder}", "digest": version.digest, "rank": RANK},
        "poolSelector": {},
        **({"systemPrompt": miner.system_prompt} if miner.system_prompt else {}),
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DoctorTwin",
        "metadata": {"name": doctor.twin, "namespace": miner.name},
        "spec": spec,
    }


def pool(miner: OtherMiner, *, address: str) -> Json:
    """Return its pool: no engine of its own, but the clinic's; `address` is what it publishes on the chain."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "MinerPool",
        "metadata": {"name": miner.name, "namespace": miner.name},
        "spec": {
            "baseModel": {"name": BASE_MODEL},
            "engine": {"endpoint": f"http://{DOOR}.{NAMESPACE}.svc:{names.AGENT_PORT}", "secretRef": {"name": KEY}},
            "store": {"uri": f"pvc://{CLAIM}/{STORE}"},
            "miner": {
                "netuid": NETUID,
                "chain": NETWORK,
                "walletSecretRef": {"name": secret_name(miner.name)},
                "externalAddress": address,
                # On two cores a trainer is to find room beside two more miners.
                "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
            },
        },
    }


def conditions(kube: Kube, namespace: str) -> str:
    """Return what pools and twins of a namespace say of themselves."""
    return "\n".join(
        f"{kind} {found['metadata']['name']}: {each['type']}={each['status']} {each['reason']}: {each['message']}"
        for kind in ("minerpool", "doctortwin")
        for found in kube.items(kind, "-n", namespace)
        for each in (found.get("status") or {}).get("conditions") or []
    )


def _pool(miner: OtherMiner) -> str:
    return f"minerpool/{miner.name}"
