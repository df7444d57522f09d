"""A URL by which a task's dataset may be fetched until a time, signed by the validator's hotkey and no other secret.

Whoever has the URL has the dataset, as with a presigned URL of an object store: a trainer holds no hotkey.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from yarl import URL

from neurons.receipts import Keypair, canonical, is_signed_by, scheme_of
from neurons.wire.tasks import DATASET, EXAMINATION, path_of

_FORMS: Final = {DATASET: "bettertherapy-dataset/1", EXAMINATION: "bettertherapy-examination/1"}
"""What is signed begins with it: an address of the one opens nothing of the other."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_MOMENT: Final = re.compile(r"[0-9]{1,15}")


class CapabilityError(ValueError):
    """It opens nothing; the message is a sentence that holds nothing of the URL."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What may be fetched. Times in milliseconds since 1970."""

    task: str
    digest: str
    """Of the dataset."""
    start_ms: int
    end_ms: int
    """The day that it was made of: by these bounds it is made again."""
    until_ms: int
    what: str = DATASET
    """Or EXAMINATION: for the validator's own, which may have what no miner is given."""


def signed_url(keypair: Keypair, capability: Capability, *, base: str) -> str:
    """Return the URL at the gateway whose origin is `base`."""
    query = {
        "digest": capability.digest, "from": str(capability.start_ms), "to": str(capability.end_ms),
        "until": str(capability.until_ms), "signature": bytes(keypair.sign(_signed(capability))).hex(),
    }  # fmt: skip
    return str(URL(base).with_path(path_of(capability.task, capability.what)).with_query(query))


def read_capability(
    task: str, query: Mapping[str, str], *, keypair: Keypair, now_ms: int, what: str = DATASET
) -> Capability:
    """Return what a URL of this gateway opens, by the keypair that signed it. Raises CapabilityError."""
    digest, signature = query.get("digest", ""), query.get("signature", "")
    moments = [query.get(name, "") for name in ("from", "to", "until")]
    if not _DIGEST.fullmatch(digest) or not _SIGNATURE.fullmatch(signature) or not all(map(_MOMENT.fullmatch, moments)):
        raise CapabilityError("The address is not one that this validator made.")
    start_ms, end_ms, until_ms = map(int, moments)
    found = Capability(task, digest, start_ms, end_ms, until_ms, what)
    address, scheme = str(keypair.ss58_address), scheme_of(keypair)
    if not is_signed_by(address, _signed(found), bytes.fromhex(signature), scheme=scheme):
        raise CapabilityError("The address is not one that this validator made.")
    if now_ms > found.until_ms:
        raise CapabilityError("The task's time is over.")
    return found


def _signed(capability: Capability) -> bytes:
    document = {
        "task": capability.task, "digest": capability.digest, "from": capability.start_ms, "to": capability.end_ms,
        "until": capability.until_ms,
    }  # fmt: skip
    return f"{_FORMS[capability.what]}\n".encode() + canonical(document)
