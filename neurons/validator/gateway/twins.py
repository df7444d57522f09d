"""Which twins this validator answers for, and by which weights: a file, or whatever miners announce.

A miner may announce any adapter under any doctor's name. Where the file names a twin's digests, no other answers for
it; where it doesn't, a digest is as good as the miner's signed word, which `docs/gateway.md` says plainly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from neurons.ledger import Twin, derived_id
from neurons.validator.gateway.files import FollowedFile

_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
_UID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_DIGEST: Final = r"^(sha256:[0-9a-f]{64}|base)$"


class KnownTwin(BaseModel):
    """One twin."""

    model_config = _CONFIG

    name: Annotated[str, Field(min_length=1, max_length=253)]
    uid: Annotated[str, Field(pattern=_UID)] | None = None
    """Its UID, by which the ledger keeps it."""
    doctor: Annotated[str, Field(max_length=253)] | None = None
    licence: Annotated[str, Field(max_length=64)] | None = None
    """Number of the doctor's licence to practise, as patients read it: `NPI 1234567893`, `NMC 12345`."""
    specialty: Annotated[str, Field(max_length=128)] | None = None
    digests: Annotated[tuple[Annotated[str, Field(pattern=_DIGEST)], ...], Field(max_length=64)] | None = None
    """The versions that may answer, `base` for the base model itself; None: any that a miner announces."""


class TwinsFile(BaseModel):
    """All twins that are answered for."""

    model_config = _CONFIG

    format: Literal["bettertherapy-twins/1"]
    twins: Annotated[tuple[KnownTwin, ...], Field(max_length=20_000)]

    @model_validator(mode="after")
    def _each_once(self) -> TwinsFile:
        if len({twin.name for twin in self.twins}) < len(self.twins):
            raise ValueError("a twin stands there twice: whose weights answer must be clear")
        return self


class Twins:
    """What the file says now; without one, all twins and digests."""

    def __init__(self, file: FollowedFile[TwinsFile] | None) -> None:
        self._file = file
        self._generation = -1
        self._by_name: dict[str, KnownTwin] = {}

    def serves(self, name: str) -> bool:
        """Tell whether this validator answers for the twin."""
        return self._file is None or name in self._known()

    def approves(self, name: str, adapter: str | None) -> bool:
        """Tell whether these weights may answer under the twin's name."""
        if self._file is None:
            return True
        twin = self._known().get(name)
        return twin is not None and (twin.digests is None or (adapter or "base") in twin.digests)

    def known(self, name: str) -> KnownTwin | None:
        """Return what the file says of the twin."""
        return self._known().get(name)

    def doctor(self, name: str) -> str | None:
        """Return the doctor's name, where the file has it."""
        twin = self._known().get(name)
        return None if twin is None else twin.doctor

    def uid(self, name: str) -> str | None:
        """Return the UID of the twin that has the name now, where the file has it."""
        twin = self._known().get(name)
        return None if twin is None else twin.uid

    def of_ledger(self, name: str) -> Twin:
        """Return the twin as the ledger keeps it; without a UID one that follows from the name."""
        return _of_ledger(name, self.uid(name))

    def _known(self) -> dict[str, KnownTwin]:
        if self._file is not None and self._generation != self._file.generation:
            self._generation = self._file.generation
            self._by_name = {twin.name: twin for twin in self._file.content.twins}
        return self._by_name


@lru_cache(maxsize=4096)
def _of_ledger(name: str, uid: str | None) -> Twin:
    return Twin(uid=uid or derived_id("twin", name), name=name)
