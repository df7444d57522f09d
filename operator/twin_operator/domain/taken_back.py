"""Which versions of a twin may not answer, by its status and annotations alone: no spec is needed to say so."""

from __future__ import annotations

from collections.abc import Mapping

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import DoctorTwinStatus


def refused_digests(status: DoctorTwinStatus) -> frozenset[str]:
    """Return the versions that will not be tried again."""
    return frozenset(each.digest for each in status.refused_versions or ())


def taken_back(status: DoctorTwinStatus, annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the versions that were refused, and the one on trial if a person asks for another one by name.

    Nothing of it is written down: once the spec can be read, the annotation is still there, and is acted on in full.
    """
    refused, canary = refused_digests(status), status.canary_version
    asked = (annotations.get(names.ROLLBACK_ANNOTATION) or "")[: names.TOKEN_LENGTH] or None
    if canary is None or canary.digest is None or asked is None or asked == status.handled_rollback:
        return refused
    told = (status.promoted_version, status.active_version, status.previous_version, *(status.history or ()))
    known = {status.spec_digest, *(version.digest for version in told if version is not None)} - {canary.digest}
    target = asked.split("@", 1)[0]
    return refused | {canary.digest} if target == "base" or target in known else refused
