"""Which weights may answer a patient under a twin's name: what a gateway holds miners' answers against.

A gateway is told before miners change over, since it hears of it later than they do: of the version that answers, of
the one that should, and of the one on trial, from when it is being loaded on. What was refused or taken back may not,
and neither may what answered before: a miner that stays behind is to be noticed, and a version that was replaced may
have been so for a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final

from pydantic import Field, ValidationError

from bettertherapy_api.schema import ApiModel, Uid
from twin_operator.domain.objects import Twin, Unreadable
from twin_operator.domain.taken_back import taken_back
from twin_operator.domain.versions import canary_version, wanted_version

FORMAT: Final = "bettertherapy-twins/1"
BASE: Final = "base"
"""Stands for the base model itself."""
MAX_BYTES: Final = 900_000
"""Of the document, as far as twins are concerned that the gateway doesn't know yet."""
_GROWTH_BYTES: Final = 140_000
"""By so much those that it knows may grow beyond: one that is tried puts nobody out. A ConfigMap takes a mebibyte."""


class KnownTwin(ApiModel):
    """One twin, as the gateway's file has it."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    uid: Uid
    doctor: Annotated[str, Field(max_length=253)]
    licence: Annotated[str | None, Field(max_length=64)] = None
    """For pages, as what follows; a gateway without pages is told neither: one of a former release reads neither."""
    specialty: Annotated[str | None, Field(max_length=128)] = None
    digests: Annotated[tuple[Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|base)$")], ...], Field(max_length=64)]
    """The versions that may answer; none: nobody may."""

    @cached_property
    def line(self) -> str:
        """As it stands in the file."""
        return self.to_json()


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What a gateway is told."""

    twins: tuple[KnownTwin, ...]
    """By name."""
    left_out: tuple[str, ...] = ()
    """Names of the twins for which there is no room."""

    def document(self) -> str:
        """Return the file: the same twins give the same bytes."""
        entries = ",\n".join(each.line for each in self.twins)
        return f'{{"format":"{FORMAT}","twins":[\n{entries}\n]}}\n'


def may_answer(twin: Twin) -> tuple[str, ...]:
    """Return the digests that may answer under this twin's name now, `base` for the base model itself."""
    back = taken_back(twin.status, twin.annotations)
    told = (twin.status.active_version, wanted_version(twin), canary_version(twin))
    digests = dict.fromkeys(version.digest or BASE for version in told if version is not None)
    return tuple(digest for digest in digests if digest not in back)


def known_twin(twin: Twin, *, with_pages: bool = False) -> KnownTwin:
    """Return what a gateway is told of a twin; `with_pages`: also what its pages show of the doctor."""
    doctor = twin.spec.doctor
    shown = {"licence": doctor.licence, "specialty": doctor.specialty} if with_pages else {}
    return KnownTwin(name=twin.name, uid=twin.uid, doctor=doctor.name, digests=may_answer(twin), **shown)


def kept(former: KnownTwin, found: Unreadable, *, with_pages: bool = False) -> KnownTwin:
    """Return what a gateway goes on being told of a twin that can't be read, less what may not answer any more."""
    told = former.model_dump() if with_pages else former.model_dump(exclude={"licence", "specialty"})
    # Not a copy: that would bear the former one's line.
    return KnownTwin(**{**told, "digests": tuple(each for each in former.digests if each not in found.taken_back)})


def fitting(twins: Iterable[KnownTwin], *, known: Mapping[str, KnownTwin], most: int = MAX_BYTES) -> Answering:
    """Return the twins for which there is room; those that the gateway knows already (by UID) go before others.

    `most`: bytes of the document, beyond which only those that are known may grow, within bounds of their own.
    """
    room = most - len(Answering(twins=()).document())
    taken: list[KnownTwin] = []
    left_out: list[str] = []
    for twin in sorted(twins, key=lambda each: (each.uid not in known, each.name)):
        size = len(twin.line.encode()) + len(",\n")
        if size <= room + (_GROWTH_BYTES if twin.uid in known else 0):
            room -= size
            taken.append(twin)
        else:
            left_out.append(twin.name)
    return Answering(twins=tuple(sorted(taken, key=lambda each: each.name)), left_out=tuple(sorted(left_out)))


def read_known(entries: object) -> dict[str, KnownTwin]:
    """Return by UID what a gateway is told already, as it is stored; what can't be read of it is left out."""
    found: dict[str, KnownTwin] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            twin = KnownTwin.model_validate(entry)
        except ValidationError:
            continue
        found[twin.uid] = twin
    return found
