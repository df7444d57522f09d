"""The miner's door for signed requests (btauth/1): who it is, whether it is new, and whether it may.

In this order, each step cheaper for us than what it keeps out:

1. by the headers alone: form, receiver, age, and whether the hotkey it claims to be may call at all. No body is read
   for a stranger.
2. the age again, since a body may take its time, and the signature, over the body's hash. Not by the SDK's `verify`: it
   would read all headers anew, and its nonce store would block the event loop.
3. the caller's rate, not yet counted: who is over it puts nothing into the store. It is looked at again after 4.
4. the nonce, taken down by one atomic write. Only who has signed gets so far, so nobody else can fill the store; and a
   replay costs its victim nothing, because
5. the rate is counted for what is new only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from bittensor import http_auth
from bittensor.wallets import CRYPTO_TYPE_NAMES, DEFAULT_CRYPTO_TYPE, parse_crypto_type
from bittensor_core import verify
from multidict import CIMultiDict, CIMultiDictProxy, istr

from neurons.receipts import Metagraph, Neuron
from neurons.wire.metagraph import MetagraphSource, Reading
from neurons.wire.nonces import Nonces, StoreDown, StoreForgot
from neurons.wire.payload import body_digest, payload
from neurons.wire.rates import Rates
from neurons.wire.refusals import not_admitted, too_often, undecidable, unproven

RETRY_SECONDS: Final = 5
MAX_NONCE_DIGITS: Final = 20
SIGNATURE_BYTES: Final = 64
_ADDRESS_LENGTHS: Final = range(40, 65)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who is let in. Times in seconds."""

    max_age: float = http_auth.DEFAULT_MAX_AGE
    """A request may be so old when it arrives."""
    allowed_skew: float = http_auth.DEFAULT_ALLOWED_SKEW
    """The caller's clock may be so far ahead."""
    validator_permit: bool = True
    """Callers must have one."""
    min_stake: float = 0.0
    """Alpha that callers must have at stake."""
    per_second: float = 50.0
    """Requests of one hotkey on average, at each replica."""
    burst: int = 100


class Caller(NamedTuple):
    """A neuron that proved who it is and may call."""

    hotkey: str
    uid: int
    nonce_ns: int


class Presented(NamedTuple):
    """What the headers of a request claim, and nothing else of it was looked at."""

    hotkey: str
    uid: int
    nonce_ns: int
    crypto_type: int
    """By the SDK's numbers."""
    signature: bytes


_REQUIRED: Final = (
    http_auth.HEADER_VERSION, http_auth.HEADER_HOTKEY, http_auth.HEADER_NONCE, http_auth.HEADER_SIGNATURE
)  # fmt: skip
_OWN: Final = {
    istr(name): name for name in (*_REQUIRED, http_auth.HEADER_RECEIVER, http_auth.HEADER_CRYPTO)
}  # as a server's headers have their names: to be looked up without being read anew


class Admission:
    """Decides on signed requests to one hotkey. Every refusal is a `WireRefusal`."""

    def __init__(
        self,
        *,
        hotkey: str,
        policy: Policy,
        nonces: Nonces,
        source: MetagraphSource,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hotkey, self._policy, self._nonces, self._source = hotkey, policy, nonces, source
        self._clock_ns = clock_ns
        self._rates = Rates(per_second=policy.per_second, burst=policy.burst)
        self._indexed: Metagraph | None = None
        self._neurons: dict[str, Neuron] = {}

    def present(self, headers: Mapping[str, str]) -> Presented:
        """Look at the headers alone, before the body is read; raises WireRefusal."""
        own = _own_headers(headers)
        if own[http_auth.HEADER_VERSION] != http_auth.VERSION:
            raise unproven("malformed", f"this miner speaks btauth/1: send {http_auth.HEADER_VERSION}: 1")
        self._for_us(own.get(http_auth.HEADER_RECEIVER))
        nonce_ns = _nonce_of(own[http_auth.HEADER_NONCE])
        self._fresh(nonce_ns)
        hotkey = own[http_auth.HEADER_HOTKEY]
        uid = self._admitted(hotkey).uid
        return Presented(
            hotkey, uid, nonce_ns, _crypto_type_of(own.get(http_auth.HEADER_CRYPTO)),
            _signature_of(own[http_auth.HEADER_SIGNATURE]),
        )  # fmt: skip

    async def admit(self, presented: Presented, body: bytes, *, method: str, target: str) -> Caller:
        """Verify the whole request; raises WireRefusal. `target`: path and query, percent-encoded, as they were sent.

        The body must have been bounded before: it is hashed here.
        """
        hotkey, nonce_ns = presented.hotkey, presented.nonce_ns
        self._fresh(nonce_ns)
        try:
            signed = payload(
                scheme=CRYPTO_TYPE_NAMES[presented.crypto_type], method=method, target=target, digest=body_digest(body),
                nonce_ns=nonce_ns, sender=hotkey, receiver=self.hotkey,
            )  # fmt: skip
            is_genuine = verify(signed, presented.signature, hotkey, presented.crypto_type)
        except ValueError:  # an address that is none, a path that is no text
            raise unproven(
                "malformed", "the request is not signed as btauth/1 says: address or path are none"
            ) from None
        if not is_genuine:
            raise unproven(
                "bad_signature",
                f"the signature is not by {hotkey} over this request: sign method, path with its query, and body "
                "exactly as they are sent",
            )
        self._within_rate(hotkey)
        await self._take_down(hotkey, nonce_ns)
        self._within_rate(hotkey)  # others of its own may have come in while the store was asked
        self._rates.take(hotkey)
        return Caller(hotkey, presented.uid, nonce_ns)

    def _within_rate(self, hotkey: str) -> None:
        if wait := self._rates.wait(hotkey):
            raise too_often(
                f"{hotkey} asks more often than {self._policy.per_second:g} times a second: wait {wait} s",
                retry_after=wait,
            )

    def _for_us(self, receiver: str | None) -> None:
        if receiver != self.hotkey:
            raise unproven(
                "wrong_receiver",
                f"the request is signed for another receiver: this miner's hotkey is {self.hotkey}, name it in "
                f"{http_auth.HEADER_RECEIVER} and sign anew",
            )

    def _fresh(self, nonce_ns: int) -> None:
        age_ns = self._clock_ns() - nonce_ns
        if age_ns > self._policy.max_age * 1e9 or -age_ns > self._policy.allowed_skew * 1e9:
            raise unproven(
                "stale",
                f"the request was signed more than {self._policy.max_age:g} s ago, or {self._policy.allowed_skew:g} s "
                "ahead of this miner's clock: set the clock right, and sign anew for each try",
            )

    def _admitted(self, hotkey: str) -> Neuron:
        """Return the caller's row; raises WireRefusal (403, or 503 while nobody can be known)."""
        reading = self._source.latest()
        metagraph = reading.metagraph
        if metagraph is None:
            # Its kind alone: the words may hold the endpoint, and in its URL a key, and nobody has proven who asks.
            why = type(reading.problem).__name__ if reading.problem is not None else "it has just begun"
            raise undecidable(
                "no_metagraph",
                f"this miner has read no metagraph yet ({why}): try again",
                retry_after=RETRY_SECONDS,
            )
        if metagraph is not self._indexed:
            self._neurons = {neuron.hotkey: neuron for neuron in metagraph.neurons}
            self._indexed = metagraph
            self._rates.keep(set(self._neurons))
        neuron, as_of = self._neurons.get(hotkey), _as_of(metagraph, reading)
        if neuron is None:
            said = hotkey if len(hotkey) in _ADDRESS_LENGTHS and hotkey.isalnum() else "the caller's hotkey"
            raise not_admitted("not_registered", f"{said} is not registered on {as_of}: register it, or send a token")
        if self._policy.validator_permit and not neuron.validator_permit:
            raise not_admitted("no_permit", f"UID {neuron.uid} has no validator permit on {as_of}")
        if neuron.stake < self._policy.min_stake:
            raise not_admitted(
                "little_stake",
                f"UID {neuron.uid} has {neuron.stake:g} alpha at stake on {as_of}: this miner answers validators with "
                f"{self._policy.min_stake:g} or more",
            )
        return neuron

    async def _take_down(self, hotkey: str, nonce_ns: int) -> None:
        try:
            new = await self._nonces.remember(hotkey, nonce_ns)
        except StoreDown as error:
            raise undecidable(
                "nonce_store_down",
                f"the store of nonces can't be asked ({error}), so nobody can tell a replay: signed requests wait "
                "until it is back",
                retry_after=RETRY_SECONDS,
            ) from None
        except StoreForgot:
            raise undecidable(
                "nonce_store_new",
                "the request was signed before this miner's store of nonces began, which may have accepted it before "
                "it forgot: sign anew",
                retry_after=max(1, round(self._policy.allowed_skew + 0.5)),
            ) from None
        if not new:
            raise unproven("replayed", "this request was accepted before: sign each try anew, with a nonce of its own")


def _own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return btauth's headers; raises WireRefusal where one is missing or there twice.

    Twice, it could be one caller's for who looks at the first, and another's for who looks at the last.
    """
    given = headers if isinstance(headers, CIMultiDictProxy | CIMultiDict) else CIMultiDict(headers)
    found: dict[str, str] = {}
    for name, own in _OWN.items():
        values = given.getall(name, ())
        if len(values) > 1:
            raise unproven("malformed", f"the header {own} is there twice: send it once")
        if values:
            found[own] = values[0]
    for own in _REQUIRED:
        if not found.get(own):
            raise unproven(
                "malformed", f"the header {own} is missing: sign the request as btauth/1 says, or send a token"
            )
    return found


def _nonce_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_NONCE_DIGITS):
        raise unproven("malformed", f"{http_auth.HEADER_NONCE} is no time in nanoseconds since 1970")
    return int(text)


def _crypto_type_of(text: str | None) -> int:
    """Return the scheme's number, of the header as the SDK reads it; sr25519 without one."""
    if text is None:
        return int(DEFAULT_CRYPTO_TYPE)
    try:
        return int(parse_crypto_type(text))
    except ValueError:
        raise unproven("malformed", f"{http_auth.HEADER_CRYPTO} is neither sr25519 nor ed25519") from None


def _signature_of(text: str) -> bytes:
    try:
        signature = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        signature = b""
    if len(signature) != SIGNATURE_BYTES:
        raise unproven(
            "malformed", f"{http_auth.HEADER_SIGNATURE} is no signature: send 0x and its 64 bytes as hex digits"
        )
    return signature


def _as_of(metagraph: Metagraph, reading: Reading) -> str:
    """Return how old what we know is, so that a refusal can be understood while the chain is away."""
    age = reading.age_seconds
    return f"subnet {metagraph.netuid} as of block {metagraph.block}" + (
        f", read {age / 60:.0f} min ago" if age >= 120 else ""
    )
