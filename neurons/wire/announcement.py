"""The announcement: which twins a miner serves now, by which adapters, signed by its hotkey (`docs/receipts.md`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bettertherapy_api.faults import first_fault
from neurons.receipts import (
    BaseModelNamed,
    Keypair,
    NotCanonicalError,
    canonical,
    is_signed_by,
    parse_canonical,
    scheme_of,
)
from neurons.receipts.receipt import Digest, Name

FORMAT: Final = "bettertherapy-announcement/1"
PATH: Final = "/v1/announcement"
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_TWINS: Final = 20_000
MAX_VERSIONS: Final = 2 * MAX_TWINS
"""Of all twins together: most have one, or two while one is on trial."""
MAX_AGE_SECONDS: Final = 60.0
SKEW_SECONDS: Final = 5.0
_SIGNED_AFTER: Final = f"{FORMAT}\n".encode()
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class AnnouncementError(ValueError):
    """It is no announcement, or none of the miner that was asked, or an old one; the message is a sentence."""


class AnnouncedVersion(BaseModel):
    """One version that answers."""

    model_config = _CONFIG

    adapter: Digest | None
    """None: the base model itself."""
    weight_percent: Annotated[int, Field(ge=0, le=100)]
    """Share of the twin's conversations that it answers."""
    pods: Annotated[int, Field(ge=0)]
    """Engine pods that hold it, verified."""


class AnnouncedTwin(BaseModel):
    """One twin that can answer now."""

    model_config = _CONFIG

    name: Name
    doctor: Annotated[str, Field(max_length=253)] | None = None
    versions: Annotated[tuple[AnnouncedVersion, ...], Field(max_length=64)]


class Announcement(BaseModel):
    """All members are signed, but for `signature`."""

    model_config = _CONFIG

    format: Literal["bettertherapy-announcement/1"] = FORMAT
    hotkey: Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$")]
    netuid: Annotated[int, Field(ge=0, le=65535)] | None
    """The subnet; None for a miner that names none."""
    time: Annotated[int, Field(ge=0, le=2**53)]
    """When it was signed, in milliseconds since 1970 (UTC)."""
    base: BaseModelNamed
    twins: Annotated[tuple[AnnouncedTwin, ...], Field(max_length=MAX_TWINS)]
    """By name."""
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]

    @cached_property
    def held(self) -> Mapping[str, frozenset[str | None]]:
        """The adapters that answer now, by twin; of a twin without any there is no entry."""
        found: dict[str, set[str | None]] = {}
        for each in self.twins:
            for version in each.versions:
                if version.pods:
                    found.setdefault(each.name, set()).add(version.adapter)
        return {name: frozenset(adapters) for name, adapters in found.items()}

    def holds(self, twin: str, adapter: str | None) -> bool:
        """Tell whether the miner says that this version of the twin answers."""
        return adapter in self.held.get(twin, ())


def announce(
    keypair: Keypair,
    *,
    netuid: int | None,
    time_ms: int,
    base: Mapping[str, str | None],
    twins: Sequence[Mapping[str, Any]],
) -> bytes:
    """Return a signed announcement; `base` and `twins` are documents of `BaseModelNamed` and `AnnouncedTwin`."""
    document: dict[str, Any] = {
        "format": FORMAT, "hotkey": str(keypair.ss58_address), "netuid": netuid, "time": time_ms, "base": base,
        "twins": sorted(twins, key=lambda twin: str(twin["name"])), "scheme": scheme_of(keypair),
    }  # fmt: skip
    document["signature"] = "0x" + bytes(keypair.sign(_SIGNED_AFTER + canonical(document))).hex()
    return canonical(document)


def read_announcement(
    data: bytes,
    *,
    hotkey: str,
    now_ms: int,
    netuid: int | None = None,
    max_age_seconds: float = MAX_AGE_SECONDS,
    skew_seconds: float = SKEW_SECONDS,
) -> Announcement:
    """Return what the miner of this hotkey announces.

    `hotkey`: the miner's, from the metagraph, never from the document. `netuid`: the subnet that it must be for.

    Raises:
        AnnouncementError: it is none, it is not that miner's, it was changed, or it is too old or from the future.
    """
    if len(data) > MAX_BYTES:
        raise AnnouncementError(f"The announcement has more than {MAX_BYTES} bytes.")
    try:
        document = parse_canonical(data)
        if _versions_in(document) > MAX_VERSIONS:  # before each becomes an object of its own, of many times its bytes
            raise AnnouncementError(f"The announcement has more than {MAX_VERSIONS} versions.")
        said = Announcement.model_validate(document)
    except NotCanonicalError as error:
        raise AnnouncementError(f"This is no announcement: {error}.") from None
    except ValidationError as error:
        raise AnnouncementError(f"This is no announcement ({FORMAT}): {first_fault(error)}.") from None
    if said.hotkey != hotkey:
        raise AnnouncementError(f"The announcement is of another miner, {said.hotkey}: {hotkey} was asked.")
    signature = bytes.fromhex(document.pop("signature").removeprefix("0x"))
    if not is_signed_by(hotkey, _SIGNED_AFTER + canonical(document), signature, scheme=said.scheme):
        raise AnnouncementError(f"{hotkey} did not sign this announcement: somebody made or changed it on the way.")
    if netuid is not None and said.netuid != netuid:
        raise AnnouncementError(f"The announcement is for subnet {said.netuid}, and not for {netuid}.")
    age = (now_ms - said.time) / 1000
    if age > max_age_seconds:
        raise AnnouncementError(f"The announcement is {age:.0f} s old, {max_age_seconds:g} s are allowed: ask anew.")
    if -age > skew_seconds:
        raise AnnouncementError(f"The announcement is {-age:.0f} s ahead of this clock: one of the clocks is wrong.")
    return said


def _versions_in(document: Mapping[str, Any]) -> int:
    """Return how many versions a document that nobody has checked yet seems to have."""
    twins = document.get("twins")
    found = [twin.get("versions") for twin in twins if isinstance(twin, dict)] if isinstance(twins, list) else []
    return sum(len(versions) for versions in found if isinstance(versions, list))
