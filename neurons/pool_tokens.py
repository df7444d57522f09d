"""The tokens by which a pool's miners are known to its agents: a folder with a file each, as a Secret is mounted.

A miner sends all that it has, and an agent takes any that it has, so that tokens are changed without an answer lost:
put a new one beside the old, and take the old one away when the kubelets have brought the new. Nobody is asked: neither
the operator nor the API server need be there.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
MOST_TOKENS: Final = 8
MOST_BYTES: Final = 512
LEAST_CHARACTERS: Final = 16


class PoolTokens:
    """The tokens now. The folder is read again when it changes; kubelet swaps it as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._tokens: tuple[bytes, ...] = ()
        self._taken = b""
        """What was sent last and was right, whole: nearly every request brings the same."""
        self.header = ""
        """What a miner sends; empty without any token."""
        self.refresh()

    @property
    def known(self) -> bool:
        """Whether there is any."""
        return bool(self._tokens)

    def admits(self, header: str | None) -> bool:
        """Tell whether what was sent holds one of them. Each comparison takes the same time, right or wrong."""
        if not header or not self._tokens:
            return False
        given = header.encode("utf-8", "surrogateescape")
        if self._taken and hmac.compare_digest(given, self._taken):
            return True
        found = False
        for part in given.split(b" ")[:MOST_TOKENS]:
            for token in self._tokens:
                found |= hmac.compare_digest(part, token)
        if found:
            self._taken = given
        return found

    async def follow(self) -> None:
        """Poll the folder for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read the folder if it changed; one that can't be read leaves what was known."""
        try:
            # Names with a dot in front are kubelet's own: ..data and the folder it points to.
            files = sorted(path for path in self._folder.iterdir() if path.name[0] != "." and path.is_file())
            seen = [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in files]
            if seen == self._seen:
                return
            tokens = tuple(
                token
                for path in files[-MOST_TOKENS:]
                if len(token := path.read_bytes()[:MOST_BYTES].strip()) >= LEAST_CHARACTERS
                and token.isascii()
                and not set(token) & set(b" \t\r\n")
            )
        except OSError:
            return
        self._seen = seen
        if tokens != self._tokens:
            self._tokens, self._taken = tokens, b""
            self.header = b" ".join(reversed(tokens)).decode("ascii")
            log.info("the pool has %d tokens between miners and agents", len(tokens))
