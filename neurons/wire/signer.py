"""The caller's side of btauth/1: signs requests to a miner with a hotkey, each try anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from bittensor import http_auth
from yarl import URL

from neurons.receipts import Keypair, scheme_of
from neurons.wire.payload import body_digest, payload

MAX_WAIT_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 0.1
_DEFAULT_SCHEME: Final = "sr25519"
"""What a request without a header for it is signed by."""


class RequestSigner:
    """Signs with a keypair, nearly all of whose time the signature takes. (A `Wallet` would read its key file.)

    Its nonces are the clock's nanoseconds, and never the same twice.
    """

    def __init__(self, keypair: Keypair, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Raises ValueError for a key that can't sign here."""
        self._sign, self._clock_ns = keypair.sign, clock_ns
        self._last_ns = 0
        self._scheme = scheme_of(keypair)
        self.hotkey = str(keypair.ss58_address)
        self._always = {http_auth.HEADER_VERSION: http_auth.VERSION, http_auth.HEADER_HOTKEY: self.hotkey}
        if self._scheme != _DEFAULT_SCHEME:
            self._always[http_auth.HEADER_CRYPTO] = self._scheme

    def headers(self, *, method: str, url: URL, body: bytes, receiver: str) -> dict[str, str]:
        """Return the headers of one try; `receiver`: the miner's hotkey. Sign anew for the next."""
        return self.headers_of(method=method, target=target_of(url), digest=body_digest(body), receiver=receiver)

    def headers_of(self, *, method: str, target: str, digest: str, receiver: str) -> dict[str, str]:
        """As `headers`, for a body that is hashed already (`payload.body_digest`)."""
        self._last_ns = nonce = max(self._clock_ns(), self._last_ns + 1)
        signature = self._sign(
            payload(
                scheme=self._scheme, method=method, target=target, digest=digest, nonce_ns=nonce, sender=self.hotkey,
                receiver=receiver,
            )
        )  # fmt: skip
        return {
            **self._always,
            http_auth.HEADER_NONCE: str(nonce),
            http_auth.HEADER_SIGNATURE: f"0x{bytes(signature).hex()}",
            http_auth.HEADER_RECEIVER: receiver,
        }


def target_of(url: URL) -> str:
    """Return what is signed of an URL: path and query, percent-encoded, as aiohttp sends them."""
    return url.raw_path_qs


@asynccontextmanager
async def signed_request(
    session: aiohttp.ClientSession,
    signer: RequestSigner,
    *,
    method: str,
    url: URL,
    receiver: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    tries: int = 3,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request, and once more, signed anew, where that can do no harm; yields the last response.

    It is sent again when no connection came about, and on a 503 or 429 that names a `Retry-After` of at most 5 s (and
    no `x-should-retry: false`): of neither did an engine see anything. Never once an answer has begun.

    Raises:
        aiohttp.ClientError: no connection came about in any try, or it broke.
    """
    pause = FIRST_PAUSE_SECONDS
    for left in range(tries - 1, -1, -1):
        own = signer.headers(method=method, url=url, body=body, receiver=receiver)
        given = {**({"Content-Type": "application/json"} if body else {}), **(headers or {}), **own}
        try:
            # The body as bytes and no redirects: what is sent is what was signed, to whom it was signed for.
            response = await session.request(method, url, data=body or None, headers=given, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            if not left:
                raise
            await asyncio.sleep(pause)
            pause *= 2
            continue
        wait = _wait_of(response) if left else None
        if wait is None:
            try:
                yield response
            finally:
                response.release()
            return
        response.release()
        await asyncio.sleep(wait)


def _wait_of(response: aiohttp.ClientResponse) -> float | None:
    """Return after how many seconds to ask again; None for an answer to be taken."""
    if response.status not in (429, 503) or response.headers.get("x-should-retry") == "false":
        return None
    try:
        wait = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return wait if 0 <= wait <= MAX_WAIT_SECONDS else None
