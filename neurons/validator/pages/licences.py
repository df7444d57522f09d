"""Whether a register lists a doctor's licence: plug-ins by name, and NPPES as the free one.

A register that can't be asked says nothing for or against a doctor: the page then shows "not checked".
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Annotated, Any, Final, Literal, Protocol

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

log = logging.getLogger(__name__)

ENTRY_POINTS: Final = "bettertherapy.licence_registers"
"""Group of entry points: a name, and a callable that takes an aiohttp.ClientSession and returns a Register."""
KEEP_SECONDS: Final = 24 * 3600.0
RETRY_SECONDS: Final = 300.0
"""A register that couldn't be asked is asked again after so long."""
ASK_SECONDS: Final = 5.0
MAX_KEPT: Final = 20_000
MAX_BYTES: Final = 256 * 1024


class Finding(StrEnum):
    """What a register says."""

    LISTED = "listed"
    """It lists the number, under this doctor's name, as active."""
    OTHER_NAME = "otherName"
    """It lists the number, under another name."""
    INACTIVE = "inactive"
    UNLISTED = "unlisted"
    NOT_CHECKED = "notChecked"
    """No register knows such numbers, or it couldn't be asked."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A finding with who found it."""

    finding: Finding
    register: str = ""


NOT_CHECKED: Final = Checked(Finding.NOT_CHECKED)


class RegisterDown(Exception):  # noqa: N818 - said of the register
    """A register couldn't be asked, or answered with something else; the message is a sentence."""


class Register(Protocol):
    """A public register of licences."""

    @property
    def name(self) -> str:
        """How people call it."""

    def knows(self, licence: str) -> bool:
        """Tell whether the number is of a kind that this register has."""

    async def look_up(self, licence: str, doctor: str) -> Finding:
        """Return what it says of this number and this doctor's name. Raises RegisterDown."""


class Licences:
    """Asks the registers, in the background, and remembers what they said for a day."""

    def __init__(self, registers: Sequence[Register], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registers, self._clock = registers, clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Checked]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def check(self, licence: str | None, doctor: str | None, *, wait_seconds: float) -> Checked:
        """Return what is known, after waiting for a register no longer than that; it is asked on meanwhile."""
        if not licence or not doctor:
            return NOT_CHECKED
        asked = (licence, doctor)
        known = self._known.get(asked)
        if known is None or self._clock() >= known[0]:
            register = next((each for each in self._registers if each.knows(licence)), None)
            if register is None:
                return NOT_CHECKED
            if asked not in self._asking:
                task = self._asking[asked] = asyncio.create_task(self._ask(register, asked))
                task.add_done_callback(lambda _: self._asking.pop(asked, None))
            if wait_seconds > 0:
                await asyncio.wait({self._asking[asked]}, timeout=wait_seconds)
            known = self._known.get(asked)
        return NOT_CHECKED if known is None or self._clock() >= known[0] else known[1]

    async def close(self) -> None:
        """Ask no more."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _ask(self, register: Register, asked: tuple[str, str]) -> None:
        found, keep = Checked(Finding.NOT_CHECKED), RETRY_SECONDS
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found, keep = Checked(await register.look_up(*asked), register.name), KEEP_SECONDS
        except RegisterDown as error:
            log.warning("a licence could not be checked: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in does, no page may fail by it
            log.warning("a licence could not be checked", extra={"why": type(error).__name__})
        self._known[asked] = (self._clock() + keep, found)
        self._known.move_to_end(asked)
        while len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)


# NPPES, the register of American care providers (CMS), as npiregistry.cms.hhs.gov/api-page documents version 2.1.

NPPES: Final = URL("https://npiregistry.cms.hhs.gov/api/")
_NPI: Final = re.compile(r"(?:NPI[\s:#-]*)([12][0-9]{9})", re.IGNORECASE)


class _Basic(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    first_name: str = ""
    last_name: str = ""
    status: str = ""


class _OtherName(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    first_name: str = ""
    last_name: str = ""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    number: str | int
    enumeration_type: Literal["NPI-1", "NPI-2"]
    """A person, or an organisation."""
    basic: _Basic
    other_names: tuple[_OtherName, ...] = ()


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    result_count: Annotated[int, Field(ge=0)]
    results: tuple[_Entry, ...] = ()


class Nppes:
    """Licences written as `NPI 1234567893`. It says who has the number, not that a licence to practise is in force."""

    name = "NPPES"

    def __init__(self, session: aiohttp.ClientSession, *, url: URL = NPPES) -> None:
        self._session, self._url = session, url

    def knows(self, licence: str) -> bool:
        """Tell whether it is a National Provider Identifier, by its form."""
        return _NPI.fullmatch(licence.strip()) is not None

    async def look_up(self, licence: str, doctor: str) -> Finding:
        """See `Register.look_up`."""
        match = _NPI.fullmatch(licence.strip())
        if match is None or not _is_npi(match[1]):
            return Finding.UNLISTED
        query = {"version": "2.1", "number": match[1]}
        try:
            async with self._session.get(self._url.with_query(query), allow_redirects=False) as response:
                if response.status != 200:
                    raise RegisterDown(f"NPPES answered {response.status}.")
                data = await response.content.read(MAX_BYTES + 1)
                while not response.content.at_eof() and len(data) <= MAX_BYTES:
                    data += await response.content.read(MAX_BYTES + 1 - len(data))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegisterDown(f"NPPES can't be reached: {type(error).__name__}.") from None
        if len(data) > MAX_BYTES:
            raise RegisterDown("NPPES answered with more than it should.")
        try:
            answer = _Answer.model_validate_json(data)  # its errors have no `result_count`
        except ValidationError:
            raise RegisterDown("NPPES answered with something that is no result.") from None
        entry = next((each for each in answer.results if str(each.number) == match[1]), None)
        if entry is None or entry.enumeration_type != "NPI-1":
            return Finding.UNLISTED
        names = [(entry.basic.first_name, entry.basic.last_name)]
        names += [(each.first_name or entry.basic.first_name, each.last_name) for each in entry.other_names]
        if not any(_is_named(doctor, first, last) for first, last in names):
            return Finding.OTHER_NAME
        return Finding.LISTED if entry.basic.status == "A" else Finding.INACTIVE


def _is_npi(number: str) -> bool:
    """Tell whether the check digit is right: Luhn's over 80840 and the number (45 CFR 162.406)."""
    total = 0
    for place, digit in enumerate(reversed("80840" + number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_named(doctor: str, first: str, last: str) -> bool:
    """Tell whether the doctor's name has both, each as whole words."""
    words = _words(doctor)
    return all(part and set(part) <= set(words) for part in (_words(first), _words(last)))


def _words(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.findall(r"[^\W\d_]+", "".join(each for each in plain if not unicodedata.combining(each)))


# By name

BUILT_IN: Final[dict[str, Callable[[aiohttp.ClientSession], Register]]] = {"nppes": Nppes}


class RegisterSettingError(ValueError):
    """The setting names no registers; the message is a sentence."""


def registers(names: Sequence[str], session: aiohttp.ClientSession) -> tuple[Register, ...]:
    """Return the registers of these names, our own and those of installed packages. Raises RegisterSettingError."""
    return tuple(_made(name)(session) for name in names)


def _made(name: str) -> Callable[[aiohttp.ClientSession], Register]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    offered = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted({*BUILT_IN, *offered}))
        raise RegisterSettingError(
            f"there is no register {name[:60]!r}: {known}. A plug-in is an installed package with an entry point in "
            f"the group {ENTRY_POINTS}"
        )
    try:
        loaded: Any = offered[name].load()
    except Exception as error:
        raise RegisterSettingError(f"the register {name[:60]!r} can't be loaded: {type(error).__name__}") from error
    made: Callable[[aiohttp.ClientSession], Register] = loaded
    return made
