"""What a checked request becomes for an engine, without a miner between."""

from __future__ import annotations

import json
from typing import Any

from neurons.conversation import DEFAULT, Manner
from neurons.miner.asked import EngineRequest
from neurons.miner.rewrite import ModelName
from neurons.miner.tables import TwinRoute, VersionRoute

VERSION = VersionRoute(
    twin="indra", served_name="indra-1", digest=None, weight=100,
    model=ModelName(twin="indra", served_name="indra-1", digest=None),
)  # fmt: skip


def twin_of(system_prompt: str | None = None) -> TwinRoute:
    message = {"role": "system", "content": system_prompt} if system_prompt is not None else None
    return TwinRoute(
        name="indra", uid="u", doctor=None, system_message=message, versions=(VERSION,), active=(VERSION,), first_seen=0
    )


def body_of(asked: EngineRequest, *, system_prompt: str | None = None, manner: Manner = DEFAULT) -> Any:
    """The body that the engine gets."""
    return json.loads(asked.to_bytes(twin_of(system_prompt), VERSION, manner))
