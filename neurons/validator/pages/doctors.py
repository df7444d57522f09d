"""The doctors that a patient may choose among, as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.twins import Twins
from neurons.validator.pages.licences import NOT_CHECKED, Checked, Licences

MOST_SHOWN: Final = 60
LICENCE_SECONDS: Final = 1.0
"""A page waits so long for a register."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """One doctor whose twin can be asked."""

    twin: str
    name: str
    licence: str | None
    specialty: str | None
    vouched: bool
    """The validator's own file says whose twin it is; else miners do."""
    miners: int
    """That serve it now."""
    checked: Checked = NOT_CHECKED


class Doctors:
    """Reads the roster and the file of twins."""

    def __init__(self, *, roster: Roster, twins: Twins, licences: Licences) -> None:
        self._roster, self._twins, self._licences = roster, twins, licences

    def found(self, wanted: str) -> tuple[list[Doctor], int]:
        """Return the doctors that can be asked and have these words in name, specialty or licence; and how many."""
        words = wanted.casefold().split()
        everybody = [self._of(twin) for twin in self._roster.twins() if self._twins.serves(twin)]
        chosen = [
            each for each in everybody
            if all(word in f"{each.name} {each.specialty} {each.licence} {each.twin}".casefold() for word in words)
        ]  # fmt: skip
        return sorted(chosen, key=lambda each: each.name.casefold())[:MOST_SHOWN], len(chosen)

    async def get(self, twin: str) -> Doctor | None:
        """Return one doctor, also while nobody serves the twin; None for a twin that isn't known here."""
        if not self._twins.serves(twin) or not (self._twins.known(twin) or self._roster.for_twin(twin)):
            return None
        found = self._of(twin)
        checked = await self._licences.check(
            found.licence, found.name if found.vouched else None, wait_seconds=LICENCE_SECONDS
        )
        return Doctor(twin, found.name, found.licence, found.specialty, found.vouched, found.miners, checked)

    def called(self, twin: str) -> str:
        """Return a twin as its doctor knows it: by her name, with the twin's own, since she may have several."""
        name = self._of(twin).name
        return twin if name == twin else f"{name} ({twin})"

    def _of(self, twin: str) -> Doctor:
        known = self._twins.known(twin)
        members = self._roster.for_twin(twin)
        if known is not None and known.doctor is not None:
            return Doctor(twin, known.doctor, known.licence, known.specialty, True, len(members))
        said = (
            each.doctor for member in members if member.announcement is not None
            for each in member.announcement.twins if each.name == twin and each.doctor
        )  # fmt: skip
        return Doctor(twin, next(said, twin), None, None, False, len(members))
