"""A JSON document that travels between two of our programs outside the API: manifests, progress."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Frozen; unknown fields are ignored, so that an older reader takes what a newer writer wrote."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    def to_json(self) -> str:
        """Return canonical JSON: the same document gives the same bytes, so digests of it are stable."""
        return json.dumps(
            self.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=True, separators=(",", ":")
        )
