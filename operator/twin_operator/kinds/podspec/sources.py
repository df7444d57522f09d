"""Where a pod gets the base model and the adapters from: the init container, claims, the cache, the store's Secret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.pod_overlay import PodOverlay
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_checks import MODEL_HEADERS
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.overlay import added_mounts, with_added_env
from twin_operator.kinds.podspec.parts import USER, container_security, empty_dir, env, mount
from twin_operator.settings import Images

CURRENT_MODEL: Final = f"{names.MODELS_DIR}/current"
CACHE_DIR: Final = "/cache"
_OWN: Final = "import os, sys; os.chown(sys.argv[1], int(sys.argv[2]), int(sys.argv[2]))"
HEADERS_DIR: Final = f"{names.MODELS_DIR}/headers"
_HEADERS_MOUNT: Final = "/mnt/headers"
"""Where the init container has that volume: at /models it would lie over a model that is in the image there."""
_COPY_HEADERS: Final = """\
import pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
try:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.safetensors")):
        with path.open("rb") as file, (target / path.name).open("wb") as copy:
            length = file.read(8)
            copy.write(length + file.read(min(int.from_bytes(length, "little"), 100_000_000)))
            copy.truncate(path.stat().st_size)
    if (source / "config.json").is_file():
        (target / "config.json").write_bytes((source / "config.json").read_bytes())
except OSError as error:
    for path in target.glob("*.safetensors"):
        path.unlink()
    print("adapters can't be compared with the base model's sizes:", error, file=sys.stderr)
"""
"""Hollow copies of a model's files: their headers, and no weights, at the files' own lengths. All or none: modules that
are missing would have good adapters refused."""


def model_path(pool: Pool) -> str:
    """Return where the engine finds the base model; a file:// model is in the engine's image and used in place."""
    uri = pool.spec.base_model.uri or ""
    return uri.removeprefix("file://") if uri.startswith("file://") else CURRENT_MODEL


def model_container(pool: Pool, images: Images, overlay: PodOverlay | None) -> list[Manifest]:
    """Return the init container that fetches and verifies the base model, unless it is in the engine's image.

    Variables and volumes of the pod's overlay reach it too: a gated model needs HF_TOKEN here.
    """
    base = pool.spec.base_model
    if base.uri is None or base.uri.startswith("file://"):
        return []
    return [
        *_cache_owner(pool, images),
        {
            "name": "model",
            "image": pool.spec.miner.image or images.neuron,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-m", "neurons.models"],
            "args": [
                "fetch",
                f"--uri={base.uri}",
                f"--name={base.name}",
                *([f"--revision={base.revision}"] if base.revision else []),
                f"--dest={names.MODELS_DIR}",
                *([f"--cache={CACHE_DIR}"] if pool.spec.cache and cache_volume(pool) else []),
            ],
            "env": with_added_env([env("HOME", "/tmp")], overlay),  # noqa: S108
            **store_credentials(pool),
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
            "securityContext": container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                mount("tmp", "/tmp"),  # noqa: S108
                mount("models", names.MODELS_DIR),
                *cache_mount(pool, read_only=False),
                *claim_mounts(claims_of(pool), [claim_in(base.uri)]),
                *added_mounts(overlay),
            ],
        },
    ]


def _cache_owner(pool: Pool, images: Images) -> list[Manifest]:
    """Return the init container that gives a cache on the node to our pods' user.

    The kubelet makes the folder as root's, and no fsGroup reaches it: what fetches could not write there. It runs as
    root with one capability, in a namespace that must permit hostPath volumes anyway.
    """
    if pool.spec.cache is None or pool.spec.cache.host_path is None or not cache_volume(pool):
        return []
    return [
        {
            "name": "cache-owner",
            "image": pool.spec.miner.image or images.neuron,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-I", "-S", "-c", _OWN, CACHE_DIR, str(USER)],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": False,
                "runAsUser": 0, "runAsGroup": 0, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount("cache", CACHE_DIR)],
        }
    ]  # fmt: skip


def headers_container(pool: Pool, image: str, overlay: PodOverlay | None) -> list[Manifest]:
    """Return the init container that shows the agent how large the modules of a model in the engine's image are."""
    uri = pool.spec.base_model.uri
    if uri is None or not uri.startswith("file://"):
        return []
    return [
        {
            "name": MODEL_HEADERS,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-I", "-S", "-c", _COPY_HEADERS, model_path(pool), f"{_HEADERS_MOUNT}/headers"],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount("models", _HEADERS_MOUNT), *added_mounts(overlay)],
        }
    ]


def copied_model_container(pool: Pool, images: Images, overlay: PodOverlay | None) -> list[Manifest]:
    """Return the init container that copies a model in the engine's image to where a fetched one is: for a pod of
    another image."""
    if not is_in_image(pool):
        return []
    standard = images.engine_cpu if pool.spec.engine.device == "CPU" else images.engine_gpu
    copy = "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    return [
        {
            "name": "model",
            "image": pool.spec.engine.image or standard,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-I", "-S", "-c", copy, model_path(pool), f"{_HEADERS_MOUNT}/current"],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount("models", _HEADERS_MOUNT), *added_mounts(overlay)],
        }
    ]


def is_in_image(pool: Pool) -> bool:
    """Tell whether the base model is in the engine's image."""
    return (pool.spec.base_model.uri or "").startswith("file://")


def sizes_dir(pool: Pool) -> str | None:
    """Return where the agent finds the base model's files or their headers; None where the pool names no model."""
    uri = pool.spec.base_model.uri
    return None if uri is None else HEADERS_DIR if uri.startswith("file://") else CURRENT_MODEL


def store_uri(pool: Pool) -> str | None:
    """Return the root of the pool's adapter store, if it has one."""
    return pool.spec.store.uri if pool.spec.store else None


def store_credentials(pool: Pool) -> Manifest:
    """Return the container's envFrom with the store's Secret, or nothing."""
    store = pool.spec.store
    if store is None or store.secret_ref is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": store.secret_ref.name}}]}


def store_secret_volume(pool: Pool) -> list[Manifest]:
    """Return the volume with the store's Secret for what runs long: it follows a rotation, envFrom doesn't."""
    store = pool.spec.store
    if store is None or store.secret_ref is None:
        return []
    return [{"name": "store-secret", "secret": {"secretName": store.secret_ref.name, "defaultMode": 0o440}}]


def store_secret_mount(pool: Pool) -> list[Manifest]:
    """Return the mount of that volume."""
    return [mount("store-secret", names.STORE_SECRET_DIR, read_only=True)] if store_secret_volume(pool) else []


def claim_in(uri: str | None) -> str | None:
    """Return the claim that a pvc:// URI names."""
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri and uri.startswith("pvc://") else None


def claims_of(pool: Pool, more: Iterable[str | None] = ()) -> list[str]:
    """Return the claims of base model and store, then `more`, each once; a volume is named after its place here."""
    claims = (claim_in(pool.spec.base_model.uri), claim_in(store_uri(pool)), *more)
    return list(dict.fromkeys(claim for claim in claims if claim))


def claim_volumes(claims: Sequence[str], *, writable: str | None = None) -> list[Manifest]:
    """Return the claims' volumes; only the one named `writable` may be written."""
    return [
        {
            "name": f"claim-{index}",
            "persistentVolumeClaim": {"claimName": claim, **({"readOnly": True} if claim != writable else {})},
        }
        for index, claim in enumerate(claims)
    ]


def claim_mounts(claims: Sequence[str], wanted: Iterable[str | None], *, writable: str | None = None) -> list[Manifest]:
    """Return the mounts of those of `claims` that are `wanted`; only the one named `writable` may be written."""
    return [
        mount(f"claim-{index}", f"{names.PVC_DIR}/{claim}", read_only=claim != writable)
        for index, claim in enumerate(claims)
        if claim in set(wanted)
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder on a claim, as a pod sees it."""

    claim: str
    path: str
    """Below the claim's root, without slashes at its ends; empty for the root itself."""
    writable: bool = False

    def holds(self, other: Place) -> bool:
        """Tell whether the other is this folder or lies in it."""
        inside = not self.path or other.path == self.path or other.path.startswith(f"{self.path}/")
        return self.claim == other.claim and inside


def place_of_folder(uri: str | None, *, writable: bool = False) -> Place | None:
    """Return the folder that a pvc:// URI names."""
    claim = claim_in(uri)
    if uri is None or claim is None:
        return None
    path = uri.removeprefix(f"pvc://{claim}").strip("/")
    return Place(claim, path, writable)


def place_of_file(uri: str | None) -> Place | None:
    """Return the folder in which the file lies that a pvc:// URI names."""
    return place_of_folder(uri.rpartition("/")[0]) if uri is not None and claim_in(uri) else None


def place_mounts(claims: Sequence[str], places: Iterable[Place | None], *, shared: str | None) -> list[Manifest]:
    """Return the mounts of folders of `claims`.

    Of the claim that is `shared` by many twins each folder is mounted by itself, and nothing beside it; other claims
    are mounted whole, to read. The kubelet makes a folder that isn't there, with the rights of the claim's root.
    """
    found: list[Place] = []
    for place in places:
        if place is not None:
            found.append(place if place.claim == shared else Place(place.claim, ""))
    found.sort(key=lambda place: (place.claim, place.path, not place.writable))
    kept: list[Place] = []
    for place in found:
        # What lies in a folder that is mounted anyway needs no mount of its own, unless it is to be written.
        if not any(other.holds(place) and (other.writable or not place.writable) for other in kept):
            kept.append(place)
    return [
        {
            **mount(
                f"claim-{claims.index(place.claim)}", "/".join(filter(None, (names.PVC_DIR, place.claim, place.path))),
                read_only=not place.writable,
            ),
            **({"subPath": place.path} if place.path else {}),
        }
        for place in kept
    ]  # fmt: skip


def cache_volume(pool: Pool) -> list[Manifest]:
    """Return the volume that caches a fetched base model, or nothing."""
    cache, uri = pool.spec.cache, pool.spec.base_model.uri
    if cache is None or uri is None or uri.startswith("file://"):
        return []
    if cache.claim_name:
        return [{"name": "cache", "persistentVolumeClaim": {"claimName": cache.claim_name}}]
    if cache.host_path:
        return [{"name": "cache", "hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}]
    return [empty_dir("cache", size=cache.size_limit)]


def cache_mount(pool: Pool, *, read_only: bool) -> list[Manifest]:
    """Return the mount of the cache, or nothing."""
    return [mount("cache", CACHE_DIR, read_only=read_only)] if cache_volume(pool) else []
