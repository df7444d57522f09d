"""A dataset that a validator's gateway gives for a fine-tune task, by an address that opens it without another key.

What is in the address after its path is the key: it stands in no message, no status and no log. Redirects are not
followed, nothing but the task's own path is asked for, and the digest decides whether it is what was offered.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import orjson
from yarl import URL

from neurons.outside import ForbiddenAddress, TooLong, check_url, outside_session, read_bounded
from neurons.store import StoreUnreachable
from neurons.trainer.errors import BadData

SECONDS: Final = 300.0
_SCHEMES: Final = ("http://", "https://")
_PASSING: Final = frozenset({408, 425, 429})
_ERROR_BYTES: Final = 16 * 1024


def is_web_address(uri: str) -> bool:
    """Tell whether a dataset is fetched by HTTP, and not from a store."""
    return uri.startswith(_SCHEMES)


def shown(uri: str) -> str:
    """Return a dataset's URI as it may be told: without what opens it."""
    return uri.partition("?")[0] if is_web_address(uri) else uri


async def fetch(uri: str, *, at_most: int, loopback: bool = False) -> bytes:
    """Return the dataset.

    `loopback`: the gateway may be on this machine, as in tests.

    Raises:
        BadData: it isn't given, and won't be another time: it was withdrawn, the task is over, it is too large.
        StoreUnreachable: another try may succeed.
    """
    where = shown(uri)
    try:
        url = URL(uri, encoded=True)
        check_url(url, loopback=loopback)
        async with (
            outside_session(loopback=loopback, seconds=SECONDS) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status == 200:
                return await read_bounded(response, at_most)
            status, body = response.status, await read_bounded(response, _ERROR_BYTES)
    except (ForbiddenAddress, TooLong) as error:
        raise BadData(f"{where}: the dataset isn't read: {error}.") from None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        # Not its words: they may hold the address.
        forbidden = isinstance(error.__cause__, ForbiddenAddress)
        if forbidden or isinstance(getattr(error, "os_error", None), ForbiddenAddress):
            raise BadData(f"{where}: the name leads to an address that nobody outside may name.") from None
        raise StoreUnreachable(f"{where}: the gateway can't be reached ({type(error).__name__}).") from None
    said = f"{where}: the gateway answered {status}{_words(body)}"
    if status in _PASSING or status >= 500:
        raise StoreUnreachable(said)
    raise BadData(said)


def _words(body: bytes) -> str:
    try:
        message = str(orjson.loads(body)["error"]["message"])[:500]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return "."
    return f": {''.join(each for each in message if each.isprintable())}"
