"""One pod's PodReport on the API server: made once, then only what changed is sent, and made again when it is gone."""

from __future__ import annotations

from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.report import KIND, GatewayReport, MinerReport, PodReport
from neurons.cluster import paths
from neurons.cluster.client import ClusterClient, ClusterError

_NOT_FOUND: Final = 404


class PodReportWriter:
    """Writes the report of one pod, with that pod's own token: the API server lets nobody else."""

    def __init__(self, client: ClusterClient, *, namespace: str, labels: dict[str, str]) -> None:
        """`labels`: those by which readers find the report (`paths`)."""
        self._client = client
        self._collection = paths.pod_reports(namespace)
        self._labels = labels
        self._there: dict[str, Any] | None = None
        """What the API server has; None when that is not known for sure."""

    async def write(self, report: PodReport | MinerReport | GatewayReport) -> None:
        """Bring the object to what `report` says; called with what is there already, look whether it really is.

        Raises ClusterError, aiohttp.ClientError or TimeoutError.
        """
        wanted = report.to_dict()
        there, self._there = self._there, None
        if there is None or there == wanted:
            await self._look(wanted)
        else:
            try:
                await self._client.merge(self._path(wanted), _untracked(merge_patch(there, wanted)))
            except ClusterError as error:
                if error.status != _NOT_FOUND:
                    raise
                await self._create(wanted)
        self._there = wanted

    async def remove(self, pod: str) -> None:
        """Take the report away; the garbage collector would do it once the pod is gone."""
        self._there = None
        try:
            await self._client.delete(f"{self._collection}/{pod}")
        except ClusterError as error:
            if error.status != _NOT_FOUND:
                raise

    async def _look(self, wanted: dict[str, Any]) -> None:
        """Read what is there and mend it: an agent that started again finds its own, and people change objects."""
        try:
            found = await self._client.get(self._path(wanted), {})
        except ClusterError as error:
            if error.status != _NOT_FOUND:
                raise
            await self._create(wanted)
            return
        if found.get("pod") != wanted["pod"]:
            # Of a pod that had this name before: its owner is gone, so the garbage collector would take it from us.
            await self._client.delete(self._path(wanted))
            await self._create(wanted)
            return
        there = {key: value for key, value in found.items() if key not in ("apiVersion", "kind", "metadata")}
        patch = merge_patch(there, wanted)
        metadata = found.get("metadata") or {}
        if metadata.get("ownerReferences") != self._owners(wanted):
            patch["metadata"] = {"ownerReferences": self._owners(wanted)}
        if not self._labels.items() <= (metadata.get("labels") or {}).items():
            patch.setdefault("metadata", {})["labels"] = self._labels
        if patch:
            await self._client.merge(self._path(wanted), _untracked(patch))

    async def _create(self, wanted: dict[str, Any]) -> None:
        metadata = {
            "name": wanted["pod"]["name"],
            "labels": self._labels,
            "ownerReferences": self._owners(wanted),
        }
        document = {"apiVersion": names.API_VERSION, "kind": KIND, "metadata": metadata, **wanted}
        await self._client.create(self._collection, document)

    def _path(self, wanted: dict[str, Any]) -> str:
        return f"{self._collection}/{wanted['pod']['name']}"

    def _owners(self, wanted: dict[str, Any]) -> list[dict[str, str]]:
        return [{"apiVersion": "v1", "kind": "Pod", **wanted["pod"]}]


def _untracked(patch: dict[str, Any]) -> dict[str, Any]:
    return {**patch, "metadata": {**patch.get("metadata", {}), "managedFields": names.UNTRACKED}}


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) from one document without nulls to another; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            patch[key] = merge_patch(old, value)
        else:
            patch[key] = value
    return patch
