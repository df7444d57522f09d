"""What a pool's spec adds to the pods: labels, where they run, variables, volumes.

Admission has refused what would undo the operator's own parts; names of volumes are kept apart by a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bettertherapy_api.pod_overlay import ExtraVolume, PodOverlay, ServingPodOverlay
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.disk import EXTRA_SIZE
from twin_operator.kinds.podspec.parts import empty_dir, mount


def added_metadata(
    overlay: PodOverlay | None, *, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Manifest:
    """Return the pods' labels and annotations: those of the overlay, then ours, which win."""
    more_labels = (overlay.labels or {}) if overlay else {}
    more_annotations = {**((overlay.annotations or {}) if overlay else {}), **annotations}
    return {
        "labels": {**more_labels, **labels},
        **({"annotations": more_annotations} if more_annotations else {}),
    }


def added_placement(overlay: PodOverlay | None, *, own_pods: Mapping[str, str]) -> Manifest:
    """Return priority class, affinity and spread constraints; a term without a selector means `own_pods`, by labels."""
    if overlay is None:
        return {}
    placed: Manifest = {}
    if isinstance(overlay, ServingPodOverlay) and overlay.priority_class_name:
        placed["priorityClassName"] = overlay.priority_class_name
    if overlay.affinity is not None and (affinity := _said(overlay.affinity)):
        for kind in ("podAffinity", "podAntiAffinity"):
            rules = affinity.get(kind, {})
            for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution", []):
                _select(term, own_pods)
            for preferred in rules.get("preferredDuringSchedulingIgnoredDuringExecution", []):
                _select(preferred["podAffinityTerm"], own_pods)
        placed["affinity"] = affinity
    if overlay.topology_spread_constraints:
        placed["topologySpreadConstraints"] = [
            _select(_said(constraint), own_pods) for constraint in overlay.topology_spread_constraints
        ]
    return placed


def with_added_env(ours: Sequence[Manifest], overlay: PodOverlay | None) -> list[Manifest]:
    """Return the container's variables; one of the overlay takes the place of ours where admission let it."""
    added = {variable.name: _said(variable) for variable in (overlay.env or [])} if overlay else {}
    kept = [added.pop(variable["name"], variable) for variable in ours]
    return [*kept, *added.values()]


def added_volumes(overlay: PodOverlay | None) -> list[Manifest]:
    """Return the pod's extra volumes."""
    return [_volume(volume) for volume in (overlay.volumes or [])] if overlay else []


def added_mounts(overlay: PodOverlay | None) -> list[Manifest]:
    """Return the mounts of `added_volumes`."""
    return (
        [mount(_name(volume), volume.mount_path, read_only=volume.read_only) for volume in (overlay.volumes or [])]
        if overlay
        else []
    )


def _volume(volume: ExtraVolume) -> Manifest:
    name = _name(volume)
    if volume.claim_name:
        claim = {"claimName": volume.claim_name, **({"readOnly": True} if volume.read_only else {})}
        return {"name": name, "persistentVolumeClaim": claim}
    if volume.secret_name:
        return {"name": name, "secret": {"secretName": volume.secret_name, "defaultMode": 0o440}}
    if volume.config_map_name:
        return {"name": name, "configMap": {"name": volume.config_map_name, "defaultMode": 0o444}}
    scratch = volume.empty_dir
    size = (scratch.size_limit if scratch else None) or EXTRA_SIZE
    return empty_dir(name, memory=scratch is not None and scratch.medium == "Memory", size=size)


def _name(volume: ExtraVolume) -> str:
    return f"extra-{volume.name}"


def _select(term: Manifest, own_pods: Mapping[str, str]) -> Manifest:
    term.setdefault("labelSelector", {"matchLabels": dict(own_pods)})
    return term


def _said(model: Any) -> Manifest:
    said: Manifest = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return said
