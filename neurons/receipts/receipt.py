"""The receipt: which weights answered which question with which words, signed by the miner's hotkey."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bettertherapy_api.faults import first_fault
from neurons.receipts.canonical import NotCanonicalError, canonical, parse_canonical
from neurons.receipts.keys import Keypair, is_signed_by, scheme_of

FORMAT: Final = "bettertherapy-receipt/1"
MAX_ENCODED: Final = 8192
"""Characters of a receipt; a real one has about a thousand."""
_SIGNED_AFTER: Final = f"{FORMAT}\n".encode()
"""Stands before the signed bytes: a signature of anything else can't be taken for a receipt's."""
_AFTER_SIGNATURE: Final = b',"time":'
"""What follows the signature in a receipt's canonical form."""

_BEGINS: Final = "eyJ"
"""Of each JSON object in base64."""
_COPY: Final = "Copy the whole value of the header."

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""What a terminal shows as it is."""


class ReceiptError(ValueError):
    """It is no receipt, or one that this release can't read; the message is a sentence."""


class BaseModelNamed(BaseModel):
    """The base model under the adapter: name and revision as the pool names it, the digest as it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    revision: Name | None
    """Its revision, if the pool names one."""
    digest: Digest | None
    """Digest over its files, as hashed where the answer was given; None where nobody measured it."""


class Receipt(BaseModel):
    """One answer's receipt. All members are signed, but for `signature`.

    Strict, and none has a default: what is held against the signature is what stands in the document, and nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["bettertherapy-receipt/1"]
    question: Digest
    answer: Digest
    choices: Annotated[int, Field(ge=1, le=128)]
    """How many answers were drawn; the digest is over all of them."""
    unsigned: Annotated[tuple[Name, ...], Field(max_length=16)]
    """What was answered beside text, which no digest covers: `tool_calls`, `reasoning_content`."""
    twin: Name
    adapter: Digest | None
    """Digest of the adapter that answered; None: the base model itself."""
    base: BaseModelNamed
    cached: bool
    """The answer was given before to the same question, and not made anew."""
    time: Annotated[int, Field(ge=0, le=2**53)]
    """When the answer was complete, in milliseconds since 1970 (UTC)."""
    hotkey: Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$")]
    """ss58 address of the miner."""
    scheme: Literal["sr25519", "ed25519"]
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{128}$")]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole document."""
        return self.model_dump(mode="json")

    def encode(self) -> str:
        """Return it as header and event carry it: base64url, without padding, of its canonical JSON."""
        return base64.urlsafe_b64encode(canonical(self.to_dict())).rstrip(b"=").decode()

    def is_genuine(self) -> bool:
        """Tell whether the hotkey that it names signed all that it says."""
        # As `to_dict` has it, for a third of the time: a gateway proves each answer.
        document = {**self.__dict__, "base": self.base.__dict__}
        signature = bytes.fromhex(document.pop("signature").removeprefix("0x"))
        return is_signed_by(self.hotkey, _SIGNED_AFTER + canonical(document), signature, scheme=self.scheme)


class ReceiptSigner:
    """Signs receipts with one hotkey; nearly all of the time the signature takes."""

    def __init__(self, keypair: Keypair) -> None:
        self._sign = keypair.sign
        self.hotkey = str(keypair.ss58_address)
        self._scheme = scheme_of(keypair)

    def sign(
        self,
        *,
        question: str,
        answer: str,
        twin: str,
        adapter: str | None,
        base: Mapping[str, str | None],
        time_ms: int,
        choices: int = 1,
        unsigned: tuple[str, ...] = (),
        cached: bool = False,
    ) -> str:
        """Return an encoded receipt; `base` has the members of `BaseModelNamed`.

        The caller's values are trusted to have the receipt's form: a reader checks it.
        """
        document: dict[str, Any] = {
            "format": FORMAT, "question": question, "answer": answer, "choices": choices, "unsigned": unsigned,
            "twin": twin, "adapter": adapter, "base": base, "cached": cached, "time": time_ms, "hotkey": self.hotkey,
            "scheme": self._scheme,
        }  # fmt: skip
        signed = canonical(document)
        signature = bytes(self._sign(_SIGNED_AFTER + signed)).hex()
        # It stands in its place among the sorted members. Within a text a quotation mark is escaped, so there is one.
        before, mark, after = signed.rpartition(_AFTER_SIGNATURE)
        whole = b'%b,"signature":"0x%b"%b%b' % (before, signature.encode(), mark, after)
        return base64.urlsafe_b64encode(whole).rstrip(b"=").decode()


def decode(text: str) -> Receipt:
    """Read a receipt as a header or an event carries it, or its JSON; raises ReceiptError.

    Whether it is genuine is another question: `Receipt.is_genuine`.
    """
    text = text.strip()
    if len(text) > MAX_ENCODED:
        raise ReceiptError(f"This is no receipt: it has more than {MAX_ENCODED} characters.")
    if text.startswith("{"):
        data = text.encode("utf-8", "surrogatepass")
    else:
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            if text.startswith(_BEGINS) and len(text) % 4 == 1:
                raise ReceiptError(f"This is no receipt: it was cut short. {_COPY}") from None
            raise ReceiptError(f"This is no receipt: it is not base64url. {_COPY}") from None
    try:
        document = parse_canonical(data)
    except NotCanonicalError as error:
        cut = data.startswith(b'{"') and not data.endswith(b"}")
        raise ReceiptError(f"This is no receipt: {'it was cut short' if cut else error}. {_COPY}") from None
    if (said := document.get("format")) != FORMAT:
        raise ReceiptError(f"This is a document of format {str(said)[:60]!r}; this release reads {FORMAT}.")
    try:
        return Receipt.model_validate_json(data)  # of bytes, since only there a strict reader takes a list for a tuple
    except ValidationError as error:
        raise ReceiptError(f"This is a damaged receipt: {first_fault(error)}.") from None
