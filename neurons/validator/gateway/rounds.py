"""GET /v1/rounds/NAME and …/miners/HOTKEY: who scored what in a round, and why, for an operator's key alone."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from bettertherapy_api.round_view import MinerView, RoundView
from neurons.ledger import LedgerDown
from neurons.miner.errors import RequestError
from neurons.validator.gateway.keys import ApiKey, Role

PATH: Final = re.compile(
    r"/v1/rounds/(?P<round>[a-z0-9][-a-z0-9]{0,62})(?:/miners/(?P<hotkey>[1-9A-HJ-NP-Za-km-z]{1,64}))?"
)
_AGAIN_SECONDS: Final = 5


class RoundsReader(Protocol):
    """Reads rounds where they are kept. Raises LedgerDown."""

    async def round(self, name: str) -> RoundView | None:
        """Return the newest round of this name, with all its miners; None where there is none."""

    async def miner(self, name: str, hotkey: str) -> MinerView | None:
        """Return one miner of it with its answers; None where the round or the miner in it is not known."""


class Rounds:
    """Answers both requests."""

    def __init__(self, reader: RoundsReader | None) -> None:
        """`reader`: None where no ledger is kept."""
        self._reader = reader

    async def show(self, path: str, key: ApiKey) -> dict[str, Any]:
        """Return the document of a path that `PATH` matches; raises RequestError."""
        if key.role is not Role.OPERATOR:
            raise RequestError(
                403, "permission_error",
                "rounds are shown to operators: use a key that was made with --role operator", code="operators_only",
            )  # fmt: skip
        if self._reader is None:
            raise RequestError(404, "invalid_request_error", "this gateway keeps no ledger", code="no_ledger")
        found = PATH.fullmatch(path)
        assert found is not None  # noqa: S101  # the route
        name, hotkey = found["round"], found["hotkey"]
        try:
            view = await (self._reader.round(name) if hotkey is None else self._reader.miner(name, hotkey))
        except LedgerDown:
            raise RequestError(
                503, "server_error", "the ledger doesn't answer, and rounds are kept there: come back soon",
                code="ledger_down", retry_after=_AGAIN_SECONDS,
            ) from None  # fmt: skip
        if view is None:
            what = f"round {name}" if hotkey is None else f"miner {hotkey} in round {name}"
            raise RequestError(404, "invalid_request_error", f"the ledger has no {what}", code="not_found")
        return view.model_dump(mode="json", by_alias=True, exclude_none=True)
