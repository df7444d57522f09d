"""The artifact store: adapters by digest, in a folder, on a volume or in an object store, through one interface."""

from neurons.store.adapters import (
    PUSH_COMMAND,
    clean_leftovers,
    fetch_adapter,
    publish_adapter,
    read_manifest,
    verify_folder,
)
from neurons.store.errors import (
    AccessDenied,
    ArtifactNotFound,
    DigestMismatch,
    FolderNotFound,
    ManifestInvalid,
    NoSpace,
    StoreError,
    StoreUnreachable,
)
from neurons.store.hashing import file_digest
from neurons.store.locations import DEFAULT_LIMITS, Limits, Location, join, local_folder, open_store
from neurons.store.manifests import build_manifest, parse_manifest

__all__ = [
    "DEFAULT_LIMITS",
    "PUSH_COMMAND",
    "AccessDenied",
    "ArtifactNotFound",
    "DigestMismatch",
    "FolderNotFound",
    "Limits",
    "Location",
    "ManifestInvalid",
    "NoSpace",
    "StoreError",
    "StoreUnreachable",
    "build_manifest",
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
