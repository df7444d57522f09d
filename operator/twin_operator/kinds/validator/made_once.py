"""What a validator needs beside its children: made once where there is none, and never read, changed or deleted.

The claim of an embedded ledger and the secret of session ids outlive the Validator, and are found again by one of the
same name: without the one what patients said is lost, without the other nobody's records can be found any more. The
keys go with it. The operator may create these and read none, so it asks whether they exist by a dry run
(kinds.miner_pool does the same for tokens).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import orjson

from bettertherapy_api import names
from twin_operator.domain.objects import Validator
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner
from twin_operator.engine.resources import PERSISTENT_VOLUME_CLAIM, SECRET, Key, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.validator.datasets import SECRET_FIELD
from twin_operator.kinds.validator.gateway_deployment import keys_secret_name
from twin_operator.kinds.validator.labels import GATEWAY, labels

log = logging.getLogger(__name__)

CLIENT: Final = "default"
OPERATOR: Final = "operator"
"""The client whose key is made; others are added to the file."""
STATE_SIZE: Final = "10Gi"
MISSING_AGAIN_SECONDS: Final = 10.0
"""A Secret's creation and its end are no events here: nobody watches Secrets."""
FOUND_AGAIN_SECONDS: Final = 20.0
_FRESH_SECONDS: Final = 300.0
_YOUNG_SECONDS: Final = 120.0
"""So long after a validator was first looked at, keys that were found may be the former one's of that name, about to be
taken by the garbage collector."""


@dataclass(frozen=True, kw_only=True)
class Needed:
    """One object that must be there."""

    probe: Manifest
    """What is asked for as a dry run."""
    make: Callable[[], Manifest] | None
    """What is made where there is none; None: it is a person's to make."""
    field: str
    """Where the spec names it, or could."""
    kept: bool = False
    """Whether it outlives the Validator."""

    @property
    def key(self) -> Key:
        """Which object it is."""
        metadata = self.probe["metadata"]
        return Key(self.probe["kind"], metadata["namespace"], metadata["name"])


@dataclass(frozen=True, kw_only=True)
class Missing:
    """One that is not there."""

    key: Key
    field: str
    why: str | None = None
    """What the API server said when it was to be made or asked for; None: it is a person's to make."""
    certain: bool = True
    """Whether it is known to be missing. A quota that is full, or a webhook, refuses the question itself."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of all of them."""

    missing: tuple[Missing, ...] = ()
    failed: tuple[tuple[Key, ApiError], ...] = ()
    """Of which nothing was learned: the API server is away, or too busy. What was known of them before stands."""
    look_again: float | None = None
    """Seconds after which to ask again, as one may come or go soon."""


def needed_by(validator: Validator) -> tuple[Needed, ...]:
    """Return what the validator's pods can't start without."""
    spec = validator.spec
    own_keys = spec.gateway.keys_secret_ref is None
    found = [
        _named(validator, spec.wallet_secret_ref.name, "spec.walletSecretRef"),
        Needed(
            probe=_secret_probe(validator, keys_secret_name(validator)),
            make=(lambda: build_keys_secret(validator, key=new_key(), operator=new_key())) if own_keys else None,
            field="spec.gateway.keysSecretRef",
        ),
        Needed(
            probe=_secret_probe(validator, names.gateway_sessions_name(validator.name)),
            make=lambda: build_sessions_secret(validator, secret=secrets.token_urlsafe(32)),
            field="metadata.name", kept=True,
        ),
    ]  # fmt: skip
    store = spec.gateway.pages.store if spec.gateway.pages is not None else None
    if store is not None and store.secret_ref is not None:
        found.append(_named(validator, store.secret_ref.name, "spec.gateway.pages.store.secretRef"))
    tasks = spec.fine_tune_tasks
    if tasks is not None and tasks.store.secret_ref is not None:
        found.append(_named(validator, tasks.store.secret_ref.name, SECRET_FIELD))
    if spec.ledger is not None and spec.ledger.uri_secret_ref is not None:
        found.append(_named(validator, spec.ledger.uri_secret_ref.name, "spec.ledger.uriSecretRef"))
    else:
        claim = build_state_claim(validator)
        found.append(Needed(probe=claim, make=lambda: claim, field="spec.ledger", kept=True))
    return tuple(found)


def new_key() -> str:
    """Return a new API key, as `python -m neurons.validator.gateway.keys` makes them."""
    return f"bt-{secrets.token_urlsafe(32)}"


def build_keys_secret(validator: Validator, *, key: str, operator: str) -> Manifest:
    """Return the Secret with a client's and an operator's key: hashes in the gateway's file, and in clear beside it."""
    known = [{"id": CLIENT, "hash": _hash(key)}, {"id": OPERATOR, "hash": _hash(operator), "role": "operator"}]
    document = {"format": "bettertherapy-keys/1", "keys": known}
    data = {
        names.KEYS_FILE: orjson.dumps(document), names.KEY_ITEM: key.encode(),
        names.OPERATOR_KEY_ITEM: operator.encode(),
    }  # fmt: skip
    return _secret(validator, names.gateway_keys_name(validator.name), data)


def _hash(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def build_sessions_secret(validator: Validator, *, secret: str) -> Manifest:
    """Return the Secret that session ids and patients' pseudonyms are made with."""
    name = names.gateway_sessions_name(validator.name)
    return _secret(validator, name, {names.SESSIONS_FILE: secret.encode()})


def build_state_claim(validator: Validator) -> Manifest:
    """Return the claim of an embedded ledger."""
    ledger = validator.spec.ledger
    size = ledger.size if ledger is not None and ledger.size is not None else STATE_SIZE
    named = ledger.storage_class_name if ledger is not None else None
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": _metadata(validator, names.gateway_state_name(validator.name)),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(size)}},
            **({"storageClassName": named} if named else {}),
        },
    }


class MadeOnce:
    """Makes or looks for these objects of all validators."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[Key, ...], Standing]] = {}
        self._since: dict[str, float] = {}

    async def ensure(self, validator: Validator, owner: Owner) -> Standing:
        """Return what is missing, after making what is the operator's to make; each of them by itself."""
        now, needed = self._clock(), needed_by(validator)
        keys = tuple(each.key for each in needed)
        known = self._known.get(validator.uid)
        if known is not None and known[1] == keys and now < known[0]:
            return known[2]
        young = now < self._since.setdefault(validator.uid, now) + _YOUNG_SECONDS
        missing: list[Missing] = []
        failed: list[tuple[Key, ApiError]] = []
        former = {each.key: each for each in known[2].missing} if known is not None else {}
        for each in needed:
            found = former.get(each.key)
            if not _away(failed):
                try:
                    found = await self._look(each, owner)
                except ApiError as error:
                    failed.append((each.key, error))
            if found is not None:
                missing.append(found)
        if failed:
            return Standing(missing=tuple(missing), failed=tuple(failed))
        again = MISSING_AGAIN_SECONDS if any(each.certain for each in missing) else FOUND_AGAIN_SECONDS
        standing = Standing(missing=tuple(missing), look_again=again if missing or young else None)
        fresh = standing.look_again / 2 if standing.look_again else _FRESH_SECONDS
        self._known[validator.uid] = (now + fresh, keys, standing)
        return standing

    def forget(self, uid: str) -> None:
        """Drop what is known of a validator that is gone."""
        self._known.pop(uid, None)
        self._since.pop(uid, None)

    async def _look(self, needed: Needed, owner: Owner) -> Missing | None:
        missing, absent = Missing(key=needed.key, field=needed.field), False
        try:
            absent = await self._api.would_create(needed.probe)
            if not absent:
                return None
            if needed.make is None:
                return missing
            made = needed.make()
            if not needed.kept:
                made = {**made, "metadata": {**made["metadata"], "ownerReferences": [owner.reference()]}}
            await self._api.create(made)
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return None  # made between the two requests
            if error.status == 0 or error.status >= 500 or error.status == 429:
                raise
            log.warning("%s: %s", needed.key, error.message)
            return replace(missing, why=error.message, certain=absent)
        log.info("made %s", needed.key)
        return None


def _away(failed: list[tuple[Key, ApiError]]) -> bool:
    """Tell whether the API server gives no answer: each further question would wait as long for none."""
    return any(error.status == 0 for _, error in failed)


def _named(validator: Validator, name: str, field: str) -> Needed:
    return Needed(probe=_secret_probe(validator, name), make=None, field=field)


def _secret_probe(validator: Validator, name: str) -> Manifest:
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": name, "namespace": validator.namespace},
    }


def _secret(validator: Validator, name: str, data: dict[str, bytes]) -> Manifest:
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": _metadata(validator, name),
        "type": "Opaque",
        "data": {item: base64.b64encode(value).decode() for item, value in data.items()},
    }


def _metadata(validator: Validator, name: str) -> Manifest:
    return {"name": name, "namespace": validator.namespace, "labels": labels(validator, GATEWAY)}
