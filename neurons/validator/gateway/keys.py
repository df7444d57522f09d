"""API keys: who may ask, which twins, and how often. Only their hashes are kept.

Keys are made here and nowhere else (`python -m neurons.validator.gateway.keys NAME`): 256 random bits. A plain sha256
of such a key can't be turned round by guessing, which is what slow hashes as scrypt are for: those protect passwords
that people choose, and at a door they would let anybody spend 50 ms of our processor with each wrong key.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import re
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from neurons.miner.errors import RequestError, unknown_model
from neurons.validator.gateway.files import FollowedFile
from neurons.wire.rates import Rates

PREFIX: Final = "bt-"
MAX_KEY_CHARACTERS: Final = 256
VISITORS: Final = "pages."
"""How the names begin by which visitors of the pages are known inside; no client may be called so."""
_PATTERN: Final = re.compile(r"[*?\[]")
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Role(StrEnum):
    """What a key opens beside questions, on the pages (docs/pages.md)."""

    CLIENT = "client"
    DOCTOR = "doctor"
    """Reads, without names, what patients asked the key's twins, and corrects the answers."""
    OPERATOR = "operator"
    """Sees the miners and how they stand."""


class ApiKey(BaseModel):
    """One client's key."""

    model_config = _CONFIG

    id: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
    """The client's name; it stays when the key is replaced."""
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    twins: Annotated[tuple[str, ...], Field(max_length=1000)] | None = None
    """Names of twins, with * for any characters; None: all."""
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    burst: Annotated[int, Field(ge=1, le=100_000)] = 20
    role: Role = Role.CLIENT
    ends: AwareDatetime | None = None
    """From when on it is refused; None: it ends when it is taken out of the file."""

    @model_validator(mode="after")
    def _doctors_twins(self) -> ApiKey:
        if self.role is Role.DOCTOR and (not self.twins or any(_PATTERN.search(twin) for twin in self.twins)):
            raise ValueError("a doctor's key names each of its twins whole: it opens what their patients asked")
        return self

    @property
    def share(self) -> str:
        """By what it is known where a limit is shared: the pages' visitors are one, since each may be any number."""
        return VISITORS if self.id.startswith(VISITORS) else self.id

    def may_ask(self, twin: str) -> bool:
        """Tell whether this key is for that twin."""
        return self.twins is None or any(fnmatch.fnmatchcase(twin, pattern) for pattern in self.twins)


class KeysFile(BaseModel):
    """All keys. A client that changes its key has two entries for a while."""

    model_config = _CONFIG

    format: Literal["bettertherapy-keys/1"]
    keys: Annotated[tuple[ApiKey, ...], Field(max_length=10_000)]

    @model_validator(mode="after")
    def _each_once(self) -> KeysFile:
        if len({key.hash for key in self.keys}) < len(self.keys):
            raise ValueError("a key stands there twice: whose it is must be clear")
        if any(key.id.startswith(VISITORS) for key in self.keys):
            raise ValueError(f"`id` begins with {VISITORS!r}, as visitors of the pages are called inside: name it else")
        return self


class Keyring:
    """The keys that are accepted now."""

    def __init__(self, file: FollowedFile[KeysFile], *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970 (UTC)."""
        self._file, self._clock = file, clock
        self._generation = -1
        self._by_hash: dict[str, ApiKey] = {}
        self._clients = 0
        self._rates: dict[tuple[str, int, int], Rates] = {}
        """By client and limits: a client may have two keys with other limits for a while."""

    @property
    def clients(self) -> int:
        """How many have keys now."""
        self._index()
        return self._clients

    def count(self, key: ApiKey) -> None:
        """Count a request; raises RequestError (429)."""
        wait = self._take(key)
        if wait:
            raise RequestError(
                429, "rate_limit_error",
                f"this key may ask {key.per_minute} times a minute: wait {wait} s", code="key_rate", retry_after=wait,
            )  # fmt: skip

    def known(self, authorization: str | None) -> ApiKey:
        """Return whose key the header `Authorization` has; raises RequestError (401)."""
        token = _token(authorization)
        if token is None:
            raise RequestError(
                401, "authentication_error", "send the header `Authorization: Bearer KEY`", code="missing_api_key"
            )
        found = self._of_token(token)
        if found is None:
            raise RequestError(
                401, "authentication_error",
                "this key is not known here, or was taken back: ask the operator of this validator for one",
                code="invalid_api_key",
            )  # fmt: skip
        if found.ends is not None and self._has_ended(found):
            raise RequestError(
                401, "authentication_error",
                f"this key ended on {_iso(found.ends)}: ask the operator of this validator for another",
                code="api_key_ended",
            )  # fmt: skip
        return found

    def name_of(self, authorization: str | None) -> str | None:
        """Return whose key the header has, also of one that has ended; None of one that isn't known."""
        token = _token(authorization)
        found = self._of_token(token) if token is not None else None
        return found.id if found is not None else None

    def of_hash(self, kept: str) -> ApiKey | None:
        """Return the key with this hash, as long as it is accepted."""
        found = self._known(kept)
        return None if found is None or self._has_ended(found) else found

    def ended(self, kept: str) -> ApiKey | None:
        """Return the key with this hash if it is one that has ended."""
        found = self._known(kept)
        return found if found is not None and self._has_ended(found) else None

    def _of_token(self, token: str) -> ApiKey | None:
        # A look-up by hash: its time tells nothing of a key, since nobody can choose a hash.
        return self._known(hash_of(token)) if len(token) <= MAX_KEY_CHARACTERS else None

    def _known(self, kept: str) -> ApiKey | None:
        self._index()
        return self._by_hash.get(kept)

    def _has_ended(self, key: ApiKey) -> bool:
        return key.ends is not None and self._clock() >= key.ends.timestamp()

    def _take(self, key: ApiKey) -> int:
        limits = (key.id, key.per_minute, key.burst)
        rates = self._rates.get(limits)
        if rates is None:
            rates = self._rates[limits] = Rates(per_second=key.per_minute / 60, burst=key.burst)
        if wait := rates.wait(""):
            return wait
        rates.take("")
        return 0

    def _index(self) -> None:
        if self._generation == self._file.generation:
            return
        self._generation = self._file.generation
        self._by_hash = {key.hash: key for key in self._file.content.keys}
        self._clients = len({key.id for key in self._file.content.keys})
        kept = {(key.id, key.per_minute, key.burst) for key in self._file.content.keys}
        self._rates = {limits: rates for limits, rates in self._rates.items() if limits in kept}


def check_scope(key: ApiKey, twin: str) -> None:
    """Refuse a twin that the key is not for, in the words for one that doesn't exist; raises RequestError (404)."""
    if not key.may_ask(twin):
        raise unknown_model(twin)


def _token(authorization: str | None) -> str | None:
    """Return the key that a header has; None where it has none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> datetime:
    """Read a date or a moment of a command line, which is UTC unless it says else; raises ArgumentTypeError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2027-03-01, or 2027-03-01T18:00+05:45") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)


def hash_of(key: str) -> str:
    """Return what is kept of a key."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """Return a new key."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def main(arguments: list[str]) -> int:
    """Print a new key once, and the entry of the keys' file that accepts it."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.validator.gateway.keys", description="Make an API key; only its hash is to be kept."
    )
    parser.add_argument("id", help="the client's name")
    parser.add_argument("--twins", nargs="+", help="the twins that it may ask, with * for any characters")
    parser.add_argument("--per-minute", type=int, default=60, help="requests a minute (%(default)s)")
    parser.add_argument("--burst", type=int, default=20, help="requests at once (%(default)s)")
    parser.add_argument(
        "--role", choices=[str(role) for role in Role], default=str(Role.CLIENT), help="what it opens (%(default)s)"
    )
    parser.add_argument(
        "--ends", type=_moment, metavar="DATE",
        help="the day, in UTC, or the moment from which on it is refused, such as 2027-03-01 (when it is taken out)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    key = new_key()
    try:
        entry = ApiKey(
            id=given.id, hash=hash_of(key), twins=tuple(given.twins) if given.twins else None,
            per_minute=given.per_minute, burst=given.burst, role=Role(given.role),
            ends=given.ends,
        )  # fmt: skip
        KeysFile(format="bettertherapy-keys/1", keys=(entry,))
    except ValueError:
        parser.error(
            "the client's name has small letters, digits, and . _ - within, at most 64, and doesn't begin with "
            f"{VISITORS!r}; limits are above 0; a doctor's key names each of its --twins whole"
        )
    sys.stderr.write(f"The key, shown this once: {key}\nIts entry, for `keys` of the keys' file:\n")
    sys.stdout.write(orjson.dumps(entry.model_dump(mode="json", by_alias=True, exclude_none=True)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
