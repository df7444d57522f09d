"""Checkpoints of a run in the store, so that a node may be lost at any time."""

from __future__ import annotations

import asyncio
import logging
import pickle  # for the name of what torch.load raises
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from neurons.store import StoreError
from neurons.trainer.archive import Archive
from neurons.trainer.lora import write_checkpoint

log = logging.getLogger(__name__)

_FORMAT: Final = 2
_UNUSABLE: Final = (
    StoreError, OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, pickle.UnpicklingError,
)  # fmt: skip


class Checkpoints:
    """The last checkpoint of one run. `identity` says what is trained on what: one of another training is not used."""

    def __init__(self, archive: Archive, run: str, *, identity: str) -> None:
        self._archive, self._run, self._identity = archive, run, identity
        self.preferences_learned = False
        """Set once the preference pairs are learned; kept with each checkpoint from then on."""

    def load(self) -> Mapping[str, Any] | None:
        """Return the checkpoint to go on from. One that can't be read costs the steps done, not the run."""
        import torch  # noqa: PLC0415

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "checkpoint.pt")
            try:
                if not asyncio.run(self._archive.checkpoint(self._run, path)):
                    return None
                # weights_only: tensors, numbers and names; a changed file can't run anything
                read = torch.load(path, map_location="cpu", weights_only=True)
                if read["format"] != _FORMAT or read["identity"] != self._identity:
                    return None
                self.preferences_learned = bool(read["preferences_learned"])
                state: Mapping[str, Any] = read["state"]
            except _UNUSABLE as error:
                log.warning("the checkpoint can't be used, so the training begins anew: %s", type(error).__name__)
                return None
            return state

    def keep(self, state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the last. A store that doesn't answer costs safety, not the run."""
        kept = {
            "format": _FORMAT, "identity": self._identity, "preferences_learned": self.preferences_learned,
            "state": dict(state),
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "checkpoint.pt")
            if not write_checkpoint(kept, path):
                return
            try:
                asyncio.run(self._archive.put_checkpoint(self._run, path))
            except StoreError as error:
                log.warning("the checkpoint is not kept: %s", error)
