"""Tells the operator how a round goes: documents of `bettertherapy_api.round_progress` in the round's ConfigMap.

Telling never ends a round: what the API server doesn't take is told again with what comes next.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp

from bettertherapy_api.document import Document
from bettertherapy_api.round_progress import PROGRESS_KEY, RoundProgress, RoundStage
from neurons.cluster import ClusterAccessError, ClusterClient, ClusterError

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "round"


class Teller(Protocol):
    """Takes what is told."""

    async def tell(self, key: str, document: Document) -> None:
        """Tell the newest state of a document; never raises for whom it is told to."""


@dataclass(slots=True)
class Remembered:
    """Keeps what was told: for processes outside a cluster, and tests."""

    told: list[tuple[str, Document]] = field(default_factory=list)

    async def tell(self, key: str, document: Document) -> None:
        """See `Teller`."""
        self.told.append((key, document))


class ConfigMapTeller:
    """Writes into one ConfigMap, which is there already; each key by itself, so that no other's is taken away."""

    def __init__(self, client: ClusterClient, *, namespace: str, name: str) -> None:
        self._client, self._name = client, name
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._waiting: dict[str, str] = {}

    async def tell(self, key: str, document: Document) -> None:
        """See `Teller`."""
        self._waiting[key] = document.to_json()
        try:
            await self._client.merge(self._path, {"data": dict(self._waiting)})
        except (ClusterError, ClusterAccessError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("progress is not reported: %s", error)
        else:
            self._waiting.clear()


class Progress:
    """A round's `progress.json`, as it grows."""

    def __init__(self, teller: Teller, *, attempt: str) -> None:
        self._teller = teller
        self.document = RoundProgress(attempt=attempt, stage=RoundStage.PREPARE)

    async def tell(self, **fields: Any) -> None:
        """Change fields (by their Python names) and tell all."""
        self.document = RoundProgress.model_validate(
            {**{name: getattr(self.document, name) for name in type(self.document).model_fields}, **fields}
        )
        await self._teller.tell(PROGRESS_KEY, self.document)


def last_word(document: Document) -> str:
    """Return the last line on standard output of a process that failed."""
    return json.dumps(json.loads(document.to_json()), separators=(",", ":"))
