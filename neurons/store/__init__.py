"""The artifact store: adapters by digest, in a folder, on a volume or in an object store, through one interface."""

from neurons.store.adapters import (
    PUSH_COMMAND,
    clean_leftovers,
    fetch_adapter,
    publish_adapter,
    read_manifest,
    verify_folder,
)
from neurons.store.checks import check_adapter
from neurons.store.errors import (
    AccessDenied,
    AdapterInvalid,
    ArtifactNotFound,
    DigestMismatch,
    FolderNotFound,
    ManifestInvalid,
    NoSpace,
    StoreError,
    StoreUnreachable,
    WeightsNotFinite,
)
from neurons.store.hashing import file_digest
from neurons.store.locations import DEFAULT_LIMITS, Limits, Location, join, local_folder, open_store
from neurons.store.manifests import build_manifest, parse_manifest

__all__ = [
    "DEFAULT_LIMITS",
    "PUSH_COMMAND",
    "AccessDenied",
    "AdapterInvalid",
    "ArtifactNotFound",
    "DigestMismatch",
    "FolderNotFound",
    "Limits",
    "Location",
    "ManifestInvalid",
    "NoSpace",
    "StoreError",
    "StoreUnreachable",
    "WeightsNotFinite",
    "build_manifest",
    "check_adapter",
    "clean_leftovers",
    "fetch_adapter",
    "file_digest",
    "join",
    "local_folder",
    "open_store",
    "parse_manifest",
    "publish_adapter",
    "read_manifest",
    "verify_folder",
]
