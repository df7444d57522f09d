"""The versions that a twin's spec and status know: which one should answer, which may be gone back to."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import VersionStatus
from twin_operator.domain.objects import Twin


def spec_version(twin: Twin) -> VersionStatus:
    """Return the hand-set version of spec.adapter, or the base model itself."""
    adapter = twin.spec.adapter
    if adapter is None:
        return base_version(twin)
    return VersionStatus(
        digest=adapter.digest, served_name=names.served_name(twin.name, adapter.digest), uri=adapter.uri,
        rank=adapter.rank,
    )  # fmt: skip


def base_version(twin: Twin) -> VersionStatus:
    """Return the base model itself as a version."""
    return VersionStatus(served_name=twin.spec.base_model.name)


def memory_counts(twin: Twin) -> bool:
    """Tell whether spec.adapter is still the one upon which versions were promoted."""
    adapter = twin.spec.adapter
    return twin.status.spec_digest == (adapter.digest if adapter is not None else None)


def wanted_version(twin: Twin) -> VersionStatus:
    """Return the version that should answer: the promoted one, until spec.adapter changes again."""
    promoted = twin.status.promoted_version
    return promoted if promoted is not None and memory_counts(twin) else spec_version(twin)


def canary_version(twin: Twin) -> VersionStatus | None:
    """Return the version that is being tried, if spec.adapter has not changed under it."""
    return twin.status.canary_version if memory_counts(twin) else None


def anchor_version(twin: Twin) -> VersionStatus:
    """Return the version that a person last chose: set in spec.adapter, approved, or gone back to."""
    chosen = twin.status.anchor_version
    return chosen if chosen is not None and memory_counts(twin) else spec_version(twin)


def known_versions(twin: Twin) -> dict[str | None, VersionStatus]:
    """Return every version that status and spec tell of, by digest (None: the base model itself)."""
    status = twin.status
    told = [
        status.promoted_version, status.canary_version, status.pending_version, status.active_version,
        status.previous_version, status.anchor_version, *(status.history or []), spec_version(twin),
    ]  # fmt: skip
    found: dict[str | None, VersionStatus] = {None: base_version(twin)}
    for version in told:
        if version is not None and version.digest is not None:
            found.setdefault(version.digest, version)
    return found


def kept_digests(twin: Twin) -> list[str]:
    """Return the digests whose artifacts must stay in the store: what answers, may answer, or may be gone back to."""
    return sorted(digest for digest in known_versions(twin) if digest is not None)


def uri_of(twin: Twin, digest: str, *, store: str) -> str:
    """Return where a version's artifact is: where the twin says, else where the trainer puts it."""
    known = known_versions(twin).get(digest)
    if known is not None and known.uri is not None:
        return known.uri
    return place_of(store, twin.name, digest)


def place_of(store: str, twin: str, digest: str) -> str:
    """Return where a trainer publishes a version: it follows from store, twin and digest."""
    return f"{store.rstrip('/')}/{twin}/{names.digest_hex(digest)}"
